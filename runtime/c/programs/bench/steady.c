/* SPDX-License-Identifier: Apache-2.0 */
/* When a warm-up is over: when the later half of it shows neither a slope nor a step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "order.h"
#include "statistics.h"

/* Stricter than what a run is judged by: what is left of a warm-up falls into the run. */
#define DRIFT_PERCENT 2.0
#define SHIFT_PERCENT 3.0
#define TAIL_PERCENT 20.0
#define ALPHA 0.05
/* So large a change from the first to the last third needs no proof: few samples have none. */
#define GROSS_PERCENT 25.0
/* It is looked at whenever there are so many times more samples, and must show nothing twice: what
 * has just begun to move is seen the second time. */
#define GROWTH 1.15
#define LOOKS 2
/* What is so short that the least time takes more calls than this is as warm as it gets. */
#define ENOUGH_SAMPLES 50000
#define LEAST_SAMPLES 24
#define LEAST_S 0.5
#define MOST_SAMPLES 2000000
#define MOST_NS 9e18

void bench_warm_up_limits(bench_warm_up *warm_up, size_t min_samples, double min_s, double max_s,
                          size_t max_samples, int callers)
{
    *warm_up = (bench_warm_up){
        .least = min_samples,
        .least_ns = (int64_t)fmin(min_s * callers * 1e9, MOST_NS),
        .most = max_samples,
        .most_ns = (int64_t)fmin(max_s * callers * 1e9, MOST_NS),
        .next_look = min_samples,
    };
}

void bench_warm_up_begin(bench_warm_up *warm_up, double max_s, int callers)
{
    double min_s = max_s < LEAST_S ? max_s : LEAST_S;
    bench_warm_up_limits(warm_up, LEAST_SAMPLES, min_s, max_s, MOST_SAMPLES, callers);
}

void bench_warm_up_end(bench_warm_up *warm_up)
{
    free(warm_up->samples_ns);
    warm_up->samples_ns = NULL;
    warm_up->count = warm_up->capacity = 0;
}

/* Return the median; the values come to lie in another order. */
static double median_of(int64_t *values, size_t count)
{
    select_rank(values, count, count / 2);
    double upper = (double)values[count / 2];
    if (count % 2)
        return upper;
    select_rank(values, count / 2, count / 2 - 1);
    return ((double)values[count / 2 - 1] + upper) / 2;
}

/* *gross: the median changes from the first to the last third by so much that it needs no proof. */
static bool look_at_thirds(const int64_t *samples_ns, size_t count, bool *gross)
{
    size_t third = count / 3 ? count / 3 : 1;
    int64_t *room = eip_allocate_array(third, sizeof *room);
    if (!room)
        return false;
    memcpy(room, samples_ns, third * sizeof *room);
    double first = median_of(room, third);
    memcpy(room, samples_ns + count - third, third * sizeof *room);
    double last = median_of(room, third);
    free(room);
    *gross = fabs(last - first) > first * GROSS_PERCENT / 100;
    return true;
}

/* *is_quiet: neither a slope nor a step is seen. */
static bool look_at(const int64_t *samples_ns, size_t count, bool *is_quiet)
{
    bool gross;
    bench_drift drift;
    bench_shift shifts[BENCH_MOST_SHIFTS];
    size_t found;
    *is_quiet = false;
    if (!look_at_thirds(samples_ns, count, &gross))
        return false;
    if (gross)
        return true;
    if (!bench_find_drift(samples_ns, NULL, count, DRIFT_PERCENT, ALPHA, &drift))
        return false;
    if (drift.found)
        return true;
    if (!bench_find_level_shifts(samples_ns, count, SHIFT_PERCENT, TAIL_PERCENT, ALPHA, shifts,
                                 &found))
        return false;
    *is_quiet = !found;
    return true;
}

static bool grow(bench_warm_up *warm_up)
{
    size_t wanted = warm_up->capacity ? 2 * warm_up->capacity : 1024;
    int64_t *larger = eip_allocate_array(wanted, sizeof *larger);
    if (!larger)
        return false;
    if (warm_up->count)
        memcpy(larger, warm_up->samples_ns, warm_up->count * sizeof *larger);
    free(warm_up->samples_ns);
    warm_up->samples_ns = larger;
    warm_up->capacity = wanted;
    return true;
}

static void look(bench_warm_up *warm_up, bool last)
{
    size_t count = warm_up->count, from = count / 2, next = (size_t)((double)count * GROWTH);
    bool is_quiet;
    warm_up->next_look = next > count ? next : count + 1;
    warm_up->failed = !look_at(warm_up->samples_ns + from, count - from, &is_quiet);
    warm_up->quiet = is_quiet ? warm_up->quiet + 1 : 0;
    /* Where the time is up, there is no second look. */
    warm_up->steady = count >= warm_up->least && warm_up->quiet >= (last ? 1 : LOOKS);
}

void bench_warm_up_add(bench_warm_up *warm_up, int64_t sample_ns)
{
    if (warm_up->count == warm_up->capacity && !grow(warm_up)) {
        warm_up->failed = warm_up->over = true;
        warm_up->steady = false;
        return;
    }
    warm_up->samples_ns[warm_up->count++] = sample_ns;
    warm_up->total_ns += sample_ns;
    bool out = warm_up->total_ns >= warm_up->most_ns || warm_up->count >= warm_up->most;
    bool least = warm_up->total_ns >= warm_up->least_ns || warm_up->count >= ENOUGH_SAMPLES;
    if (out || (warm_up->count >= warm_up->next_look && least)) {
        look(warm_up, out);
        warm_up->over = warm_up->steady || out || warm_up->failed;
    }
}
