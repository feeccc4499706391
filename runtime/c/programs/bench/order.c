/* SPDX-License-Identifier: Apache-2.0 */
/* Samples in order, and which of them is a percentile. */
#include "order.h"

#include <math.h>
#include <stdlib.h>

#include "statistics.h"

static int by_value(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

void bench_sort(int64_t *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
}

size_t bench_nearest_rank(size_t count, double percent)
{
    /* A rank is rounded up; what floats make of 99.9 * 1000 / 100 may not cost a whole rank. */
    double rank = ceil(rint(percent * (double)count / 100 * 1e6) / 1e6);
    size_t whole = rank > 1 ? (size_t)rank : 1;
    return whole < count ? whole : count;
}

static int by_number(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

void bench_sort_numbers(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_number);
}

double bench_median(double *values, size_t count)
{
    bench_sort_numbers(values, count);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void swap(int64_t *left, int64_t *right)
{
    int64_t moved = *left;
    *left = *right;
    *right = moved;
}

void select_rank(int64_t *values, size_t count, size_t rank)
{
    size_t low = 0, high = count; /* the rank lies in [low, high) */
    for (int cuts = 0; high - low > 16 && cuts < 100; cuts++) {
        /* The middle one of three is a good place to cut, in sorted series too. */
        int64_t *first = values + low, *middle = values + low + (high - low) / 2;
        int64_t *last = values + high - 1;
        if (*middle < *first)
            swap(middle, first);
        if (*last < *first)
            swap(last, first);
        if (*last < *middle)
            swap(last, middle);
        int64_t pivot = *middle;
        size_t below = low, above = high, at = low;
        while (at < above) { /* smaller ones, equal ones, larger ones */
            if (values[at] < pivot)
                swap(&values[below++], &values[at++]);
            else if (values[at] > pivot)
                swap(&values[at], &values[--above]);
            else
                at++;
        }
        if (rank < below)
            high = below;
        else if (rank >= above)
            low = above;
        else
            return;
    }
    qsort(values + low, high - low, sizeof *values, by_value);
}
