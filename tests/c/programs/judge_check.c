/* SPDX-License-Identifier: Apache-2.0 */
/* Lets ei-bench judge measurements that a test makes up. "judge" answers with the findings, and
 * forgets all. Besides the commands of commands.h, with tabs between words:
 *
 *     series NAME BATCH STAGE CONCURRENCY WARMED_UP OFFERED_PER_S COUNT SAMPLES STARTS
 *     trace COUNT TIMES, then reading NAME VALUES, lost SOURCE REASON
 *     fact NAME VALUE
 *
 * Samples and times are files of raw int64, readings of raw float64; STARTS "-": not known. */
#include "commands.h"
#include "judge.h"

#define MOST 32

static bench_series series[MOST];
static bench_reading readings[MOST];
static bench_lost lost[MOST];
static double *times;
static bench_trace trace = {.readings = readings, .lost = lost};
static bench_facts facts;
static size_t series_count;
/* What was loaded or copied, to be freed. */
static void *kept[8 * MOST];
static size_t kept_count;

static void *keep(void *data)
{
    return kept[kept_count++] = data;
}

static void run_series(void)
{
    size_t count = (size_t)whole(7), bytes = count * sizeof(int64_t);
    series[series_count++] = (bench_series){
        .name = keep(strdup(given[1])),
        .batch = (int)whole(2),
        .stage = keep(strdup(given[3])),
        .concurrency = (int)whole(4),
        .warmed_up = (int)whole(5),
        .offered_per_s = number(6),
        .count = count,
        .clock = "host",
        .samples_ns = load(given[8], bytes),
        .starts_ns = strcmp(given[9], "-") ? load(given[9], bytes) : NULL,
    };
    puts("{}");
}

static void run_trace(void)
{
    trace.count = (size_t)whole(1);
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
        facts.cores = number(2);
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
        bench_findings_end(&findings);
    must(well);
    printf("[%s, [", bench_is_stable(&findings) ? "true" : "false");
    for (size_t i = 0; i < findings.count; i++) {
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
    puts("]]");
    bench_findings_end(&findings);
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
    bench_rate_text(number(1), rate);
    bench_count_text(number(1), count);
    printf("[\"%s\", \"%s\"]\n", rate, count);
}

static const command commands[] = {
    {"series", run_series}, {"trace", run_trace}, {"reading", run_reading},
    {"lost", run_lost},     {"fact", run_fact},   {"judge", run_judge},
    {"sort", run_sort},     {"number", run_number}, {"throughput", run_throughput},
    {"fail_at", run_fail_at},
};

int main(void)
{
    bool well = answer_all(commands, sizeof commands / sizeof *commands, "\t\n");
    forget();
    return well ? 0 : 2;
}
