/* SPDX-License-Identifier: Apache-2.0 */
/* What shifts.c shares with the null distribution of its test (null_heights.c). */
#ifndef BENCH_SHIFTS_H
#define BENCH_SHIFTS_H

#include <stddef.h>
#include <stdint.h>

/* Enough to place a shift to 2 % of the run, few enough that each median is of many samples. */
#define STRETCH_COUNTS 8
#define MOST_STRETCHES 64
extern const size_t stretch_counts[STRETCH_COUNTS];

/* One number of each stretch of a series. */
typedef struct stretches {
    size_t count;   /* one of stretch_counts; 0: there are too few samples */
    size_t samples; /* in all */
    double values[MOST_STRETCHES];
} stretches;

/* Replace values by their ranks, with mean 0 and variance 1. */
void rank_values(double *values, size_t count);

/* Return what a sum of `width` of `count` ranks is multiplied by, to compare it with others. */
double arc_scale(size_t width, size_t count);

/* Return the heights that shuffled ranks give, sorted: the test's null distribution. `count` is
 * one of stretch_counts. Made once, kept for good. */
#define NULL_SHUFFLES 4000
const double *null_heights(size_t count);

#endif
