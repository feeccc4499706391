/* SPDX-License-Identifier: Apache-2.0 */
/* The block bootstrap of percentiles (blocks.c), as intervals.c uses it. */
#ifndef BENCH_BLOCKS_H
#define BENCH_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOST_PERCENTS 16
/* Thresholds a percentile: over +-5 standard deviations, 1/16 of one apart. */
#define MOST_THRESHOLDS 160

/* Percentiles of one series, to be resampled by blocks. A block is `width` parts; parts are equal
 * in length to within a sample. Begin with zeroes. */
typedef struct bootstrap {
    const int64_t *samples; /* not its own */
    size_t count;
    int64_t *ordered; /* the samples, sorted: results are places in it */
    size_t parts;
    size_t width;
    size_t blocks; /* blocks in a resample */
    size_t percent_count;
    double percents[MOST_PERCENTS];
    /* How many times more the share of samples at or below each percentile scatters than among
     * independent samples, at least 1. */
    double design[MOST_PERCENTS];
    /* How many times more its place scatters than the bootstrap says, at least 1: blocks that end
     * cut off some of the dependence. */
    double widen[MOST_PERCENTS];
} bootstrap;

bool bootstrap_begin(bootstrap *one, const int64_t *samples, size_t count, const double *percents,
                     size_t percent_count);
void bootstrap_end(bootstrap *one);

/* Make the places in `ordered` that are tried for a percentile, rising; return how many. */
size_t bootstrap_thresholds(const bootstrap *one, size_t percent, size_t places[MOST_THRESHOLDS]);

/* Draw resamples: found[percent * resamples + i] is the threshold, by its number, at which the
 * percentile of resample i lies. */
bool bootstrap_draw(const bootstrap *one, int resamples, uint64_t seed, uint8_t *found);

/* Return the sum, added up in numpy's order: where just as many samples as are needed bound a
 * percentile, or all values are equal, the last bit decides. */
double pairwise_sum(const double *values, size_t count);

#endif
