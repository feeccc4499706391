/* SPDX-License-Identifier: Apache-2.0 */
/* One place in the order of samples, without sorting all of them (order.c). */
#ifndef BENCH_ORDER_H
#define BENCH_ORDER_H

#include <stddef.h>
#include <stdint.h>

/* Put the value of rank `rank` (from 0) where sorting would put it, the smaller ones before. */
void select_rank(int64_t *values, size_t count, size_t rank);

#endif
