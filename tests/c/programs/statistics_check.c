/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the statistics of ei-bench on what a test gives. Besides the commands of commands.h:
 *
 *     series FILE COUNT   load raw int64 samples; what follows is about them
 *     starts FILE         load as many int64 times ("-": not known)
 *     values FILE COUNT   load raw float64 values, for "dependence" */
#include <inttypes.h>
#include <math.h>

#include "commands.h"
#include "difference.h"
#include "order.h"
#include "shifts.h"
#include "statistics.h"

static int64_t *samples, *starts;
static double *values;
static size_t count, value_count;

static void run_series(void)
{
    free(samples);
    free(starts);
    starts = NULL;
    count = (size_t)whole(2);
    samples = load(given[1], count * sizeof *samples);
    puts("{}");
}

static void run_starts(void)
{
    free(starts);
    starts = strcmp(given[1], "-") ? load(given[1], count * sizeof *starts) : NULL;
    puts("{}");
}

static void run_values(void)
{
    free(values);
    value_count = (size_t)whole(2);
    values = load(given[1], value_count * sizeof *values);
    puts("{}");
}

/* rank PERCENT */
static void run_rank(void)
{
    printf("%zu\n", bench_nearest_rank(count, number(1)));
}

/* select RANK: the value there, and whether the others lie on their sides */
static void run_select(void)
{
    size_t rank = (size_t)whole(1);
    int64_t *room = malloc(count * sizeof *room);
    bool well = room;
    must(well);
    memcpy(room, samples, count * sizeof *room);
    select_rank(room, count, rank);
    for (size_t i = 0; i < count; i++)
        well &= i < rank ? room[i] <= room[rank] : room[i] >= room[rank];
    printf("[%" PRId64 ", %s]\n", room[rank], well ? "true" : "false");
    free(room);
}

/* intervals CONFIDENCE RESAMPLES SEED PERCENT... */
static void run_intervals(void)
{
    double percents[MOST_ARGUMENTS];
    bench_interval found[MOST_ARGUMENTS];
    size_t asked = 0;
    for (int i = 4; given[i]; i++)
        percents[asked++] = number(i);
    must(bench_percentile_intervals(samples, count, percents, asked, number(1), (int)whole(2),
                                    (uint64_t)whole(3), found));
    for (size_t i = 0; i < asked; i++)
        if (found[i].known)
            printf("%s[%" PRId64 ", %" PRId64 "]", i ? ", " : "[", found[i].low_ns,
                   found[i].high_ns);
        else
            printf("%snull", i ? ", " : "[");
    puts("]");
}

static void run_fewest(void)
{
    printf("%" PRId64 "\n", bench_fewest_samples(number(1), number(2)));
}

static void run_design(void)
{
    double design;
    must(bench_design_effect(samples, count, number(1), &design));
    printf("%.17g\n", design);
}

static void run_dependence(void)
{
    double length, factor;
    must(bench_dependence(values, value_count, &length, &factor));
    printf("[%.17g, %.17g]\n", length, factor);
}

static void run_summary(void)
{
    bench_summary found;
    must(bench_summarize(samples, count, &found));
    printf("{\"min_ms\": %.17g, \"max_ms\": %.17g, \"mean_ms\": %.17g", found.min_ms, found.max_ms,
           found.mean_ms);
    for (int p = 0; p < BENCH_PERCENTS; p++)
        printf(", \"%s_ms\": %.17g", bench_percent_keys[p], found.percentiles_ms[p]);
    printf(", \"intervals_ms\": {");
    for (int p = 0; p < BENCH_PERCENTS; p++)
        if (found.bounded[p])
            printf("%s\"%s\": [%.17g, %.17g]", p ? ", " : "", bench_percent_keys[p],
                   found.intervals_ms[p][0], found.intervals_ms[p][1]);
        else
            printf("%s\"%s\": null", p ? ", " : "", bench_percent_keys[p]);
    puts("}}");
}

/* drift LEAST_PERCENT ALPHA */
static void run_drift(void)
{
    bench_drift found;
    must(bench_find_drift(samples, starts, count, number(1), number(2), &found));
    printf("[%.17g, %.17g, %s]\n", found.change_percent, found.p_value,
           found.found ? "true" : "false");
}

/* shifts LEAST_PERCENT LEAST_TAIL_PERCENT ALPHA: each with whether it is a step */
static void run_shifts(void)
{
    bench_shift shifts[BENCH_MOST_SHIFTS];
    bool is_step[BENCH_MOST_SHIFTS];
    size_t found;
    must(bench_find_level_shifts(samples, count, number(1), number(2), number(3), shifts, &found));
    for (size_t i = 0; i < found; i++)
        must(bench_is_a_step(samples, count, &shifts[i], &is_step[i]));
    printf("[");
    for (size_t i = 0; i < found; i++) {
        const bench_shift *one = &shifts[i];
        printf("%s[%zu, %zu, %.17g, %" PRId64 ", %" PRId64 ", %.17g, %.17g, %s]", i ? ", " : "",
               one->first, one->last, one->percent, one->before_ns, one->level_ns,
               one->change_percent, one->p_value, is_step[i] ? "true" : "false");
    }
    puts("]");
}

/* heights COUNT */
static void run_heights(void)
{
    const double *heights = null_heights((size_t)whole(1));
    for (int i = 0; i < NULL_SHUFFLES; i++)
        printf("%s%.17g", i ? ", " : "[", heights[i]);
    puts("]");
}

/* warm_up MIN_SAMPLES MIN_S MAX_S MAX_SAMPLES CALLERS: feed the series until it is over */
static void run_warm_up(void)
{
    bench_warm_up warm_up;
    bench_warm_up_limits(&warm_up, (size_t)whole(1), number(2), number(3), (size_t)whole(4),
                         (int)whole(5));
    for (size_t i = 0; i < count && !warm_up.over; i++)
        bench_warm_up_add(&warm_up, samples[i]);
    if (warm_up.failed)
        bench_warm_up_end(&warm_up);
    must(!warm_up.failed);
    bool kept = !memcmp(warm_up.samples_ns, samples, warm_up.count * sizeof *samples);
    printf("[%zu, %s, %s, %s]\n", warm_up.count, warm_up.over ? "true" : "false",
           warm_up.steady ? "true" : "false", kept ? "true" : "false");
    bench_warm_up_end(&warm_up);
}

/* limits MAX_S CALLERS: what bench_warm_up_begin makes of them */
static void run_limits(void)
{
    bench_warm_up warm_up;
    bench_warm_up_begin(&warm_up, number(1), (int)whole(2));
    printf("[%zu, %" PRId64 ", %" PRId64 ", %zu]\n", warm_up.least, warm_up.least_ns,
           warm_up.most_ns, warm_up.most);
    bench_warm_up_end(&warm_up);
}

/* compare FILE COUNT: the series with another */
static void run_compare(void)
{
    size_t others = (size_t)whole(2);
    int64_t *other = load(given[1], others * sizeof *other);
    bench_difference found;
    bool well = bench_compare(samples, count, other, others, &found);
    free(other);
    must(well);
    printf("[%.17g, %.17g, %.17g]\n", found.ratio, found.low, found.high);
}

/* early PERCENT CONFIDENCE */
static void run_early(void)
{
    bench_early_stopping found;
    must(bench_early_stopping_estimate(samples, count, number(1), number(2), &found));
    printf("[%" PRId64 ", %" PRId64 ", %" PRId64 ", ", found.queries, found.over_latency,
           found.discarded);
    if (found.known)
        printf("%" PRId64, found.estimate_ns);
    else
        printf("null");
    printf(", %" PRId64 ", %" PRId64 "]\n", found.needed_queries, found.suggested_queries);
}

/* over QUERIES PERCENT CONFIDENCE */
static void run_over(void)
{
    printf("%" PRId64 "\n", bench_most_over_latency(whole(1), number(2), number(3)));
}

static void run_needed(void)
{
    printf("[%" PRId64 ", %" PRId64 "]\n", bench_needed_queries(number(1), number(2)),
           bench_suggested_queries(number(1), number(2)));
}

/* below SEED BELOW COUNT */
static void run_below(void)
{
    bench_random random;
    bench_random_begin(&random, strtoull(given[1], NULL, 10));
    for (long long i = 0; i < whole(3); i++)
        printf("%s%" PRIu32, i ? ", " : "[",
               bench_random_below(&random, strtoull(given[2], NULL, 10)));
    puts("]");
}

/* share SEED COUNT */
static void run_share(void)
{
    bench_random random;
    bench_random_begin(&random, strtoull(given[1], NULL, 10));
    for (long long i = 0; i < whole(2); i++)
        printf("%s%.17g", i ? ", " : "[", bench_random_share(&random));
    puts("]");
}

/* exponential SEED COUNT */
static void run_exponential(void)
{
    bench_random random;
    bench_random_begin(&random, strtoull(given[1], NULL, 10));
    for (long long i = 0; i < whole(2); i++)
        printf("%s%.17g", i ? ", " : "[", bench_random_exponential(&random));
    puts("]");
}

/* student T FREEDOM PROBABILITY */
static void run_student(void)
{
    printf("[%.17g, %.17g, %.17g]\n", bench_normal_tail(number(1)),
           bench_student_tail(fabs(number(1)), number(2)),
           bench_student_quantile(number(3), number(2)));
}

static const command commands[] = {
    {"series", run_series},         {"starts", run_starts},   {"values", run_values},
    {"rank", run_rank},             {"select", run_select},   {"intervals", run_intervals},
    {"fewest", run_fewest},         {"design", run_design},   {"dependence", run_dependence},
    {"summary", run_summary},       {"drift", run_drift},     {"shifts", run_shifts},
    {"heights", run_heights},       {"warm_up", run_warm_up}, {"limits", run_limits},
    {"early", run_early},           {"over", run_over},       {"needed", run_needed},
    {"below", run_below},           {"share", run_share},     {"exponential", run_exponential},
    {"student", run_student},       {"fail_at", run_fail_at},
    {"compare", run_compare},
};

int main(void)
{
    bool well = answer_all(commands, sizeof commands / sizeof *commands, " \n");
    free(samples);
    free(starts);
    free(values);
    return well ? 0 : 2;
}
