/* SPDX-License-Identifier: Apache-2.0 */
#include "difference.h"

#include <math.h>
#include <stdlib.h>

#include "blocks.h"
#include "errors.h"
#include "statistics.h"

#define DRAWN 2000

/* One side's median, in logarithms, and how it scatters by the block bootstrap. */
typedef struct side {
    bootstrap bootstrap;
    double log, variance, freedom;
    double least, most;
    bool bounded;
    double off[DRAWN];
} side;

static double log_of(int64_t sample_ns)
{
    return log(sample_ns > 1 ? (double)sample_ns : 1);
}

/* Draw `resamples` medians of a side, less its own, by the seed that Python gives it. */
static bool draw(side *one, const int64_t *samples_ns, size_t count, uint64_t seed)
{
    static const double median = 50;
    uint8_t found[DRAWN];
    size_t tried[MOST_THRESHOLDS];
    if (!bootstrap_begin(&one->bootstrap, samples_ns, count, &median, 1))
        return false;
    const int64_t *ordered = one->bootstrap.ordered;
    double worth = (double)count / one->bootstrap.design[0], sum = 0, squares = 0;
    one->log = log_of(ordered[bench_nearest_rank(count, median) - 1]);
    one->least = log_of(ordered[0]);
    one->most = log_of(ordered[count - 1]);
    one->bounded = worth >= (double)bench_fewest_samples(median, BENCH_CONFIDENCE);
    one->freedom = fmax(3, 1.5 * (double)one->bootstrap.blocks - 1);
    if (!bootstrap_draw(&one->bootstrap, DRAWN, seed, found))
        return false;
    bootstrap_thresholds(&one->bootstrap, 0, tried);
    for (int i = 0; i < DRAWN; i++) {
        one->off[i] =
            (log_of(ordered[tried[found[i]]]) - one->log) * one->bootstrap.widen[0];
        sum += one->off[i];
    }
    for (int i = 0; i < DRAWN; i++)
        squares += (one->off[i] - sum / DRAWN) * (one->off[i] - sum / DRAWN);
    one->variance = squares / DRAWN;
    return true;
}

static void within_runs(const side *first, side *second, double centre, double *low, double *high)
{
    double total = first->variance + second->variance;
    *low = *high = centre;
    if (total == 0)
        return;
    double freedom = total * total / (first->variance * first->variance / first->freedom +
                                      second->variance * second->variance / second->freedom);
    double far = bench_student_quantile((1 + BENCH_CONFIDENCE) / 2, freedom);
    int out = (int)floor(bench_normal_tail(far) * DRAWN);
    double *drawn = second->off;
    for (int i = 0; i < DRAWN; i++)
        drawn[i] = centre + second->off[i] - first->off[i];
    bench_sort_numbers(drawn, DRAWN);
    *low = drawn[out];
    *high = drawn[DRAWN - 1 - out];
}

bool bench_compare(const int64_t *a_ns, size_t a_count, const int64_t *b_ns, size_t b_count,
                   bench_difference *difference)
{
    double low, high;
    side *sides = eip_allocate(2, sizeof *sides);
    bool well = sides && draw(&sides[0], a_ns, a_count, 0) &&
                draw(&sides[1], b_ns, b_count, UINT32_MAX); /* -1 modulo 2^32 */
    if (well) {
        side *a = &sides[0], *b = &sides[1];
        double centre = b->log - a->log;
        if (a->bounded && b->bounded) {
            within_runs(a, b, centre, &low, &high);
        } else { /* as wide as the samples */
            low = b->least - a->most;
            high = b->most - a->least;
        }
        *difference = (bench_difference){exp(centre), exp(low), exp(high)};
    }
    for (int i = 0; sides && i < 2; i++)
        bootstrap_end(&sides[i].bootstrap);
    free(sides);
    return well;
}
