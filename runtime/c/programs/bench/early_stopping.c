/* SPDX-License-Identifier: Apache-2.0 */
/* MLPerf Inference's early-stopping estimate of a percentile.
 *
 * From the rules of MLPerf Inference (early stopping, tolerance d = 0): a run of q queries of which
 * t may lie above a latency shows, at confidence c, that the percentile p lies at or below it,
 * where t is the largest with
 *
 *     P(at most t of q queries lie above | each does with probability 1 - p) <= 1 - c.
 *
 * The t - 1 highest latencies are discarded, and the highest of the rest is the estimate. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "order.h"
#include "statistics.h"

/* MLPerf's suggestion is rounded up to a multiple of this. */
#define QUERIES_STEP 8192
/* So many standard deviations below the mean, a binomial's tail is nothing at any confidence. */
#define NOTHING 40.0

/* Return the share above the percentile. 1 - 0.9 is not 0.1 in floats; what is meant is. */
static double share_above(double percent)
{
    return rint((100 - percent) / 100 * 1e12) / 1e12;
}

static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign);
}

int64_t bench_most_over_latency(int64_t queries, double percent, double confidence)
{
    double above = share_above(percent), all = (double)queries, mean = all * above;
    double low = fmax(0, floor(mean - NOTHING * sqrt(mean) - NOTHING));
    double high = fmin(all, ceil(mean));
    double odds = log(above / (1 - above)), steps = 0, at_most = 0;
    double first = log_gamma(all + 1) - log_gamma(low + 1) - log_gamma(all - low + 1) +
                   low * log(above) + (all - low) * log1p(-above);
    for (double over = low; over <= high; over++) {
        at_most += exp(first + steps);
        if (at_most > 1 - confidence)
            return (int64_t)over - 1;
        /* From one probability to the next of the binomial distribution, in logarithms. */
        steps += log((all - over) / (over + 1)) + odds;
    }
    return (int64_t)high;
}

static double at_most_one(int64_t queries, double above)
{
    double others = (double)(queries - 1);
    return pow(1 - above, others) * (1 + others * above);
}

int64_t bench_needed_queries(double percent, double confidence)
{
    double above = share_above(percent);
    int64_t low = 1, high = 2;
    while (at_most_one(high, above) > 1 - confidence) {
        low = high;
        high *= 2;
    }
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (at_most_one(middle, above) > 1 - confidence)
            low = middle;
        else
            high = middle;
    }
    return high;
}

/* Return the z that a standard normal lies above with this probability, below one half. */
static double normal_quantile(double tail)
{
    double low = 0, high = 40;
    for (int i = 0; i < 80; i++) {
        double middle = (low + high) / 2;
        if (bench_normal_tail(middle) > tail)
            low = middle;
        else
            high = middle;
    }
    return high;
}

int64_t bench_suggested_queries(double percent, double confidence)
{
    /* As many as know the share of queries above the percentile to a twentieth of it. */
    double above = share_above(percent), z = normal_quantile((1 - confidence) / 2);
    double queries = z * z * (1 - above) * above / (above / 20 * (above / 20));
    return (int64_t)ceil(queries / QUERIES_STEP) * QUERIES_STEP;
}

bool bench_early_stopping_estimate(const int64_t *samples_ns, size_t count, double percent,
                                   double confidence, bench_early_stopping *estimate)
{
    *estimate = (bench_early_stopping){
        .queries = (int64_t)count,
        .needed_queries = bench_needed_queries(percent, confidence),
        .suggested_queries = bench_suggested_queries(percent, confidence),
    };
    if (estimate->queries < estimate->needed_queries)
        return true;
    int64_t over = bench_most_over_latency(estimate->queries, percent, confidence);
    int64_t *room = eip_allocate_array(count, sizeof *room);
    if (!room)
        return false;
    memcpy(room, samples_ns, count * sizeof *room);
    size_t at = count - (size_t)over;
    select_rank(room, count, at);
    estimate->over_latency = over;
    estimate->discarded = over - 1;
    estimate->known = true;
    estimate->estimate_ns = room[at];
    free(room);
    return true;
}
