/* SPDX-License-Identifier: Apache-2.0 */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "progress.h"
#include "statistics.h"

#define MAX_STEP 128

/* Samples of a series at most: all of them share a report that can still be read. */
static int64_t most_samples(const bench_run *run)
{
    const bench_plan *plan = &run->plan;
    bool turns = !strcmp(bench_plan_mode(plan), "turns");
    int each = (turns ? run->subject_count : 1) + (plan->rate[0] > 0) + plan->stages;
    int64_t most = BENCH_MAX_ALL_SAMPLES / (each * plan->batches.count);
    return most < BENCH_MAX_SAMPLES ? most : BENCH_MAX_SAMPLES;
}

static bench_timing timing_of(const bench_run *run, int32_t batch, const char *step)
{
    return (bench_timing){.batch = batch,
                          .limit = bench_limit_of(&run->plan, most_samples(run)),
                          .warm_up_s = run->plan.warm_up_s,
                          .began_ns = bench_recorder_start_ns(run->recorder),
                          .step = step};
}

/* ---------------------------------------------------------------------------------- turns -- */

static ei_status take_turns(bench_run *run, int32_t batch, const void *images)
{
    bench_call *calls[BENCH_MAX_SUBJECTS] = {NULL};
    void *own[BENCH_MAX_SUBJECTS] = {NULL};
    const char *names[BENCH_MAX_SUBJECTS];
    char step[MAX_STEP];
    ei_status status = EI_OK;
    for (int i = 0; i < run->subject_count && !status; i++) {
        const bench_subject *subject = &run->subjects[i], *first = &run->subjects[0];
        bool same = subject->numbers == first->numbers &&
                    subject->image_numbers == first->image_numbers;
        names[i] = subject->name;
        if (!same)
            status = bench_subject_images(subject, batch, run->plan.seed, &own[i]);
        if (!status)
            status = bench_subject_call(subject, same ? images : own[i], batch, &calls[i]);
    }
    snprintf(step, sizeof step, "measuring batch %d", batch);
    bench_timing timing = timing_of(run, batch, step);
    if (!status)
        status = bench_measure_turns(calls, names, "whole", (size_t)run->subject_count, &timing,
                                     &run->series);
    for (int i = 0; i < run->subject_count; i++) {
        bench_call_close(calls[i]);
        free(own[i]);
    }
    return status;
}

static ei_status take_stages(bench_run *run, int32_t batch, const void *images)
{
    bench_call *call = NULL;
    char step[MAX_STEP];
    snprintf(step, sizeof step, "measuring the stages of batch %d", batch);
    bench_timing timing = timing_of(run, batch, step);
    ei_status status = bench_subject_compute(&run->subjects[0], images, batch, &call);
    if (!status)
        status = bench_measure_turns(&call, &run->subjects[0].name, "compute", 1, &timing,
                                     &run->series);
    bench_call_close(call);
    return status;
}

static ei_status take_stream(bench_run *run, const void *images)
{
    const bench_plan *plan = &run->plan;
    bench_call *call = NULL;
    bool is_short = plan->duration_s > 0 || plan->iterations;
    bench_timing timing = timing_of(run, 1, "measuring a single stream");
    timing.limit.samples =
        is_short ? (plan->iterations ? plan->iterations : 1)
                 : bench_needed_queries(BENCH_MLPERF_PERCENT, BENCH_MLPERF_CONFIDENCE);
    timing.limit.duration_s = is_short ? plan->duration_s : BENCH_MLPERF_S;
    ei_status status = bench_subject_call(&run->subjects[0], images, 1, &call);
    if (!status)
        status = bench_measure_stream(call, run->subjects[0].name, &timing, &run->series);
    bench_call_close(call);
    return status;
}

/* ----------------------------------------------------------------------------------- load -- */

static void tell_load(bench_run *run, const bench_offered *offered, int threads)
{
    const char *name = run->subjects[0].name;
    char asked[BENCH_RATE_TEXT], drawn[BENCH_RATE_TEXT], busy[64], who[64], left[64] = "";
    bench_rate_text(offered->offered_per_s, asked);
    bench_rate_text(offered->drawn_per_s, drawn);
    snprintf(busy, sizeof busy, threads == 1 ? "the thread was" : "the %d threads were", threads);
    bench_find(&run->found, "backlog", name, false,
               "%s at %s calls a second, of which chance made %s: a call found %.2g others "
               "waiting on average, %lld at most; %s busy %.0f%% of the time",
               name, asked, drawn, offered->backlog_mean, (long long)offered->backlog_max, busy,
               100 * offered->busy_share);
    if (!offered->overloaded)
        return;
    snprintf(who, sizeof who, threads == 1 ? "one thread answers" : "%d threads answer", threads);
    if (offered->unserved)
        snprintf(left, sizeof left, ", and %lld were given up", (long long)offered->unserved);
    bench_find(&run->found, "overload", name, true,
               "%s calls a second are more than %s with %s: %lld of %lld still waited when the "
               "last one came%s; give a lower --rate",
               asked, who, name, (long long)offered->backlog_end, (long long)offered->arrivals,
               left);
}

static ei_status take_called(bench_run *run, int32_t batch, bench_call *const *calls)
{
    const bench_plan *plan = &run->plan;
    const char *name = run->subjects[0].name;
    int callers = (int)plan->concurrency;
    char step[MAX_STEP], rate[BENCH_RATE_TEXT];
    double rate_per_s = plan->rate[1];
    ei_status status;
    if (!(rate_per_s > 0)) {
        int used = snprintf(step, sizeof step, "measuring batch %d", batch);
        if (callers > 1)
            snprintf(step + used, sizeof step - (size_t)used, ", %d at once", callers);
        bench_timing timing = timing_of(run, batch, step);
        status = bench_measure_closed(calls, name, callers, &timing, &run->series);
        if (status || !(plan->rate[0] > 0))
            return status;
        rate_per_s = plan->rate[0] / batch *
                     bench_throughput_images_per_s(&run->series.of[run->series.count - 1]);
    }
    bench_offered offered;
    bench_rate_text(rate_per_s, rate);
    snprintf(step, sizeof step, "measuring batch %d, %s calls a second", batch, rate);
    bench_timing timing = timing_of(run, batch, step);
    status = bench_measure_offered(calls, name, callers, rate_per_s, plan->seed, &timing,
                                   &run->series, &offered);
    if (!status)
        tell_load(run, &offered, callers);
    return status;
}

static ei_status take_load(bench_run *run, int32_t batch, const void *images)
{
    int callers = (int)run->plan.concurrency;
    size_t bytes = bench_subject_bytes(&run->subjects[0], batch);
    bench_call *calls[BENCH_MAX_CONCURRENCY] = {NULL};
    void *own[BENCH_MAX_CONCURRENCY] = {NULL}; /* each thread has images of its own */
    ei_status status = bench_subject_fits(&run->subjects[0], batch, callers);
    for (int i = 0; i < callers && !status; i++) {
        own[i] = eip_allocate_array(bytes, 1);
        if (!own[i])
            status = EI_OUT_OF_MEMORY;
        else
            memcpy(own[i], images, bytes);
        if (!status)
            status = bench_subject_call(&run->subjects[0], own[i], batch, &calls[i]);
    }
    if (!status)
        status = take_called(run, batch, calls);
    for (int i = 0; i < callers; i++) {
        bench_call_close(calls[i]);
        free(own[i]);
    }
    return status;
}

/* -------------------------------------------------------------------------------- the run -- */

/* Say where a series was full before its time was over. */
static void tell_full(bench_run *run, size_t before)
{
    const bench_plan *plan = &run->plan;
    double duration_s =
        plan->mlperf && !plan->iterations && !(plan->duration_s > 0) ? BENCH_MLPERF_S
                                                                      : plan->duration_s;
    int64_t most = most_samples(run);
    bool full = false;
    for (size_t i = before; i < run->series.count; i++)
        full |= (int64_t)run->series.of[i].count >= most;
    if (!full || !(duration_s > 0))
        return;
    char count[BENCH_RATE_TEXT];
    bench_count_text((double)most, count);
    bench_find(&run->found, "sample_limit", run->subjects[0].name, false,
               "it ended before %g s were over, since a series of a report holds at most %s "
               "samples",
               duration_s, count);
}

static ei_status take_batch(bench_run *run, int32_t batch)
{
    void *images = NULL;
    size_t before = run->series.count;
    const char *mode = bench_plan_mode(&run->plan);
    ei_status status = bench_subject_images(&run->subjects[0], batch, run->plan.seed, &images);
    if (!status) {
        if (!strcmp(mode, "turns"))
            status = take_turns(run, batch, images);
        else if (!strcmp(mode, "mlperf"))
            status = take_stream(run, images);
        else
            status = take_load(run, batch, images);
    }
    if (!status && run->plan.stages)
        status = take_stages(run, batch, images);
    free(images);
    if (!status)
        tell_full(run, before);
    return status;
}

/* What fails now is said, and costs the run nothing. */
static ei_status take_cold(bench_run *run)
{
    if (!run->plan.cold)
        return EI_OK;
    run->cold_ms = eip_allocate((size_t)run->plan.cold, sizeof *run->cold_ms);
    if (!run->cold_ms)
        return EI_OUT_OF_MEMORY;
    if (bench_cold_starts(run, run->cold_ms)) {
        free(run->cold_ms);
        run->cold_ms = NULL;
        bench_find(&run->found, "cold_start_failed", run->subjects[0].name, false, "%s",
                   ei_last_error());
    }
    return bench_go_on();
}

static ei_status judge_all(bench_run *run)
{
    bench_facts facts = bench_machine_judged(&run->machine);
    bool well = bench_judge(run->series.of, run->series.count, run->trace, &facts, &run->verdict);
    for (size_t i = 0; well && i < run->found.count; i++) {
        const bench_finding *one = &run->found.items[i];
        bench_find(&run->verdict, one->code, one->series, one->severe, "%s", one->text);
    }
    bench_findings_sort(&run->verdict);
    if (well && !run->verdict.failed && !run->found.failed)
        return EI_OK;
    return eip_fail(EI_OUT_OF_MEMORY, "there is not enough memory to judge the run");
}

static ei_status describe_machine(bench_run *run)
{
    const char *library = run->subjects[0].session->library;
    ei_status status = bench_machine_describe("", &run->machine);
    if (!status && !strncmp(library, "onnxruntime ", 12))
        status = bench_fact_text(&run->machine, "onnxruntime", library + 12);
    return status;
}

ei_status bench_run_measure(bench_run *run)
{
    int64_t most = most_samples(run);
    if (run->plan.iterations > most)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "--iterations must be at most %lld in each of so many series, got %lld",
                        (long long)most, (long long)run->plan.iterations);
    ei_status status = describe_machine(run);
    if (!status)
        status = bench_recorder_start("", BENCH_INTERVAL_S, &run->recorder);
    for (int i = 0; i < run->plan.batches.count && !status; i++)
        status = take_batch(run, run->plan.batches.of[i]);
    if (run->recorder)
        run->trace = bench_recorder_stop(run->recorder);
    if (!status)
        status = take_cold(run);
    bench_tell(NULL, 0, 0);
    return status ? status : judge_all(run);
}

const bench_series *bench_run_main(const bench_run *run)
{
    const bench_series *found = NULL;
    for (size_t i = 0; i < run->series.count; i++) {
        const bench_series *one = &run->series.of[i];
        if (strcmp(one->name, run->subjects[0].name) || strcmp(one->stage, "whole"))
            continue;
        if (one->offered_per_s > 0)
            return one;
        found = found ? found : one;
    }
    return found;
}

void bench_run_clear(bench_run *run)
{
    bench_series_list_clear(&run->series);
    bench_findings_end(&run->found);
    bench_findings_end(&run->verdict);
    bench_recorder_free(run->recorder);
    bench_machine_clear(&run->machine);
    free(run->cold_ms);
    for (int i = 0; i < run->subject_count; i++)
        bench_subject_close(&run->subjects[i]);
    memset(run, 0, sizeof *run);
}
