/* SPDX-License-Identifier: Apache-2.0 */
/* What all files of ei-bench share: lists that grow, texts, the clock. */
#ifndef BENCH_LISTS_H
#define BENCH_LISTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

/* Make room for one more in an array that holds `count`, by doubling. `list` is the address of the
 * pointer to it. False sets EI_OUT_OF_MEMORY's error. */
bool bench_grow(void *list, size_t count, size_t *capacity, size_t bytes);

/* Whole numbers, one after the other. */
typedef struct bench_longs {
    int64_t *values;
    size_t count;
    size_t capacity;
} bench_longs;

/* Make room for `count` in all, and touch it: adding them costs neither a call nor a page. */
ei_status bench_longs_reserve(bench_longs *list, size_t count);
ei_status bench_longs_add(bench_longs *list, int64_t value);
void bench_longs_clear(bench_longs *list);

/* Return the monotonic clock in nanoseconds. */
int64_t bench_now_ns(void);

/* Return a text as printf makes it, to be freed; NULL sets EI_OUT_OF_MEMORY's error. */
char *bench_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
