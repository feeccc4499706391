/* SPDX-License-Identifier: Apache-2.0 */
/* What the test for level shifts holds its finding against: the largest difference of any stretch
 * in series that were shuffled. The shuffles are those that Python's runtime draws. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "shifts.h"
#include "statistics.h"

double arc_scale(size_t width, size_t count)
{
    return 1 / sqrt((double)width * (double)(count - width) / (double)count);
}

static double largest(const double *ranks, size_t count, const double *scales)
{
    double sums[MOST_STRETCHES + 1] = {0}, most = 0;
    for (size_t i = 0; i < count; i++)
        sums[i + 1] = sums[i] + ranks[i];
    for (size_t width = 2; width <= count - 2; width++)
        for (size_t from = 0; from + width <= count; from++) {
            double height = fabs(sums[from + width] - sums[from]) * scales[width];
            most = height > most ? height : most;
        }
    return most;
}

static void make_heights(size_t count, double *heights)
{
    double ranks[MOST_STRETCHES], shuffled[MOST_STRETCHES], scales[MOST_STRETCHES] = {0};
    bench_random random;
    for (size_t i = 0; i < count; i++) {
        ranks[i] = (double)i;
        scales[i] = i ? arc_scale(i, count) : 0;
    }
    rank_values(ranks, count);
    bench_random_begin(&random, count);
    for (size_t i = 0; i < NULL_SHUFFLES; i++) {
        memcpy(shuffled, ranks, sizeof shuffled);
        bench_shuffle(&random, shuffled, count);
        heights[i] = largest(shuffled, count, scales);
    }
    bench_sort_numbers(heights, NULL_SHUFFLES);
}

const double *null_heights(size_t count)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static double kept[STRETCH_COUNTS][NULL_SHUFFLES];
    static bool made[STRETCH_COUNTS];
    size_t at = 0;
    while (stretch_counts[at] != count)
        at++;
    pthread_mutex_lock(&lock);
    if (!made[at])
        make_heights(count, kept[at]);
    made[at] = true;
    pthread_mutex_unlock(&lock);
    return kept[at];
}
