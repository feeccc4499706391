/* SPDX-License-Identifier: Apache-2.0 */
/* Intervals of percentiles, from samples that follow one another in time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "errors.h"
#include "statistics.h"

const double bench_percents[BENCH_PERCENTS] = {50, 90, 95, 99, 99.9};
const char *const bench_percent_keys[BENCH_PERCENTS] = {"p50", "p90", "p95", "p99", "p99_9"};

int64_t bench_fewest_samples(double percent, double confidence)
{
    double share = fmax(percent, 100 - percent) / 100;
    return (int64_t)ceil(log((1 - confidence) / 2) / log(share));
}

static bool is_bounded(const bootstrap *one, size_t percent, double confidence)
{
    double worth = (double)one->count / one->design[percent];
    return worth >= (double)bench_fewest_samples(one->percents[percent], confidence);
}

static int by_byte(const void *left, const void *right)
{
    return *(const uint8_t *)left - *(const uint8_t *)right;
}

/* Bound one percentile by where its resamples lie. */
static void bound(const bootstrap *one, size_t percent, double far, int resamples, uint8_t *found,
                  bench_interval *interval)
{
    size_t tried[MOST_THRESHOLDS];
    size_t last = bootstrap_thresholds(one, percent, tried) - 1;
    qsort(found, (size_t)resamples, sizeof *found, by_byte);
    int out = (int)floor(bench_normal_tail(far * one->widen[percent]) * resamples);
    /* One further out on either side: a bound among few samples is a whole sample, and is rounded
     * so that it holds. */
    size_t low = found[out] ? found[out] - 1u : 0;
    size_t high = found[resamples - 1 - out] < last ? found[resamples - 1 - out] + 1u : last;
    *interval = (bench_interval){true, one->ordered[tried[low]], one->ordered[tried[high]]};
}

bool bench_percentile_intervals(const int64_t *samples_ns, size_t samples, const double *percents,
                                size_t count, double confidence, int resamples, uint64_t seed,
                                bench_interval *intervals)
{
    bootstrap one;
    uint8_t *found = NULL;
    bool any = false;
    bool well = bootstrap_begin(&one, samples_ns, samples, percents, count);
    for (size_t p = 0; well && p < count; p++) {
        intervals[p] = (bench_interval){.known = is_bounded(&one, p, confidence)};
        any |= intervals[p].known;
    }
    if (well && any) {
        /* Few blocks know their own scatter badly, as few samples do: Student's quantile instead
         * of the normal one, by taking the resamples further out. */
        double freedom = fmax(3, 1.5 * (double)one.blocks - 1);
        double far = -bench_student_quantile((1 - confidence) / 2, freedom);
        found = eip_allocate(count * (size_t)resamples, sizeof *found);
        well = found && bootstrap_draw(&one, resamples, seed, found);
        for (size_t p = 0; well && p < count; p++)
            if (intervals[p].known)
                bound(&one, p, far, resamples, found + p * (size_t)resamples, &intervals[p]);
    }
    free(found);
    bootstrap_end(&one);
    return well;
}

bool bench_design_effect(const int64_t *samples_ns, size_t samples, double percent, double *design)
{
    bootstrap one;
    bool well = bootstrap_begin(&one, samples_ns, samples, &percent, 1);
    *design = well ? one.design[0] : 1;
    bootstrap_end(&one);
    return well;
}

bool bench_summarize(const int64_t *samples_ns, size_t count, bench_summary *summary)
{
    bench_interval intervals[BENCH_PERCENTS];
    int64_t *ordered = eip_allocate_array(count, sizeof *ordered);
    if (!ordered)
        return false;
    memcpy(ordered, samples_ns, count * sizeof *ordered);
    bench_sort(ordered, count);
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)ordered[i];
    summary->min_ms = (double)ordered[0] / 1e6;
    summary->max_ms = (double)ordered[count - 1] / 1e6;
    summary->mean_ms = sum / (double)count / 1e6;
    for (size_t p = 0; p < BENCH_PERCENTS; p++) {
        size_t rank = bench_nearest_rank(count, bench_percents[p]);
        summary->percentiles_ms[p] = (double)ordered[rank - 1] / 1e6;
    }
    free(ordered);
    if (!bench_percentile_intervals(samples_ns, count, bench_percents, BENCH_PERCENTS,
                                    BENCH_CONFIDENCE, BENCH_RESAMPLES, BENCH_SEED, intervals))
        return false;
    for (size_t p = 0; p < BENCH_PERCENTS; p++) {
        summary->bounded[p] = intervals[p].known;
        summary->intervals_ms[p][0] = (double)intervals[p].low_ns / 1e6;
        summary->intervals_ms[p][1] = (double)intervals[p].high_ns / 1e6;
    }
    return true;
}
