/* SPDX-License-Identifier: Apache-2.0 */
/* How much two things that were measured in turns differ: Python's `compare` of one run a side. */
#ifndef BENCH_DIFFERENCE_H
#define BENCH_DIFFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bench_difference {
    double ratio; /* of the medians, of b to a */
    double low, high;
} bench_difference;

/* Compare the medians of two series; false: memory ran out. */
bool bench_compare(const int64_t *a_ns, size_t a_count, const int64_t *b_ns, size_t b_count,
                   bench_difference *difference);

#endif
