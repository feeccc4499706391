/* SPDX-License-Identifier: Apache-2.0 */
/* Drift and level shifts of a latency over time.
 *
 * A series is cut into at most 64 stretches, and one number of each is looked at: its median, or
 * its 90th percentile, which sees what hits only some runs. Both tests work on ranks, so that no
 * outlier decides, and both allow for stretches that resemble their neighbours. What is found must
 * be significant and large. */
#include "shifts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "order.h"
#include "statistics.h"

/* Only these numbers of stretches are used, as the test's null distribution is kept for each. */
const size_t stretch_counts[STRETCH_COUNTS] = {8, 10, 12, 16, 24, 32, 48, 64};

/* A single change is told as such where it explains nearly as much as the best stretch. */
#define SINGLE 0.93
/* From so many stretches on, a second shift is taken out before likeness is looked at. */
#define FOR_TWO 24

/* Numbers of stretches. ------------------------------------------------------------------------ */

/* Return the median of the stretches that are (or are not) in [first, last). */
static double level_of(const stretches *of, size_t first, size_t last, bool within)
{
    double kept[MOST_STRETCHES];
    size_t count = 0;
    for (size_t i = 0; i < of->count; i++)
        if ((i >= first && i < last) == within)
            kept[count++] = of->values[i];
    return bench_median(kept, count);
}

static size_t edge(const stretches *of, size_t number)
{
    return number * of->samples / of->count;
}

/* Replace values by their ranks, equal ones for equal values, with mean 0 and variance 1. */
void rank_values(double *values, size_t count)
{
    double ordered[MOST_STRETCHES], ranks[MOST_STRETCHES], squares = 0;
    memcpy(ordered, values, count * sizeof *ordered);
    bench_sort_numbers(ordered, count);
    for (size_t i = 0; i < count; i++) {
        size_t below = 0, up_to = 0;
        for (size_t k = 0; k < count; k++) {
            below += ordered[k] < values[i];
            up_to += ordered[k] <= values[i];
        }
        /* The mean of all these sums is the count. */
        ranks[i] = (double)(below + up_to) - (double)count;
        squares += ranks[i] * ranks[i];
    }
    double deviation = sqrt(squares / (double)count);
    for (size_t i = 0; i < count; i++)
        values[i] = deviation > 0 ? ranks[i] / deviation : 0;
}

/* Return the percentile of samples, which come to lie in another order. */
static int64_t percentile_of(int64_t *samples, size_t count, double percent)
{
    double rank = ceil(percent * (double)count / 100);
    select_rank(samples, count, rank > 1 ? (size_t)rank - 1 : 0);
    return samples[rank > 1 ? (size_t)rank - 1 : 0];
}

/* Cut samples into stretches and take the percentile of each; none where they are too few. `room`
 * holds as many samples, and loses what it held. */
static void cut_stretches(const int64_t *samples, size_t count, double percent, int64_t *room,
                          stretches *found)
{
    /* A 90th percentile needs some samples below it, a median only three where there are few. */
    size_t most = count / 10;
    if (percent <= 50) {
        size_t few = count < 12 ? count : 12;
        most = count / 3 > few ? count / 3 : few;
    }
    *found = (stretches){.samples = count};
    for (size_t i = 0; i < STRETCH_COUNTS; i++)
        if (stretch_counts[i] <= most)
            found->count = stretch_counts[i];
    if (!found->count)
        return;
    memcpy(room, samples, count * sizeof *room);
    for (size_t i = 0; i < found->count; i++) {
        size_t from = edge(found, i);
        found->values[i] =
            (double)percentile_of(room + from, edge(found, i + 1) - from, percent);
    }
}

/* Cut samples into stretches and take the logarithm of each median. */
static bool log_medians(const int64_t *samples, size_t count, stretches *found)
{
    int64_t *room = eip_allocate_array(count, sizeof *room);
    if (!room)
        return false;
    cut_stretches(samples, count, 50, room, found);
    free(room);
    for (size_t i = 0; i < found->count; i++)
        found->values[i] = log(fmax(found->values[i], 1));
    return true;
}

/* Likeness. ------------------------------------------------------------------------------------ */

/* Take out of the values what a cubic over their places explains. */
static void less_cubic(double *values, size_t count)
{
    double basis[4][MOST_STRETCHES];
    for (size_t power = 0; power < 4; power++) {
        double *own = basis[power], norm = 0;
        for (size_t i = 0; i < count; i++) {
            double at = -1 + 2.0 * (double)i / (double)(count - 1);
            own[i] = power ? basis[power - 1][i] * at : 1;
        }
        /* By Gram and Schmidt, twice for the last bits. */
        for (size_t again = 0; again < 2; again++)
            for (size_t lower = 0; lower < power; lower++) {
                double product = 0;
                for (size_t i = 0; i < count; i++)
                    product += own[i] * basis[lower][i];
                for (size_t i = 0; i < count; i++)
                    own[i] -= product * basis[lower][i];
            }
        for (size_t i = 0; i < count; i++)
            norm += own[i] * own[i];
        for (size_t i = 0; i < count; i++)
            own[i] /= sqrt(norm);
    }
    for (size_t power = 0; power < 4; power++) {
        double product = 0;
        for (size_t i = 0; i < count; i++)
            product += values[i] * basis[power][i];
        for (size_t i = 0; i < count; i++)
            values[i] -= product * basis[power][i];
    }
}

/* Return how many times more sums of these ranks scatter than independent ones': the sum of the
 * correlations of a process in which each resembles the one before. What is smooth enough for a
 * cubic is no noise: the decay of a warm-up leaves a curve about the line that fits it. The ranks
 * are lost. */
static double excess(double *left, size_t count)
{
    double power = 0, beside = 0;
    less_cubic(left, count);
    for (size_t i = 0; i < count; i++) {
        power += left[i] * left[i];
        beside += i ? left[i] * left[i - 1] : 0;
    }
    if (power <= 1e-12 * (double)count)
        return 1;
    /* Each of the four terms fitted takes some likeness away. */
    double likeness = fmin(fmax(beside / power + 4 / (double)count, 0), 0.95);
    return (1 + likeness) / (1 - likeness);
}

/* Drift. --------------------------------------------------------------------------------------- */

#define MOST_PAIRS (MOST_STRETCHES * (MOST_STRETCHES - 1) / 2)

/* Return the median of the slopes between all pairs (Theil 1950, Sen 1968). */
static double median_slope(const double *logs, const double *times, size_t count)
{
    double slopes[MOST_PAIRS];
    size_t found = 0;
    for (size_t earlier = 0; earlier < count; earlier++)
        for (size_t later = earlier + 1; later < count; later++) {
            double gap = times[later] - times[earlier];
            if (gap > 0)
                slopes[found++] = (logs[later] - logs[earlier]) / gap;
        }
    return found ? bench_median(slopes, found) : 0;
}

bool bench_find_drift(const int64_t *samples_ns, const int64_t *starts_ns, size_t count,
                      double least_percent, double alpha, bench_drift *drift)
{
    stretches of;
    double times[MOST_STRETCHES], left[MOST_STRETCHES], rises = 0;
    *drift = (bench_drift){0, 1, false};
    if (!log_medians(samples_ns, count, &of))
        return false;
    if (!of.count)
        return true;
    for (size_t i = 0; i < of.count; i++)
        times[i] = starts_ns ? (double)(starts_ns[edge(&of, i)] + starts_ns[edge(&of, i + 1) - 1]) /
                                   2e9
                             : (double)i;
    double slope = median_slope(of.values, times, of.count);
    for (size_t i = 0; i < of.count; i++) {
        left[i] = of.values[i] - slope * times[i];
        for (size_t k = 0; k < i; k++)
            rises += (of.values[i] > of.values[k]) - (of.values[i] < of.values[k]);
    }
    rank_values(left, of.count);
    double n = (double)of.count;
    /* Kendall's test, its variance widened as Hamed and Rao (1998) do. */
    double deviation = sqrt(n * (n - 1) * (2 * n + 5) / 18 * excess(left, of.count));
    drift->p_value = 2 * bench_normal_tail(fmax(0, fabs(rises) - 1) / deviation);
    /* From the middle of the first stretch to the last's, and half a stretch on either side. */
    double span = (times[of.count - 1] - times[0]) * n / (n - 1);
    drift->change_percent = expm1(fmin(slope * span, 50)) * 100;
    drift->found = drift->p_value < alpha && fabs(drift->change_percent) > least_percent;
    return true;
}

/* Level shifts. -------------------------------------------------------------------------------- */

/* Of all stretches [first, last), those whose ranks differ most from the others'; return by how
 * much. */
static double highest(const stretches *of, size_t *first, size_t *last)
{
    double ranks[MOST_STRETCHES], sums[MOST_STRETCHES + 1] = {0};
    double best = -1, single = 0;
    size_t single_first = 0, single_last = 2;
    memcpy(ranks, of->values, sizeof ranks);
    rank_values(ranks, of->count);
    for (size_t i = 0; i < of->count; i++)
        sums[i + 1] = sums[i] + ranks[i];
    for (size_t from = 0; from + 2 <= of->count; from++)
        for (size_t to = from + 2; to <= of->count && to - from <= of->count - 2; to++) {
            double height = fabs(sums[to] - sums[from]) * arc_scale(to - from, of->count);
            if (height > best) {
                best = height;
                *first = from;
                *last = to;
            }
            if ((from == 0 || to == of->count) && height > single) {
                single = height;
                single_first = from;
                single_last = to;
            }
        }
    if (single >= SINGLE * best) {
        *first = single_first;
        *last = single_last;
    }
    return best;
}

/* Divide the stretches [first, last), and the others, by their medians. */
static void level_out(stretches *of, size_t first, size_t last)
{
    double within = fmax(1e-9, level_of(of, first, last, true));
    double without = fmax(1e-9, level_of(of, first, last, false));
    for (size_t i = 0; i < of->count; i++)
        of->values[i] /= i >= first && i < last ? within : without;
}

/* Find the stretches [first, last) that differ most from the rest; return the p-value. */
static double best_arc(const stretches *of, size_t *first, size_t *last)
{
    const double *null = null_heights(of->count);
    double height = highest(of, first, last);
    stretches left = *of;
    level_out(&left, *first, *last);
    if (left.count >= FOR_TWO) { /* a second shift must not pass for likeness */
        size_t second_first, second_last;
        highest(&left, &second_first, &second_last);
        level_out(&left, second_first, second_last);
    }
    rank_values(left.values, left.count);
    height /= sqrt(excess(left.values, left.count));
    size_t below = 0, end = NULL_SHUFFLES;
    while (below < end) {
        size_t middle = (below + end) / 2;
        if (null[middle] < height)
            below = middle + 1;
        else
            end = middle;
    }
    return (double)(NULL_SHUFFLES - below + 1) / (NULL_SHUFFLES + 1);
}

/* Return a percentile of the samples that are (or are not) in [first, last). */
static int64_t sample_level(const int64_t *samples, size_t count, size_t first, size_t last,
                            bool within, double percent, int64_t *room)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if ((i >= first && i < last) == within)
            room[kept++] = samples[i];
    return percentile_of(room, kept, percent);
}

static void shifts_of(const int64_t *samples, size_t count, double percent, double least,
                      double alpha, int64_t *room, bench_shift *shifts, size_t *found)
{
    stretches of;
    cut_stretches(samples, count, percent, room, &of);
    for (int look = 0; of.count && look < BENCH_MOST_SHIFTS; look++) {
        size_t first, last;
        double p_value = best_arc(&of, &first, &last);
        if (p_value >= alpha)
            break;
        double ratio = level_of(&of, first, last, true) /
                       fmax(1, level_of(&of, first, last, false));
        for (size_t i = first; i < last; i++)
            of.values[i] /= fmax(ratio, 1e-9);
        if (first == 0) { /* another level up to somewhere: what is told is where it ended */
            first = last;
            last = of.count;
        }
        bench_shift shift = {
            .first = edge(&of, first),
            .last = edge(&of, last),
            .percent = percent,
            .p_value = p_value,
        };
        shift.level_ns = sample_level(samples, count, shift.first, shift.last, true, percent, room);
        shift.before_ns =
            sample_level(samples, count, shift.first, shift.last, false, percent, room);
        double before = shift.before_ns > 1 ? (double)shift.before_ns : 1;
        shift.change_percent = ((double)shift.level_ns / before - 1) * 100;
        if (fabs(shift.change_percent) > least)
            shifts[(*found)++] = shift;
    }
}

bool bench_find_level_shifts(const int64_t *samples_ns, size_t count, double least_percent,
                             double least_tail_percent, double alpha,
                             bench_shift shifts[BENCH_MOST_SHIFTS], size_t *found)
{
    *found = 0;
    int64_t *room = eip_allocate_array(count, sizeof *room);
    if (!room)
        return false;
    shifts_of(samples_ns, count, 50, least_percent, alpha, room, shifts, found);
    if (!*found)
        shifts_of(samples_ns, count, 90, least_tail_percent, alpha, room, shifts, found);
    free(room);
    return true;
}

bool bench_is_a_step(const int64_t *samples_ns, size_t count, const bench_shift *shift,
                     bool *is_step)
{
    stretches of;
    double times[MOST_STRETCHES], sloped[MOST_STRETCHES], kept[MOST_STRETCHES];
    *is_step = false;
    if (!log_medians(samples_ns, count, &of))
        return false;
    size_t first = 0, last = 0;
    while (first < of.count && edge(&of, first) < shift->first)
        first++;
    while (last < of.count && edge(&of, last) < shift->last)
        last++;
    if (first >= last || last - first == of.count)
        return true;
    for (size_t i = 0; i < of.count; i++)
        times[i] = (double)i;
    double slope = median_slope(of.values, times, of.count);
    for (size_t i = 0; i < of.count; i++)
        sloped[i] = kept[i] = of.values[i] - slope * times[i];
    double middle = bench_median(kept, of.count);
    double within = level_of(&of, first, last, true), without = level_of(&of, first, last, false);
    double step_left = 0, slope_left = 0;
    for (size_t i = 0; i < of.count; i++) {
        step_left += fabs(of.values[i] - (i >= first && i < last ? within : without));
        slope_left += fabs(sloped[i] - middle);
    }
    *is_step = step_left <= slope_left;
    return true;
}
