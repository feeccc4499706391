/* SPDX-License-Identifier: Apache-2.0 */
/* What the samples say of their own measurement. */
#include "judge.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "statistics.h"

/* The percentile that a run ought to bound; p99.9 would need 3,688 samples. */
#define TAIL_PERCENT 99.0

#define LABEL_TEXT 512
#define SHORT_TEXT 96

/* Name a series for people: "fused (batch 8, 2 at once)". */
static void label_of(const bench_series *one, char label[LABEL_TEXT])
{
    char at_once[SHORT_TEXT] = "", rate[SHORT_TEXT] = "", per_s[BENCH_RATE_TEXT];
    if (one->concurrency > 1)
        snprintf(at_once, sizeof at_once, ", %d at once", one->concurrency);
    if (one->offered_per_s > 0) {
        bench_rate_text(one->offered_per_s, per_s);
        snprintf(rate, sizeof rate, ", %s calls/s offered", per_s);
    }
    snprintf(label, LABEL_TEXT, "%.300s (batch %d%s%s)", one->name, one->batch, at_once, rate);
}

static void p_text(double p_value, char text[SHORT_TEXT])
{
    if (p_value < 0.001)
        snprintf(text, SHORT_TEXT, "< 0.001");
    else
        snprintf(text, SHORT_TEXT, "= %.3f", p_value);
}

/* Say when a sample was taken. */
static void when(const bench_series *one, size_t index, char text[SHORT_TEXT])
{
    char number[BENCH_RATE_TEXT];
    if (one->starts_ns) {
        index = index < one->count ? index : one->count - 1;
        snprintf(text, SHORT_TEXT, "%.1f s", (double)one->starts_ns[index] / 1e9);
        return;
    }
    bench_count_text((double)index, number);
    snprintf(text, SHORT_TEXT, "sample %s", number);
}

static void tell_shift(const bench_series *one, const bench_shift *shift, size_t found,
                       bench_findings *findings)
{
    char label[LABEL_TEXT], p[SHORT_TEXT], from[SHORT_TEXT], end[SHORT_TEXT];
    char until[SHORT_TEXT + 4] = "", more[SHORT_TEXT] = "";
    label_of(one, label);
    p_text(shift->p_value, p);
    when(one, shift->first, from);
    if (shift->last != one->count) {
        when(one, shift->last, end);
        snprintf(until, sizeof until, " to %s", end);
    }
    if (found > 1)
        snprintf(more, sizeof more, ", and %zu more such", found - 1);
    bench_find(findings, "level_shift", one->name, true,
               "%s of %s lay at %.4g ms from %s%s, at %.4g ms else (%+.1f %%, p %s)%s; end what "
               "else runs, lock the clocks, and measure again",
               shift->percent == 50 ? "the median" : "the 90th percentile", label,
               (double)shift->level_ns / 1e6, from, until, (double)shift->before_ns / 1e6,
               shift->change_percent, p, more);
}

/* Tell of a shift or of a drift, whichever fits better where both are seen. */
static bool look_for_moves(const bench_series *one, bench_findings *findings)
{
    bench_drift drift;
    bench_shift shifts[BENCH_MOST_SHIFTS];
    size_t found;
    bool is_step = false;
    if (!bench_find_drift(one->samples_ns, one->starts_ns, one->count, BENCH_DRIFT_PERCENT,
                          BENCH_DRIFT_ALPHA, &drift) ||
        !bench_find_level_shifts(one->samples_ns, one->count, BENCH_SHIFT_PERCENT,
                                 BENCH_TAIL_SHIFT_PERCENT, BENCH_SHIFT_ALPHA, shifts, &found))
        return false;
    if (drift.found && found &&
        !bench_is_a_step(one->samples_ns, one->count, &shifts[0], &is_step))
        return false;
    if (drift.found && !is_step) {
        char label[LABEL_TEXT], p[SHORT_TEXT];
        label_of(one, label);
        p_text(drift.p_value, p);
        bench_find(findings, "drift", one->name, true,
                   "%s drifted by %+.1f %% over the run (p %s); let the device reach its "
                   "temperature, lock its clocks, and measure again",
                   label, drift.change_percent, p);
    } else if (found) {
        tell_shift(one, &shifts[0], found, findings);
    }
    return true;
}

/* Round a number of samples up to two digits. */
static double round_up(double count)
{
    double step = pow(10, fmax(0, floor(log10(fmax(1, floor(count)))) - 1));
    return ceil(count / step) * step;
}

static bool look_for_too_few(const bench_series *one, bool moved, bench_findings *findings)
{
    double count = (double)one->count, design;
    double needed = (double)bench_fewest_samples(TAIL_PERCENT, BENCH_CONFIDENCE);
    char label[LABEL_TEXT], samples[BENCH_RATE_TEXT], worth[BENCH_RATE_TEXT];
    char wanted[BENCH_RATE_TEXT];
    label_of(one, label);
    bench_count_text(count, samples);
    if (count < needed) {
        bench_count_text(needed, wanted);
        bench_find(findings, "too_few_samples", one->name, false,
                   "%s samples of %s bound no p%g; take at least %s if it matters", samples, label,
                   TAIL_PERCENT, wanted);
        return true;
    }
    if (moved) /* samples of two levels resemble their neighbours; more of them are no help */
        return true;
    if (!bench_design_effect(one->samples_ns, one->count, TAIL_PERCENT, &design))
        return false;
    if (count / design >= needed)
        return true;
    bench_count_text(count / design, worth);
    bench_count_text(round_up(design * needed), wanted);
    bench_find(findings, "too_few_samples", one->name, false,
               "%s samples of %s resemble their neighbours and are worth %s independent ones, too "
               "few to bound p%g; take about %s if it matters",
               samples, label, worth, TAIL_PERCENT, wanted);
    return true;
}

static bool judge_series(const bench_series *one, bench_findings *findings)
{
    if (!one->warmed_up) {
        char label[LABEL_TEXT];
        label_of(one, label);
        bench_find(findings, "not_warmed_up", one->name, true,
                   "%s was not seen to be steady before its warm-up ran out of time; lock the "
                   "clocks, or give it a longer --warm-up",
                   label);
    }
    size_t before = findings->count;
    /* Where calls come at random, latency follows the queue: a burst of them is no shift. */
    if (!(one->offered_per_s > 0) && !look_for_moves(one, findings))
        return false;
    return look_for_too_few(one, findings->count > before, findings);
}

bool bench_judge(const bench_series *series, size_t count, const bench_trace *trace,
                 const bench_facts *facts, bench_findings *findings)
{
    size_t before = findings->count;
    bool well = true;
    for (size_t i = 0; well && i < count; i++)
        if (!strcmp(series[i].stage, "whole") && series[i].count)
            well = judge_series(&series[i], findings);
    if (!well || !bench_machine_findings(series, count, trace, facts, findings) ||
        findings->failed)
        return false;
    if (findings->count > before) {
        bench_findings own = {findings->items + before, findings->count - before, 0, false};
        bench_findings_sort(&own);
    }
    return true;
}
