/* SPDX-License-Identifier: Apache-2.0 */
/* ei-bench: how fast a model is through the C library, and whether the figures can be trusted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "output.h"
#include "print.h"
#include "progress.h"
#include "report.h"
#include "sysfiles.h"

#define MAX_REPORT_BYTES ((size_t)256 << 20)
#define MEMORY_CALLS 3

typedef struct beside {
    const char *of[BENCH_MAX_BESIDE];
    int count;
} beside;

typedef struct arguments {
    bench_run run;
    beside beside;
    const char *out;
    bool as_json, force, layers, first_label;
} arguments;

static const char *read_beside(const char *text, void *value)
{
    beside *files = value;
    if (files->count == BENCH_MAX_BESIDE)
        return "given 8 times at most";
    files->of[files->count++] = text;
    return NULL;
}

/* -------------------------------------------------------------------------------- opening -- */

static ei_options options_of(const run_options *given)
{
    return (ei_options){.size = sizeof(ei_options),
                        .provider = (ei_provider)given->provider,
                        .threads = (int32_t)given->threads,
                        .device = (int32_t)given->device,
                        .library = given->library,
                        .head = given->head,
                        .cache_folder = given->cache_folder};
}

/* Open what is measured, and see what it takes of the memory: its largest batch runs a few times
 * for the peak. What is loaded later is not the model's. */
static ei_status open_model(bench_run *run, const ei_options *options)
{
    bench_subject *subject = &run->subjects[0];
    const bench_plan *plan = &run->plan;
    void *images = NULL;
    bench_call *call = NULL;
    int32_t largest = 1;
    for (int i = 0; i < plan->batches.count; i++)
        largest = plan->batches.of[i] > largest ? plan->batches.of[i] : largest;
    bench_memory_before(&run->memory);
    ei_status status = bench_subject_open(run->path, NULL, BENCH_BACKBONE, options, subject);
    if (status)
        return status;
    run->subject_count = 1;
    bench_memory_opened(&run->memory);
    status = bench_subject_size(subject, plan->frame_size);
    if (!status)
        status = bench_subject_images(subject, largest, plan->seed, &images);
    if (!status)
        status = bench_subject_call(subject, images, largest, &call);
    for (int i = 0; i < MEMORY_CALLS && !status; i++)
        status = call->run(call);
    bench_memory_peaked(&run->memory);
    bench_call_close(call);
    free(images);
    return status;
}

/* Open the same file without its head, where it has both and they are measured in turns. */
static ei_status open_backbone(bench_run *run, const ei_options *options)
{
    const bench_subject *whole = &run->subjects[0];
    if (!whole->model || !strcmp(whole->name, "head"))
        return EI_OK;
    if (strcmp(bench_plan_mode(&run->plan), "turns")) {
        bench_note("note", "the backbone alone is measured in turns with the model, and so not "
                           "with --concurrency, --rate or --mlperf");
        return EI_OK;
    }
    bench_subject *subject = &run->subjects[run->subject_count];
    ei_status status = bench_subject_headless(run->path, whole, options, subject);
    if (status)
        return status;
    run->subject_count++;
    return bench_subject_size(subject, subject->any_size ? run->plan.frame_size : (int32_t[2]){0});
}

/* Name a file beside by its own name, or by its path where two have one name. */
static const char *name_beside(const beside *files, int number)
{
    const char *name = bench_base(files->of[number]);
    for (int i = 0; i < files->count; i++)
        if (i != number && !strcmp(bench_base(files->of[i]), name))
            return files->of[number];
    return name;
}

static ei_status open_beside(bench_run *run, const beside *files, const ei_options *options)
{
    ei_options own = *options;
    own.head = NULL; /* that of the model */
    ei_status status = EI_OK;
    for (int i = 0; i < files->count && !status; i++) {
        bench_subject *subject = &run->subjects[run->subject_count];
        const char *name = name_beside(files, i);
        bool has_backbone = false;
        for (int j = 0; j < run->subject_count; j++)
            has_backbone |= !strcmp(run->subjects[j].name, BENCH_BACKBONE);
        status = bench_subject_open(files->of[i], name, has_backbone ? name : BENCH_BACKBONE,
                                    &own, subject);
        if (status)
            break;
        run->subject_count++;
        status = bench_subject_size(subject,
                                    subject->any_size ? run->plan.frame_size : (int32_t[2]){0});
        for (int j = 0; j + 1 < run->subject_count && !status; j++)
            if (!strcmp(run->subjects[j].name, subject->name))
                status = eip_fail(EI_INVALID_ARGUMENT,
                                  "two things are measured under one name: %s", subject->name);
    }
    return status;
}

/* ------------------------------------------------------------------------------ delivering -- */

/* Show the report before it is written: if that fails, minutes of work are not lost. */
static int deliver(const arguments *given, const bench_figures *figures, const bench_json *json)
{
    const bench_run *run = &given->run;
    bool well = given->as_json ? fwrite(json->data, 1, json->bytes, stdout) == json->bytes
                               : bench_tables_print(stdout, run, figures);
    well = !fflush(stdout) && well;
    for (size_t i = 0; i < run->verdict.count; i++)
        bench_note(run->verdict.items[i].severe ? "unstable" : "note", "%s",
                   run->verdict.items[i].text);
    ei_status status = EI_OK;
    if (given->out && json->bytes > MAX_REPORT_BYTES)
        status = eip_fail(EI_WRITE_FAILED,
                          "cannot write %s: the report is %.0f MB and %.0f MB are the most that "
                          "is read; take fewer samples",
                          given->out, (double)json->bytes / 1e6, (double)MAX_REPORT_BYTES / 1e6);
    else if (given->out)
        status = bench_check_output(given->out, given->force, &run->path, 1);
    if (given->out && !status)
        status = eip_write_file(given->out, json->data, json->bytes);
    if (status) {
        if (!given->as_json)
            bench_note("note", "the figures above are all there is now; --json prints the report");
        return failed_with(status);
    }
    if (given->out && !given->as_json) {
        fputs("report: ", stdout);
        print_text(stdout, given->out);
        fputc('\n', stdout);
        well = !fflush(stdout) && well;
    }
    if (!well)
        print_error("stdout can't be written to its end");
    return well ? EXIT_WELL : EXIT_FAILED;
}

static int failed(ei_status status)
{
    bench_tell(NULL, 0, 0);
    if (bench_interrupted()) {
        print_error("interrupted; no file was left half-written");
        return EXIT_INTERRUPTED;
    }
    return failed_with(status);
}

static int report(arguments *given, bench_origin *origin)
{
    bench_figures figures = {0};
    bench_json json = {0};
    ei_status status = bench_figures_make(&given->run, &figures);
    origin->created_unix_s = (int64_t)time(NULL);
    if (!status) {
        bench_report_write(&given->run, &figures, origin, &json);
        if (json.failed)
            status = eip_fail(EI_OUT_OF_MEMORY, "there is not enough memory for the report");
    }
    int exit_status = status ? failed(status) : deliver(given, &figures, &json);
    bench_json_clear(&json);
    bench_figures_clear(&figures);
    return exit_status;
}

/* -------------------------------------------------------------------------------- the run -- */

static ei_status check_names(const beside *files)
{
    for (int i = 0; i < files->count; i++)
        if (bench_json_characters(name_beside(files, i)) > BENCH_MAX_LABEL)
            return eip_fail(EI_INVALID_ARGUMENT,
                            "a series has a name of %d characters at most, and %s is longer; "
                            "name the file from a folder near it",
                            BENCH_MAX_LABEL, files->of[i]);
    return EI_OK;
}

static ei_status check(const arguments *given)
{
    const bench_plan *plan = &given->run.plan;
    const char *inputs[2 * BENCH_MAX_BESIDE + 3] = {given->run.path};
    char heads[BENCH_MAX_BESIDE + 1][BENCH_PATH_BYTES];
    size_t count = 1;
    ei_status status = bench_plan_check(plan);
    if (!status)
        status = bench_check_threads(given->run.options.threads);
    if (!status && given->layers)
        status = eip_fail(EI_INVALID_ARGUMENT,
                          "--layers is not here: ONNX Runtime's C interface tells times by layer "
                          "in a trace only; run edge-imprint bench --layers");
    if (!status && given->beside.count && strcmp(bench_plan_mode(plan), "turns"))
        status = eip_fail(EI_INVALID_ARGUMENT,
                          "--beside is measured in turns, which goes with neither --concurrency, "
                          "--rate nor --mlperf");
    if (!status)
        status = check_names(&given->beside);
    if (status || !given->out)
        return status;
    for (int i = 0; i < given->beside.count; i++)
        inputs[count++] = given->beside.of[i];
    for (size_t i = 0, files = count; i < files; i++)
        if (snprintf(heads[i], sizeof heads[i], "%s.head", inputs[i]) < (int)sizeof heads[i])
            inputs[count++] = heads[i];
    if (given->run.options.head)
        inputs[count++] = given->run.options.head;
    return bench_check_output(given->out, given->force, inputs, count);
}

static ei_status open_all(arguments *given, bench_origin *origin)
{
    bench_run *run = &given->run;
    ei_options options = options_of(&run->options);
    ei_status status = open_model(run, &options);
    if (!status)
        status = open_backbone(run, &options);
    if (!status)
        status = open_beside(run, &given->beside, &options);
    if (!status && run->plan.cold && !run->subjects[0].model)
        status = eip_fail(EI_INVALID_ARGUMENT,
                          "a cold start ends with a label, and %s has none; leave out --cold",
                          run->path);
    if (!status && run->plan.stages) {
        bench_call *call = NULL; /* refused before anything is measured */
        void *images = NULL;
        for (int i = 0; i < run->plan.batches.count && !status; i++) {
            status = bench_subject_images(&run->subjects[0], run->plan.batches.of[i], 0, &images);
            if (!status)
                status = bench_subject_compute(&run->subjects[0], images,
                                               run->plan.batches.of[i], &call);
            bench_call_close(call);
            free(images);
            images = NULL;
            call = NULL;
        }
    }
    return status ? status : bench_origin_find(run->path, origin);
}

/* What a cold start starts: open, classify once, print. */
static int first_label(arguments *given)
{
    bench_run *run = &given->run;
    ei_options options = options_of(&run->options);
    char *label = NULL;
    ei_status status =
        bench_subject_open(run->path, NULL, BENCH_BACKBONE, &options, &run->subjects[0]);
    run->subject_count = !status;
    if (!status)
        status = bench_subject_size(&run->subjects[0], run->plan.frame_size);
    if (!status && !run->subjects[0].model)
        status = eip_fail(EI_INVALID_ARGUMENT, "a backbone alone has no labels");
    if (!status)
        status = bench_first_label(&run->subjects[0], &label);
    if (!status) {
        fputs("label: ", stdout);
        print_text(stdout, label);
        fputc('\n', stdout);
        fflush(stdout);
    }
    free(label);
    bench_run_clear(run);
    return status ? failed_with(status) : EXIT_WELL;
}

static int bench(arguments *given)
{
    bench_origin origin = {0};
    ei_status status = check(given);
    if (!status)
        status = open_all(given, &origin);
    if (!status)
        status = bench_go_on();
    if (!status)
        status = bench_run_measure(&given->run);
    int exit_status = status ? failed(status) : report(given, &origin);
    bench_origin_clear(&origin);
    bench_run_clear(&given->run);
    return exit_status;
}

int main(int argc, char **argv)
{
    arguments given = {.run = {.plan = {.batches = {{1}, 1},
                                        .concurrency = 1,
                                        .warm_up_s = 30}}};
    bench_plan *plan = &given.run.plan;
    const option_row rows[] = {
        RUN_OPTIONS(&given.run.options),
        {"--batch", "N,...", "Batch sizes, such as 1,8; 1 is the default.", OPTION_READ,
         &plan->batches, 0, 0, NULL, bench_read_batches},
        {"--frame-size", "WIDTHxHEIGHT", "Of frames, where the model takes any size.",
         OPTION_READ, plan->frame_size, 0, 0, NULL, read_size},
        {"--iterations", "N", "Samples of each series; 1000 if no duration is given.",
         OPTION_WHOLE, &plan->iterations, 1, BENCH_MAX_SAMPLES, NULL, NULL},
        {"--duration", "TIME", "Instead: time for each batch size, such as 30s or 2m.",
         OPTION_READ, &plan->duration_s, 0, 0, NULL, bench_read_seconds},
        {"--warm-up", "TIME", "At most, until times are steady; 30s is the default.", OPTION_READ,
         &plan->warm_up_s, 0, 0, NULL, bench_read_seconds},
        {"--beside", "FILE", "Another model, in turns with it; up to 8 times.",
         OPTION_READ, &given.beside, 0, 0, NULL, read_beside},
        {"--concurrency", "N", "Threads that call at once.", OPTION_WHOLE, &plan->concurrency, 1,
         BENCH_MAX_CONCURRENCY, NULL, NULL},
        {"--rate", "RATE", "Calls that arrive at random: 20/s, or 80% of what the\n"
         "threads can do.", OPTION_READ, plan->rate, 0, 0, NULL, bench_read_rate},
        {"--mlperf", NULL, "A single stream by MLPerf's rules: 600 s.", OPTION_FLAG,
         &plan->mlperf, 0, 0, NULL, NULL},
        {"--stages", NULL, "Also the run of the network alone (on the CPU).", OPTION_FLAG,
         &plan->stages, 0, 0, NULL, NULL},
        {"--cold", "N", "Also so many cold starts, each a fresh process.", OPTION_WHOLE,
         &plan->cold, 0, BENCH_MAX_COLD, NULL, NULL},
        {"--label", "TEXT", "A name for the run, to tell reports apart.", OPTION_TEXT,
         &plan->label, 0, 0, NULL, NULL},
        {"--out", "FILE", "A JSON file for the report and all samples.", OPTION_TEXT, &given.out,
         0, 0, NULL, NULL},
        {"--json", NULL, "Print the report as JSON on stdout.", OPTION_FLAG, &given.as_json, 0, 0,
         NULL, NULL},
        {"--force", NULL, "Replace the output file if it is there.", OPTION_FLAG, &given.force, 0,
         0, NULL, NULL},
        {"--layers", NULL, NULL, OPTION_FLAG, &given.layers, 0, 0, NULL, NULL},
        {"--first-label", NULL, NULL, OPTION_FLAG, &given.first_label, 0, 0, NULL, NULL},
    };
    const program command = {
        "ei-bench", "MODEL",
        "Measure MODEL's latency, beside that of its backbone alone. How, and what the\n"
        "figures mean: docs/measuring.md. The report is read by: edge-imprint report\n",
        rows, sizeof rows / sizeof *rows};
    char **words;
    int word_count, status = options_read(&command, argc, argv, &words, &word_count);
    if (status >= 0)
        return status;
    if (word_count != 1)
        return wrong_use(&command, word_count ? "one MODEL is measured; another goes with --beside"
                                              : "name the MODEL to be measured");
    given.run.path = words[0];
    if (given.first_label)
        return first_label(&given);
    bench_catch_interrupts();
    return bench(&given);
}
