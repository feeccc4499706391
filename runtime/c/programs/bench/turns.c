/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "progress.h"
#include "statistics.h"
#include "timing.h"

/* A turn of one series is long against what the others' threads leave behind (ONNX Runtime's spin
 * on for a while), and short against a throttle; each series gets ten turns at least. */
#define TURN_NS 500000000
#define MIN_TURNS 10
#define CHUNK_NS 100000000

static int64_t least(int64_t left, int64_t right)
{
    return left < right ? left : right;
}

static int64_t most(int64_t left, int64_t right)
{
    return left > right ? left : right;
}

/* -------------------------------------------------------------------------------- series -- */

void bench_samples_clear(bench_samples *samples)
{
    bench_longs_clear(&samples->taken_ns);
    bench_longs_clear(&samples->starts_ns);
    bench_longs_clear(&samples->warm_up_ns);
}

bench_series *bench_series_add(bench_series_list *list, const char *name, int32_t batch,
                               const char *stage, bench_samples *samples, int64_t began_ns)
{
    if (!bench_grow(&list->of, list->count, &list->capacity, sizeof *list->of))
        return NULL;
    for (size_t i = 0; i < samples->starts_ns.count; i++)
        samples->starts_ns.values[i] -= began_ns;
    bench_series *one = &list->of[list->count++];
    *one = (bench_series){.name = name,
                          .batch = batch,
                          .samples_ns = samples->taken_ns.values,
                          .starts_ns = samples->starts_ns.values,
                          .count = samples->taken_ns.count,
                          .concurrency = 1,
                          .stage = stage,
                          .clock = "host",
                          .warm_up_ns = samples->warm_up_ns.values,
                          .warm_up_count = samples->warm_up_ns.count,
                          .warmed_up = samples->steady};
    *samples = (bench_samples){0};
    return one;
}

void bench_series_list_clear(bench_series_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        bench_series_end(&list->of[i]);
    free(list->of);
    *list = (bench_series_list){0};
}

/* ------------------------------------------------------------------------------- samples -- */

/* Call until the calls are steady, or the warm-up's time is over. */
static ei_status warm_up(bench_call *call, double limit_s, bench_samples *samples)
{
    bench_warm_up warm;
    ei_status status = EI_OK;
    bench_warm_up_begin(&warm, limit_s, 1);
    while (!warm.over && !status) {
        int64_t start = bench_now_ns();
        status = call->run(call);
        bench_warm_up_add(&warm, bench_now_ns() - start);
        if (!status)
            status = bench_go_on();
    }
    samples->steady = warm.steady;
    samples->warm_up_ns = (bench_longs){warm.samples_ns, warm.count, warm.count};
    if (!status && warm.failed)
        status = eip_fail(EI_OUT_OF_MEMORY, "there is not enough memory for the warm-up");
    warm.samples_ns = NULL;
    bench_warm_up_end(&warm);
    return status;
}

/* Return about how long a call takes, by the last ten of the warm-up. */
static int64_t usual_ns(const bench_samples *samples)
{
    int64_t last[10];
    size_t count = samples->warm_up_ns.count < 10 ? samples->warm_up_ns.count : 10;
    if (!count)
        return 1;
    memcpy(last, samples->warm_up_ns.values + samples->warm_up_ns.count - count,
           count * sizeof *last);
    bench_sort(last, count);
    return most(1, (last[(count - 1) / 2] + last[count / 2]) / 2);
}

/* Make room for more, ahead of the calls: by doubling where it is not known how many will come. */
static ei_status make_room(bench_samples *samples, int64_t more)
{
    size_t wanted = samples->taken_ns.count + (size_t)more;
    if (wanted <= samples->taken_ns.capacity)
        return EI_OK;
    if (wanted < 2 * samples->taken_ns.count)
        wanted = 2 * samples->taken_ns.count;
    ei_status status = bench_longs_reserve(&samples->taken_ns, wanted);
    return status ? status : bench_longs_reserve(&samples->starts_ns, wanted);
}

/* Time so many calls: between two readings of the clock is the call, and nothing else. */
static ei_status take(bench_call *call, int64_t count, bench_samples *samples)
{
    ei_status status = make_room(samples, count);
    int64_t *taken = samples->taken_ns.values + samples->taken_ns.count;
    int64_t *starts = samples->starts_ns.values + samples->starts_ns.count;
    int64_t done = 0;
    for (; done < count && !status && !bench_interrupted(); done++) {
        int64_t start = bench_now_ns();
        status = call->run(call);
        taken[done] = bench_now_ns() - start;
        starts[done] = start;
    }
    samples->taken_ns.count += (size_t)done;
    samples->starts_ns.count += (size_t)done;
    return status ? status : bench_go_on();
}

/* Return how many calls a turn has. */
static int64_t turn_calls(const bench_limit *limit, const bench_samples *kept, size_t count)
{
    int64_t slowest_ns = 1;
    for (size_t i = 0; i < count; i++)
        slowest_ns = most(slowest_ns, usual_ns(&kept[i]));
    if (!(limit->duration_s > 0))
        return most(1, least(TURN_NS / slowest_ns, limit->samples / MIN_TURNS));
    int64_t share_ns = (int64_t)(limit->duration_s * 1e9 / MIN_TURNS / (double)count);
    return most(1, least(TURN_NS, share_ns) / slowest_ns);
}

/* ----------------------------------------------------------------------------- measuring -- */

static ei_status take_turns(bench_call *const *calls, size_t count, const bench_timing *timing,
                            bench_samples *kept)
{
    const bench_limit *limit = &timing->limit;
    ei_status status = EI_OK;
    for (size_t i = 0; i < count && !status; i++)
        status = warm_up(calls[i], timing->warm_up_s, &kept[i]);
    if (status)
        return status;
    int64_t turn = turn_calls(limit, kept, count), begin = bench_now_ns(), done = 0;
    for (size_t i = 0; i < count && !status && !(limit->duration_s > 0); i++)
        status = make_room(&kept[i], limit->samples);
    while (!status) {
        int64_t now = least(turn, limit->samples - done);
        for (size_t i = 0; i < count && !status; i++) {
            status = calls[i]->run(calls[i]); /* not kept: it meets what another left */
            if (!status)
                status = take(calls[i], now, &kept[i]);
        }
        done += now;
        int64_t elapsed_ns = bench_now_ns() - begin;
        bench_limit_tell(limit, timing->step, done, elapsed_ns);
        if (bench_limit_over(limit, done, elapsed_ns))
            break;
    }
    return status;
}

ei_status bench_measure_turns(bench_call *const *calls, const char *const *names,
                              const char *stage, size_t count, const bench_timing *timing,
                              bench_series_list *series)
{
    bench_samples *kept = eip_allocate(count, sizeof *kept);
    if (!kept)
        return EI_OUT_OF_MEMORY;
    bench_limit_tell(&timing->limit, timing->step, 0, 0); /* the warm-up may take a while */
    ei_status status = take_turns(calls, count, timing, kept);
    for (size_t i = 0; i < count && !status; i++)
        if (!bench_series_add(series, names[i], timing->batch, stage, &kept[i],
                              timing->began_ns))
            status = EI_OUT_OF_MEMORY;
    for (size_t i = 0; i < count; i++)
        bench_samples_clear(&kept[i]);
    free(kept);
    return status;
}

/* Time queries without a pause between them: what happens between two calls is of the latter. */
static ei_status take_stream(bench_call *call, int64_t count, int64_t last,
                             bench_samples *samples)
{
    ei_status status = make_room(samples, count);
    int64_t *taken = samples->taken_ns.values + samples->taken_ns.count;
    int64_t *starts = samples->starts_ns.values + samples->starts_ns.count;
    int64_t done = 0;
    for (; done < count && !status && !bench_interrupted(); done++) {
        status = call->run(call);
        int64_t now = bench_now_ns();
        taken[done] = now - last;
        starts[done] = last;
        last = now;
    }
    samples->taken_ns.count += (size_t)done;
    samples->starts_ns.count += (size_t)done;
    return status ? status : bench_go_on();
}

ei_status bench_measure_stream(bench_call *call, const char *name, const bench_timing *timing,
                               bench_series_list *series)
{
    bench_samples samples = {0};
    int64_t queries = timing->limit.samples;
    bench_limit_tell(&timing->limit, timing->step, 0, 0);
    ei_status status = warm_up(call, timing->warm_up_s, &samples);
    /* A run that ends with its queries takes no more of them. */
    int64_t chunk = CHUNK_NS / usual_ns(&samples);
    chunk = most(1, timing->limit.duration_s > 0 ? chunk : least(chunk, queries));
    if (!status)
        status = make_room(&samples, queries);
    int64_t begin = bench_now_ns(), last = begin;
    while (!status) {
        int64_t before = (int64_t)samples.taken_ns.count;
        status = take_stream(call, least(chunk, BENCH_MAX_SAMPLES - before), last, &samples);
        if (status)
            break;
        /* To the last answer, as the report counts: the clock is a little later by now. */
        int64_t done = (int64_t)samples.taken_ns.count;
        int64_t elapsed_ns =
            samples.starts_ns.values[done - 1] + samples.taken_ns.values[done - 1] - begin;
        bench_limit_tell(&timing->limit, timing->step, done, elapsed_ns);
        if ((done >= queries && (double)elapsed_ns >= timing->limit.duration_s * 1e9) ||
            done >= BENCH_MAX_SAMPLES)
            break;
        last = bench_now_ns(); /* what telling took is nobody's latency */
    }
    if (!status && !bench_series_add(series, name, timing->batch, "whole", &samples,
                                     timing->began_ns))
        status = EI_OUT_OF_MEMORY;
    bench_samples_clear(&samples);
    return status;
}
