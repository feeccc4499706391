/* SPDX-License-Identifier: Apache-2.0 */
/* Latency under load: many callers at once, or calls that come whether one is ready or not.
 *
 * Callers that wait for their answer before they ask again ask less often while the model stalls,
 * so that a stall is one slow sample among many. Users don't wait for each other: calls that
 * arrive at random times count from their arrival, so that all who came during a stall are slow
 * (no coordinated omission). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "crew.h"
#include "progress.h"
#include "statistics.h"
#include "timing.h"

#define START_NS 20000000 /* so that no thread is late for the first arrival */
#define GRACE_NS 1000000000
#define MOST_NS 1e18 /* 30 years: sums of such times fit into 64 bits */
/* More of the arrivals than this still waiting when the last one comes: it can't keep up. */
#define OVERLOAD_SHARE 0.02

/* -------------------------------------------------------------------------------- warm-up -- */

typedef struct warming {
    bench_call *const *calls;
    bench_warm_up warm;
    pthread_mutex_t lock;
} warming;

static ei_status warm_work(bench_crew *crew, int number, void *context)
{
    warming *all = context;
    bench_call *call = all->calls[number];
    bool over = false;
    while (!over && !bench_crew_stopped(crew)) {
        int64_t start = bench_now_ns();
        ei_status status = call->run(call);
        int64_t taken_ns = bench_now_ns() - start;
        if (status)
            return status;
        pthread_mutex_lock(&all->lock);
        if (!all->warm.over)
            bench_warm_up_add(&all->warm, taken_ns);
        over = all->warm.over;
        pthread_mutex_unlock(&all->lock);
    }
    return EI_OK;
}

/* Call with all threads at once until it is steady. */
static ei_status warm_up(bench_call *const *calls, int callers, double limit_s,
                         bench_samples *samples)
{
    warming all = {.calls = calls};
    bench_crew crew;
    pthread_mutex_init(&all.lock, NULL);
    bench_warm_up_begin(&all.warm, limit_s, callers);
    ei_status status = bench_crew_run(&crew, callers, warm_work, NULL, &all);
    if (!status && all.warm.failed)
        status = eip_fail(EI_OUT_OF_MEMORY, "there is not enough memory for the warm-up");
    samples->steady = all.warm.steady;
    samples->warm_up_ns = (bench_longs){all.warm.samples_ns, all.warm.count, all.warm.count};
    all.warm.samples_ns = NULL;
    bench_warm_up_end(&all.warm);
    pthread_mutex_destroy(&all.lock);
    return status;
}

/* ---------------------------------------------------------------------------- closed loop -- */

typedef struct closed {
    bench_call *const *calls;
    const bench_timing *timing;
    bench_samples *kept; /* of each thread */
    atomic_llong tickets;
} closed;

static ei_status closed_work(bench_crew *crew, int number, void *context)
{
    closed *all = context;
    bench_samples *kept = &all->kept[number];
    bench_call *call = all->calls[number];
    const bench_limit *limit = &all->timing->limit;
    int64_t end_ns =
        limit->duration_s > 0 ? crew->begin_ns + (int64_t)(limit->duration_s * 1e9) : INT64_MAX;
    ei_status status = EI_OK;
    while (!status && !bench_crew_stopped(crew) &&
           atomic_fetch_add(&all->tickets, 1) < limit->samples) {
        int64_t start = bench_now_ns();
        status = call->run(call);
        int64_t end = bench_now_ns();
        if (!status)
            status = bench_longs_add(&kept->starts_ns, start);
        if (!status)
            status = bench_longs_add(&kept->taken_ns, end - start);
        if (end >= end_ns)
            break;
    }
    return status;
}

static void tell_closed(bench_crew *crew, void *context)
{
    closed *all = context;
    int64_t done = atomic_load(&all->tickets), most = all->timing->limit.samples;
    bench_limit_tell(&all->timing->limit, all->timing->step, done < most ? done : most,
                     bench_now_ns() - crew->begin_ns);
}

typedef struct pair {
    int64_t start_ns, taken_ns;
} pair;

static int by_start(const void *left, const void *right)
{
    int64_t a = ((const pair *)left)->start_ns, b = ((const pair *)right)->start_ns;
    return (a > b) - (a < b);
}

/* Put the samples of all threads into the order in which they began. */
static ei_status merge(const bench_samples *kept, int callers, bench_samples *all)
{
    size_t count = 0;
    for (int i = 0; i < callers; i++)
        count += kept[i].taken_ns.count;
    pair *pairs = eip_allocate(count, sizeof *pairs);
    ei_status status = pairs ? bench_longs_reserve(&all->taken_ns, count) : EI_OUT_OF_MEMORY;
    if (!status)
        status = bench_longs_reserve(&all->starts_ns, count);
    if (!status) {
        size_t at = 0;
        for (int i = 0; i < callers; i++)
            for (size_t j = 0; j < kept[i].taken_ns.count; j++)
                pairs[at++] = (pair){kept[i].starts_ns.values[j], kept[i].taken_ns.values[j]};
        qsort(pairs, count, sizeof *pairs, by_start);
        for (size_t i = 0; i < count; i++) {
            all->starts_ns.values[i] = pairs[i].start_ns;
            all->taken_ns.values[i] = pairs[i].taken_ns;
        }
        all->starts_ns.count = all->taken_ns.count = count;
    }
    free(pairs);
    return status;
}

ei_status bench_measure_closed(bench_call *const *calls, const char *name, int callers,
                               const bench_timing *timing, bench_series_list *series)
{
    closed all = {.calls = calls, .timing = timing};
    bench_samples whole = {0};
    bench_crew crew;
    all.kept = eip_allocate((size_t)callers, sizeof *all.kept);
    if (!all.kept)
        return EI_OUT_OF_MEMORY;
    bench_limit_tell(&timing->limit, timing->step, 0, 0);
    ei_status status = warm_up(calls, callers, timing->warm_up_s, &whole);
    /* Room for a fair share, and a half more; a thread that gets more grows. */
    bool timed = timing->limit.duration_s > 0;
    size_t share = timed ? 65536 : (size_t)(timing->limit.samples / callers * 3 / 2 + 16);
    for (int i = 0; i < callers && !status; i++) {
        status = bench_longs_reserve(&all.kept[i].taken_ns, share);
        if (!status)
            status = bench_longs_reserve(&all.kept[i].starts_ns, share);
    }
    if (!status)
        status = bench_crew_run(&crew, callers, closed_work, tell_closed, &all);
    if (!status)
        status = merge(all.kept, callers, &whole);
    if (!status) {
        bench_series *one =
            bench_series_add(series, name, timing->batch, "whole", &whole, timing->began_ns);
        status = one ? EI_OK : EI_OUT_OF_MEMORY;
        if (one)
            one->concurrency = callers;
    }
    for (int i = 0; i < callers; i++)
        bench_samples_clear(&all.kept[i]);
    bench_samples_clear(&whole);
    free(all.kept);
    return status;
}

/* --------------------------------------------------------------------------- offered load -- */

ei_status bench_poisson_arrivals(double rate_per_s, const bench_limit *limit, uint64_t seed,
                                 bench_longs *arrivals)
{
    bench_random random;
    double at_ns = 0, end_ns = limit->duration_s > 0 ? limit->duration_s * 1e9 : INFINITY;
    ei_status status = EI_OK;
    bench_random_begin(&random, seed);
    while (!status && (int64_t)arrivals->count < limit->samples) {
        at_ns += bench_random_exponential(&random) * 1e9 / rate_per_s;
        if (at_ns >= end_ns && arrivals->count)
            break;
        status = bench_longs_add(arrivals, (int64_t)fmin(at_ns, MOST_NS));
    }
    return status;
}

typedef struct load {
    bench_call *const *calls;
    const bench_timing *timing;
    const int64_t *due_ns; /* since the begin */
    size_t count;
    int64_t *starts, *ends; /* of each arrival, on the clock; 0: it was not served */
    atomic_size_t tickets;
} load;

static ei_status load_work(bench_crew *crew, int number, void *context)
{
    load *all = context;
    bench_call *call = all->calls[number];
    int64_t span_ns = all->due_ns[all->count - 1] + START_NS;
    int64_t begin = crew->begin_ns + START_NS;
    int64_t give_up = begin + span_ns + (span_ns > GRACE_NS ? span_ns : GRACE_NS);
    for (;;) {
        size_t place = atomic_fetch_add(&all->tickets, 1);
        if (place >= all->count || bench_crew_wait_until(crew, begin + all->due_ns[place]))
            return EI_OK;
        int64_t start = bench_now_ns();
        if (start > give_up)
            return EI_OK;
        ei_status status = call->run(call);
        if (status)
            return status;
        all->ends[place] = bench_now_ns();
        all->starts[place] = start;
    }
}

static void tell_load(bench_crew *crew, void *context)
{
    load *all = context;
    size_t done = atomic_load(&all->tickets);
    bench_limit_tell(&all->timing->limit, all->timing->step,
                     (int64_t)(done < all->count ? done : all->count),
                     bench_now_ns() - crew->begin_ns);
}

/* Return how many of a sorted list are at or below a value. */
static size_t at_or_below(const int64_t *sorted, size_t count, int64_t value)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sorted[middle] <= value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Count who waited: whoever came before and was not begun yet; one that never was, for ever. */
static ei_status count_backlog(const load *all, int64_t begin, bench_offered *offered)
{
    int64_t *begun = eip_allocate(all->count, sizeof *begun);
    if (!begun)
        return EI_OUT_OF_MEMORY;
    size_t served = 0;
    double sum = 0;
    for (size_t i = 0; i < all->count; i++)
        if (all->ends[i])
            begun[served++] = all->starts[i];
    bench_sort(begun, served);
    for (size_t i = 0; i < all->count; i++) {
        int64_t waiting =
            (int64_t)i - (int64_t)at_or_below(begun, served, begin + all->due_ns[i]);
        waiting = waiting > 0 ? waiting : 0;
        sum += (double)waiting;
        offered->backlog_max =
            waiting > offered->backlog_max ? waiting : offered->backlog_max;
        offered->backlog_end = waiting;
    }
    offered->backlog_mean = sum / (double)all->count;
    offered->unserved = (int64_t)(all->count - served);
    free(begun);
    return EI_OK;
}

static ei_status judge_load(const load *all, int callers, int64_t begin, double rate_per_s,
                            bench_samples *samples, bench_offered *offered)
{
    int64_t busy_ns = 0, last_ns = begin + 1, due = all->due_ns[all->count - 1];
    *offered = (bench_offered){.offered_per_s = rate_per_s,
                               .drawn_per_s =
                                   (double)all->count / (double)(due > 1 ? due : 1) * 1e9,
                               .arrivals = (int64_t)all->count};
    ei_status status = EI_OK;
    for (size_t i = 0; i < all->count && !status; i++) {
        if (!all->ends[i])
            continue;
        int64_t scheduled = begin + all->due_ns[i];
        status = bench_longs_add(&samples->taken_ns, all->ends[i] - scheduled);
        if (!status)
            status = bench_longs_add(&samples->starts_ns, scheduled);
        busy_ns += all->ends[i] - all->starts[i];
        last_ns = all->ends[i] > last_ns ? all->ends[i] : last_ns;
    }
    if (!status)
        status = count_backlog(all, begin, offered);
    offered->busy_share = fmin(1, (double)busy_ns / ((double)(last_ns - begin) * callers));
    int64_t waiting = offered->backlog_end > offered->unserved ? offered->backlog_end
                                                               : offered->unserved;
    offered->overloaded =
        (double)waiting > fmax(callers, OVERLOAD_SHARE * (double)offered->arrivals);
    return status;
}

ei_status bench_measure_offered(bench_call *const *calls, const char *name, int callers,
                                double rate_per_s, uint64_t seed, const bench_timing *timing,
                                bench_series_list *series, bench_offered *offered)
{
    bench_longs arrivals = {0};
    bench_samples samples = {0};
    bench_crew crew;
    ei_status status = bench_poisson_arrivals(rate_per_s, &timing->limit, seed, &arrivals);
    load all = {.calls = calls,
                .timing = timing,
                .due_ns = arrivals.values,
                .count = arrivals.count};
    if (!status) {
        all.starts = eip_allocate(all.count, sizeof *all.starts);
        all.ends = eip_allocate(all.count, sizeof *all.ends);
        status = all.starts && all.ends ? EI_OK : EI_OUT_OF_MEMORY;
    }
    bench_limit_tell(&timing->limit, timing->step, 0, 0);
    if (!status)
        status = warm_up(calls, callers, timing->warm_up_s, &samples);
    if (!status)
        status = bench_crew_run(&crew, callers, load_work, tell_load, &all);
    if (!status)
        status = judge_load(&all, callers, crew.begin_ns + START_NS, rate_per_s, &samples,
                            offered);
    if (!status) {
        bench_series *one =
            bench_series_add(series, name, timing->batch, "whole", &samples, timing->began_ns);
        status = one ? EI_OK : EI_OUT_OF_MEMORY;
        if (one) {
            one->concurrency = callers;
            one->offered_per_s = rate_per_s;
        }
    }
    bench_longs_clear(&arrivals);
    bench_samples_clear(&samples);
    free(all.starts);
    free(all.ends);
    return status;
}
