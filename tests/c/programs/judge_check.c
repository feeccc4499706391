/* SPDX-License-Identifier: Apache-2.0 */
/* Lets ei-bench judge measurements that a test makes up. A line of stdin is a command and its
 * arguments, with tabs between; "judge" answers with the findings, in JSON, and forgets all.
 *
 *     series NAME BATCH STAGE CONCURRENCY WARMED_UP OFFERED_PER_S COUNT SAMPLES STARTS
 *     trace COUNT TIMES, then reading NAME VALUES, lost SOURCE REASON
 *     fact NAME VALUE
 *
 * Samples and times are files of raw int64, readings of raw float64; STARTS "-": not known. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "judge.h"

#define MOST 32

static char *given[16];
static bench_series series[MOST];
static bench_reading readings[MOST];
static bench_lost lost[MOST];
static double *times;
static bench_trace trace = {.readings = readings, .lost = lost};
static bench_facts facts;
static size_t series_count;
static long long until_failure;
/* What was loaded or copied, to be freed. */
static void *kept[8 * MOST];
static size_t kept_count;

void *__real_eip_allocate(size_t items, size_t bytes);
void *__real_eip_allocate_array(size_t items, size_t bytes);
void *__wrap_eip_allocate(size_t items, size_t bytes);
void *__wrap_eip_allocate_array(size_t items, size_t bytes);

static bool fails(void)
{
    if (!until_failure || --until_failure)
        return false;
    eip_fail(EI_OUT_OF_MEMORY, "this one was asked to fail");
    return true;
}

void *__wrap_eip_allocate(size_t items, size_t bytes)
{
    return fails() ? NULL : __real_eip_allocate(items, bytes);
}

void *__wrap_eip_allocate_array(size_t items, size_t bytes)
{
    return fails() ? NULL : __real_eip_allocate_array(items, bytes);
}

static void *load(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    void *data = malloc(bytes ? bytes : 1);
    if (!file || !data || fread(data, 1, bytes, file) != bytes) {
        fprintf(stderr, "can't read %zu bytes of %s\n", bytes, path);
        exit(2);
    }
    fclose(file);
    return data;
}

static void *keep(void *data)
{
    return kept[kept_count++] = data;
}

static void run_series(void)
{
    size_t count = (size_t)atol(given[7]), bytes = count * sizeof(int64_t);
    series[series_count++] = (bench_series){
        .name = keep(strdup(given[1])),
        .batch = atoi(given[2]),
        .stage = keep(strdup(given[3])),
        .concurrency = atoi(given[4]),
        .warmed_up = atoi(given[5]),
        .offered_per_s = atof(given[6]),
        .count = count,
        .clock = "host",
        .samples_ns = load(given[8], bytes),
        .starts_ns = strcmp(given[9], "-") ? load(given[9], bytes) : NULL,
    };
    puts("{}");
}

static void run_trace(void)
{
    trace.count = (size_t)atol(given[1]);
    trace.times_s = times = keep(load(given[2], trace.count * sizeof *times));
    puts("{}");
}

static void run_reading(void)
{
    readings[trace.reading_count++] = (bench_reading){
        keep(strdup(given[1])), keep(load(given[2], trace.count * sizeof(double)))};
    puts("{}");
}

static void run_lost(void)
{
    lost[trace.lost_count++] = (bench_lost){keep(strdup(given[1])), keep(strdup(given[2]))};
    puts("{}");
}

static void run_fact(void)
{
    const char **texts[] = {&facts.cpu_governor, &facts.jetpack, &facts.l4t, &facts.jetson_clocks,
                            &facts.gpu_clocks_locked};
    const char *names[] = {"cpu_governor", "jetpack", "l4t", "jetson_clocks", "gpu_clocks_locked"};
    if (!strcmp(given[1], "cores"))
        facts.cores = atof(given[2]);
    for (int i = 0; i < 5; i++)
        if (!strcmp(given[1], names[i]))
            *texts[i] = keep(strdup(given[2]));
    puts("{}");
}

static void print_quoted(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar(*text);
    }
    putchar('"');
}

static void forget(void)
{
    for (size_t i = 0; i < series_count; i++)
        bench_series_end(&series[i]);
    for (size_t i = 0; i < kept_count; i++)
        free(kept[i]);
    series_count = kept_count = 0;
    trace = (bench_trace){.readings = readings, .lost = lost};
    facts = (bench_facts){0};
}

static void run_judge(void)
{
    bench_findings findings = {0};
    bool well = bench_judge(series, series_count, trace.count ? &trace : NULL, &facts, &findings);
    if (!well)
        printf("{\"failed\": \"%s\"}\n", ei_last_error());
    if (well)
        printf("[%s, [", bench_is_stable(&findings) ? "true" : "false");
    for (size_t i = 0; well && i < findings.count; i++) {
        const bench_finding *one = &findings.items[i];
        printf("%s{\"code\": \"%s\", \"series\": ", i ? ", " : "", one->code);
        if (one->series)
            print_quoted(one->series);
        else
            printf("null");
        printf(", \"text\": ");
        print_quoted(one->text);
        printf(", \"severe\": %s}", one->severe ? "true" : "false");
    }
    if (well)
        puts("]]");
    bench_findings_end(&findings);
    if (well)
        forget();
}

/* Adds findings in the order of the argument ("s": severe), and prints the order after sorting. */
static void run_sort(void)
{
    bench_findings findings = {0};
    for (const char *at = given[1]; *at; at++)
        bench_find(&findings, "code", NULL, *at == 's', "%d", (int)(at - given[1]));
    bench_findings_sort(&findings);
    for (size_t i = 0; i < findings.count; i++)
        printf("%s%s", i ? ", " : "[", findings.items[i].text);
    puts("]");
    bench_findings_end(&findings);
}

static void run_throughput(void)
{
    printf("%.17g\n", bench_throughput_images_per_s(&series[0]));
    forget();
}

static void run_number(void)
{
    char rate[BENCH_RATE_TEXT], count[BENCH_RATE_TEXT];
    bench_rate_text(atof(given[1]), rate);
    bench_count_text(atof(given[1]), count);
    printf("[\"%s\", \"%s\"]\n", rate, count);
}

static void run_fail_at(void)
{
    until_failure = atoll(given[1]);
    puts("{}");
}

static const struct command {
    const char *name;
    void (*run)(void);
} commands[] = {
    {"series", run_series}, {"trace", run_trace}, {"reading", run_reading},
    {"lost", run_lost},     {"fact", run_fact},   {"judge", run_judge},
    {"sort", run_sort},     {"number", run_number}, {"throughput", run_throughput},
    {"fail_at", run_fail_at},
};

int main(void)
{
    char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        int arguments = 0;
        for (char *word = strtok(line, "\t\n"); word && arguments < 15; word = strtok(NULL, "\t\n"))
            given[arguments++] = word;
        size_t known = sizeof commands / sizeof *commands, at = 0;
        while (arguments && at < known && strcmp(commands[at].name, given[0]))
            at++;
        if (!arguments || at == known) {
            fprintf(stderr, "no such command: %s\n", arguments ? given[0] : "");
            return 2;
        }
        commands[at].run();
        fflush(stdout);
    }
    forget();
    return 0;
}
