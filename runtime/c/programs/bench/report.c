/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "progress.h"

static const char warm_up_text[] =
    "each was called until its times were steady, by a test for a slope and one for a change of "
    "level, for %g s at most (warmed_up is then false); see docs/measuring.md";

static const char cold_text[] =
    "from the start of a process of ei-bench to its first label: it opens the model and "
    "classifies one random image; the files were read before, and lie in the system's cache";

/* ------------------------------------------------------------------------------- figures -- */

static ei_status mlperf_figures(const bench_run *run, bench_figures *figures)
{
    const bench_series *series = bench_run_main(run);
    if (!bench_early_stopping_estimate(series->samples_ns, series->count, BENCH_MLPERF_PERCENT,
                                       BENCH_MLPERF_CONFIDENCE, &figures->mlperf))
        return eip_fail(EI_OUT_OF_MEMORY, "there is not enough memory for MLPerf's estimate");
    size_t last = series->count - 1;
    figures->mlperf_duration_s = (double)(series->starts_ns[last] + series->samples_ns[last] -
                                          series->starts_ns[0]) / 1e9;
    char *reason = figures->mlperf_reason;
    size_t used = 0, bytes = sizeof figures->mlperf_reason;
    if (figures->mlperf_duration_s < BENCH_MLPERF_S)
        used = (size_t)snprintf(reason, bytes, "it ran for %.1f s, and %.0f s are the least",
                                figures->mlperf_duration_s, BENCH_MLPERF_S);
    if (figures->mlperf.queries < figures->mlperf.needed_queries)
        snprintf(reason + used, bytes - used, "%sit had %lld queries, and %lld are the least",
                 used ? "; " : "", (long long)figures->mlperf.queries,
                 (long long)figures->mlperf.needed_queries);
    return EI_OK;
}

static ei_status cold_figures(const bench_run *run, bench_figures *figures)
{
    size_t count = (size_t)run->plan.cold;
    double *ordered = eip_allocate(count, sizeof *ordered);
    if (!ordered)
        return EI_OUT_OF_MEMORY;
    memcpy(ordered, run->cold_ms, count * sizeof *ordered);
    bench_sort_numbers(ordered, count);
    figures->cold_p50_ms = ordered[(count + 1) / 2 - 1];
    free(ordered);
    return EI_OK;
}

ei_status bench_figures_make(const bench_run *run, bench_figures *figures)
{
    *figures = (bench_figures){0};
    figures->summaries = eip_allocate(run->series.count, sizeof *figures->summaries);
    ei_status status = figures->summaries ? EI_OK : EI_OUT_OF_MEMORY;
    for (size_t i = 0; i < run->series.count && !status; i++) {
        const bench_series *one = &run->series.of[i];
        if (!one->count) /* Ctrl-C, or nobody was served */
            status = eip_fail(EI_RUN_FAILED, "no call of %s was answered; give it more time",
                              one->name);
        else if (!bench_summarize(one->samples_ns, one->count, &figures->summaries[i]))
            status = EI_OUT_OF_MEMORY;
    }
    if (!status && run->plan.mlperf)
        status = mlperf_figures(run, figures);
    if (!status && run->cold_ms)
        status = cold_figures(run, figures);
    if (!status)
        figures->has_energy =
            bench_energy_of(bench_run_main(run), run->trace, &figures->energy);
    return status;
}

void bench_figures_clear(bench_figures *figures)
{
    free(figures->summaries);
    *figures = (bench_figures){0};
}

/* --------------------------------------------------------------------- model and machine -- */

static void write_model(bench_json *json, const bench_run *run, const bench_origin *origin)
{
    static const char *const inputs[] = {"uint8", "float32", "embedding", "frame"};
    const bench_subject *subject = &run->subjects[0];
    const eip_contract *contract = subject->model ? &subject->model->file->contract : NULL;
    bench_json_key(json, "model");
    bench_json_open(json, '{');
    bench_json_key_text(json, "file", run->path);
    bench_json_key_whole(json, "bytes", origin->file_bytes);
    bench_json_key_text(json, "sha256", origin->sha256);
    bench_json_key_text(json, "precision", contract ? contract->precision : NULL);
    bench_json_key_text(json, "input", contract ? inputs[contract->input] : NULL);
    bool named = contract && contract->has_backbone;
    bench_json_key_text(json, "backbone", named ? contract->backbone : NULL);
    static const char *const numbers[] = {"classes", "slots", "embedding_size"};
    for (int i = 0; i < 3; i++) {
        bench_json_key(json, numbers[i]);
        if (!contract)
            bench_json_null(json);
        else
            bench_json_whole(json, i == 0   ? (int64_t)ei_class_count(subject->model)
                                   : i == 1 ? contract->slots
                                            : contract->embedding_size);
    }
    bench_json_key_text(json, "target", contract ? contract->target : NULL);
    bench_json_close(json, '}');
}

static void write_provider(bench_json *json, const bench_run *run)
{
    const eip_session *session = run->subjects[0].session;
    bench_json_key(json, "provider");
    bench_json_open(json, '{');
    bench_json_key_text(json, "name", session->provider);
    bench_json_key_text(json, "backend", provider_names[run->options.provider]);
    bench_json_key_text(json, "library", session->library);
    bench_json_key_whole(json, "threads", run->options.threads);
    bench_json_key(json, "nodes"); /* ONNX Runtime's C interface does not tell them */
    bench_json_open(json, '{');
    bench_json_close(json, '}');
    bench_json_key(json, "strays");
    bench_json_open(json, '[');
    bench_json_close(json, ']');
    bench_json_close(json, '}');
}

static void write_machine(bench_json *json, const bench_machine *machine)
{
    bench_json_key(json, "machine");
    bench_json_open(json, '{');
    for (size_t i = 0; i < machine->count; i++) {
        const bench_fact *one = &machine->of[i];
        bench_json_key(json, one->name);
        switch (one->kind) {
        case BENCH_TEXT:
            bench_json_text(json, one->text);
            break;
        case BENCH_WHOLE:
            bench_json_whole(json, (int64_t)one->number);
            break;
        case BENCH_NUMBER:
            bench_json_number(json, one->number);
            break;
        default:
            bench_json_null(json);
        }
    }
    bench_json_close(json, '}');
}

static void write_method(bench_json *json, const bench_run *run)
{
    const bench_plan *plan = &run->plan;
    double duration_s = plan->duration_s;
    char warm_up[512];
    if (plan->mlperf && !plan->iterations && !(duration_s > 0))
        duration_s = BENCH_MLPERF_S;
    snprintf(warm_up, sizeof warm_up, warm_up_text, plan->warm_up_s);
    bench_json_key(json, "method");
    bench_json_open(json, '{');
    bench_json_key_text(json, "clock", "CLOCK_MONOTONIC");
    bench_json_key_text(json, "mode", bench_plan_mode(plan));
    bench_json_key(json, "iterations");
    if (duration_s > 0)
        bench_json_null(json);
    else
        bench_json_whole(json, plan->iterations ? plan->iterations : BENCH_DEFAULT_ITERATIONS);
    bench_json_key_number(json, "duration_s", duration_s > 0 ? duration_s : NAN);
    bench_json_key_text(json, "percentiles", "nearest rank");
    bench_json_key_number(json, "confidence", BENCH_CONFIDENCE);
    bench_json_key_whole(json, "resamples", BENCH_RESAMPLES);
    bench_json_key_text(json, "warm_up", warm_up);
    bench_json_key_number(json, "interval_s", run->trace->count ? BENCH_INTERVAL_S : NAN);
    bench_json_key_whole(json, "seed", (int64_t)plan->seed);
    bench_json_close(json, '}');
}

/* -------------------------------------------------------------------------------- series -- */

static void write_one(bench_json *json, const bench_series *one, const bench_summary *summary)
{
    bench_json_open(json, '{');
    bench_json_key_text(json, "name", one->name);
    bench_json_key_whole(json, "batch", one->batch);
    bench_json_key_whole(json, "concurrency", one->concurrency);
    bench_json_key_text(json, "stage", one->stage);
    bench_json_key_text(json, "clock", one->clock);
    bench_json_key_whole(json, "iterations", (int64_t)one->count);
    bench_json_key_whole(json, "warm_up_iterations", (int64_t)one->warm_up_count);
    bench_json_key_bool(json, "warmed_up", one->warmed_up);
    bench_json_key_number(json, "min_ms", summary->min_ms);
    for (int p = 0; p < BENCH_PERCENTS; p++) {
        char key[16];
        snprintf(key, sizeof key, "%s_ms", bench_percent_keys[p]);
        bench_json_key_number(json, key, summary->percentiles_ms[p]);
    }
    bench_json_key_number(json, "max_ms", summary->max_ms);
    bench_json_key_number(json, "mean_ms", summary->mean_ms);
    bench_json_key(json, "intervals_ms");
    bench_json_open(json, '{');
    for (int p = 0; p < BENCH_PERCENTS; p++) {
        if (summary->bounded[p])
            bench_json_key_numbers(json, bench_percent_keys[p], summary->intervals_ms[p], 2);
        else
            bench_json_key_null(json, bench_percent_keys[p]);
    }
    bench_json_close(json, '}');
    bench_json_key_number(json, "throughput_images_per_s", bench_throughput_images_per_s(one));
    bench_json_key_number(json, "offered_per_s", one->offered_per_s > 0 ? one->offered_per_s : NAN);
    bench_json_key_wholes(json, "samples_ns", one->samples_ns, one->count);
    bench_json_key_wholes(json, "starts_ns", one->starts_ns, one->count);
    bench_json_key_wholes(json, "warm_up_ns", one->warm_up_ns, one->warm_up_count);
    bench_json_close(json, '}');
}

/* ---------------------------------------------------------------------------------- rest -- */

static void write_mlperf(bench_json *json, const bench_run *run, const bench_figures *figures)
{
    const bench_early_stopping *found = &figures->mlperf;
    if (!run->plan.mlperf) {
        bench_json_key_null(json, "mlperf");
        return;
    }
    bench_json_key(json, "mlperf");
    bench_json_open(json, '{');
    bench_json_key_whole(json, "queries", found->queries);
    bench_json_key_number(json, "duration_s", figures->mlperf_duration_s);
    bench_json_key_number(json, "percentile", BENCH_MLPERF_PERCENT);
    bench_json_key_number(json, "confidence", BENCH_MLPERF_CONFIDENCE);
    bench_json_key_whole(json, "over_latency", found->over_latency);
    bench_json_key_whole(json, "discarded", found->discarded);
    bench_json_key_number(json, "estimate_ms",
                          found->known ? (double)found->estimate_ns / 1e6 : NAN);
    bench_json_key_whole(json, "needed_queries", found->needed_queries);
    bench_json_key_whole(json, "suggested_queries", found->suggested_queries);
    bench_json_key_number(json, "needed_duration_s", BENCH_MLPERF_S);
    bench_json_key_bool(json, "valid", !*figures->mlperf_reason);
    bench_json_key_text(json, "reason", *figures->mlperf_reason ? figures->mlperf_reason : NULL);
    bench_json_close(json, '}');
}

static void write_memory(bench_json *json, const bench_memory *memory)
{
    const int64_t bytes[] = {memory->before_bytes, memory->open_bytes, memory->peak_bytes, -1};
    static const char *const keys[] = {"rss_before_bytes", "rss_open_bytes", "rss_peak_bytes",
                                       "device_bytes"};
    bench_json_key(json, "memory");
    bench_json_open(json, '{');
    for (int i = 0; i < 4; i++) {
        bench_json_key(json, keys[i]);
        if (bytes[i] < 0)
            bench_json_null(json);
        else
            bench_json_whole(json, bytes[i]);
    }
    bench_json_close(json, '}');
}

static void write_cold_and_energy(bench_json *json, const bench_run *run,
                                  const bench_figures *figures)
{
    bench_json_key(json, "cold_start");
    if (run->cold_ms) {
        bench_json_open(json, '{');
        bench_json_key_numbers(json, "runs_ms", run->cold_ms, (size_t)run->plan.cold);
        bench_json_key_number(json, "p50_ms", figures->cold_p50_ms);
        bench_json_key_text(json, "what", cold_text);
        bench_json_close(json, '}');
    } else {
        bench_json_null(json);
    }
    write_memory(json, &run->memory);
    bench_json_key(json, "energy");
    if (figures->has_energy) {
        bench_json_open(json, '{');
        bench_json_key_number(json, "joules_per_image", figures->energy.joules_per_image);
        bench_json_key_number(json, "mean_power_w", figures->energy.mean_power_w);
        bench_json_key_text(json, "source", figures->energy.source);
        bench_json_key_text(json, "series", bench_run_main(run)->name);
        bench_json_close(json, '}');
    } else {
        bench_json_null(json);
    }
}

static void write_sensors(bench_json *json, const bench_trace *trace)
{
    if (!trace->count) {
        bench_json_key_null(json, "sensors");
        return;
    }
    bench_json_key(json, "sensors");
    bench_json_open(json, '{');
    bench_json_key_number(json, "interval_s", BENCH_INTERVAL_S);
    bench_json_key_numbers(json, "times_s", trace->times_s, trace->count);
    bench_json_key(json, "readings");
    bench_json_open(json, '{');
    for (size_t i = 0; i < trace->reading_count; i++)
        bench_json_key_numbers(json, trace->readings[i].name, trace->readings[i].values,
                               trace->count);
    bench_json_close(json, '}');
    bench_json_key(json, "lost");
    bench_json_open(json, '{');
    for (size_t i = 0; i < trace->lost_count; i++)
        bench_json_key_text(json, trace->lost[i].source, trace->lost[i].reason);
    bench_json_close(json, '}');
    bench_json_close(json, '}');
}

static void write_verdict(bench_json *json, const bench_findings *verdict)
{
    bench_json_key(json, "verdict");
    bench_json_open(json, '{');
    bench_json_key_bool(json, "stable", bench_is_stable(verdict));
    bench_json_key(json, "findings");
    bench_json_open(json, '[');
    for (size_t i = 0; i < verdict->count; i++) {
        const bench_finding *one = &verdict->items[i];
        bench_json_open(json, '{');
        bench_json_key_text(json, "code", one->code);
        bench_json_key_text(json, "series", one->series);
        bench_json_key_text(json, "text", one->text);
        bench_json_key_bool(json, "severe", one->severe);
        bench_json_close(json, '}');
    }
    bench_json_close(json, ']');
    bench_json_close(json, '}');
}

void bench_report_write(const bench_run *run, const bench_figures *figures,
                        const bench_origin *origin, bench_json *json)
{
    char made_with[64];
    snprintf(made_with, sizeof made_with, "edge-imprint-c %s", ei_version());
    bench_json_open(json, '{');
    bench_json_key_text(json, "schema", "edge-imprint.report/1");
    bench_json_key_whole(json, "created_unix_s", origin->created_unix_s);
    bench_json_key_text(json, "made_with", made_with);
    bench_json_key_text(json, "label", run->plan.label);
    bench_json_key_text(json, "commit", origin->commit);
    write_model(json, run, origin);
    bench_json_key_null(json, "engine");
    write_provider(json, run);
    write_machine(json, &run->machine);
    write_method(json, run);
    bench_json_key(json, "series");
    bench_json_open(json, '[');
    for (size_t i = 0; i < run->series.count; i++)
        write_one(json, &run->series.of[i], &figures->summaries[i]);
    bench_json_close(json, ']');
    write_mlperf(json, run, figures);
    write_cold_and_energy(json, run, figures);
    bench_json_key(json, "layers");
    bench_json_open(json, '[');
    bench_json_close(json, ']');
    write_sensors(json, run->trace);
    write_verdict(json, &run->verdict);
    bench_json_close(json, '}');
    bench_json_raw(json, "\n", 1);
}
