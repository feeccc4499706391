/* SPDX-License-Identifier: Apache-2.0 */
/* What the sensors saw of the machine while something was measured. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "judge.h"
#include "statistics.h"

/* Others' load, in percent of all cores. A model that uses all of them loses as many percent of its
 * time: 10 % on average is twice what is called a shift, and a quarter for two seconds is one core
 * of four. What a quiet system does in the background stays at 1 to 4 %. */
#define OTHER_LOAD_PERCENT 10.0
#define OTHER_LOAD_PEAK_PERCENT 25.0
/* Time that a hypervisor gave to others hits the run without a trace in its own figures. */
#define STEAL_PERCENT 2.0
#define STEAL_PEAK_PERCENT 10.0
#define PEAK_S 2.0
/* A clock's levels, by means of eighths of the run, but of 4 s at least, since those of fewer
 * readings are its jitter: 10 % of the clock is up to 10 % of the latency. */
#define CLOCK_PERCENT 10.0
#define PARTS 8
#define CLOCK_PART_S 4.0
/* Boards begin to slow down from 80 to 85 (Raspberry Pi), 83 to 90 (desktop GPUs), 95 to 100
 * (Jetson Orin, desktop CPUs); what rises through 85 has not settled. */
#define TEMPERATURE_C 85.0
/* Of the run's time; a quota stops a process for tens of milliseconds at a time. */
#define QUOTA_PERCENT 1.0
/* A reading belongs to the run where a sample began so shortly before it, or still ran. */
#define NEAR_S 0.5
/* Sensors repeat a slow reading for a second: so old may be what a clock's first ones tell, of a
 * processor or a GPU that was still at rest, or on one core alone. */
#define OLD_S 1.0

/* A trace, which of its readings were taken while samples were, and room for as many numbers. */
typedef struct watch {
    const bench_trace *trace;
    bool *during;
    double *room[2];
    const bench_facts *facts;
    bench_findings *findings;
} watch;

static const double *reading(const watch *of, const char *name)
{
    for (size_t i = 0; i < of->trace->reading_count; i++)
        if (!strcmp(of->trace->readings[i].name, name))
            return of->trace->readings[i].values;
    return NULL;
}

static bool is_jetson(const bench_facts *facts)
{
    return facts->jetpack || facts->l4t || facts->jetson_clocks;
}

/* Mark the readings that were taken while samples were: those that a sample begins shortly after,
 * and those that lie no further behind the end of a sample that began before. */
static void mark(const watch *of, const bench_series *series, size_t count)
{
    const double *times = of->trace->times_s;
    size_t all = of->trace->count, marked = 0;
    double *last_end = of->room[0], *next_start = of->room[1];
    bool timed = count > 0;
    for (size_t i = 0; i < all; i++) {
        last_end[i] = -INFINITY;
        next_start[i] = INFINITY;
    }
    for (size_t s = 0; s < count; s++) {
        timed &= series[s].starts_ns && series[s].count;
        for (size_t i = 0; timed && i < series[s].count; i++) {
            double start = (double)series[s].starts_ns[i] / 1e9;
            double end = start + (double)series[s].samples_ns[i] / 1e9;
            size_t low = 0, high = all; /* the first reading at or after the start */
            while (low < high) {
                size_t middle = (low + high) / 2;
                if (times[middle] < start)
                    low = middle + 1;
                else
                    high = middle;
            }
            if (low < all)
                last_end[low] = fmax(last_end[low], end);
            if (low > 0)
                next_start[low - 1] = fmin(next_start[low - 1], start);
        }
    }
    for (size_t i = 1; i < all; i++) {
        last_end[i] = fmax(last_end[i], last_end[i - 1]);
        next_start[all - 1 - i] = fmin(next_start[all - 1 - i], next_start[all - i]);
    }
    for (size_t i = 0; i < all; i++) {
        of->during[i] = next_start[i] - times[i] <= NEAR_S || times[i] - last_end[i] <= NEAR_S;
        marked += of->during[i];
    }
    /* So short a run has no readings of its own: those there are have to do. */
    for (size_t i = 0; (!timed || marked < 2) && i < all; i++)
        of->during[i] = true;
}

/* Load. ---------------------------------------------------------------------------------------- */

/* Say how much a running total rose, in percent of time: on average, and at its worst, of two
 * seconds at a time (or of the whole where it is shorter). */
static void shares(const watch *of, const double *total, const double *less, double cores,
                   double *mean, double *peak)
{
    double *passed = of->room[0], *risen = of->room[1];
    double worst = -INFINITY, before_total = 0;
    size_t known = 0, before = 0;
    *mean = *peak = 0;
    for (size_t i = 0; i < of->trace->count; i++) {
        double value = (less ? total[i] - less[i] : total[i]) / cores;
        if (!isfinite(value))
            continue;
        bool counted = known && of->during[i] && of->during[before];
        double step = counted ? of->trace->times_s[i] - of->trace->times_s[before] : 0;
        passed[known] = known ? passed[known - 1] + step : 0;
        risen[known] = known ? risen[known - 1] + (counted ? value - before_total : 0) : 0;
        before_total = value;
        before = i;
        known++;
    }
    if (known < 2 || passed[known - 1] <= 0)
        return;
    *mean = *peak = fmax(0, 100 * risen[known - 1] / passed[known - 1]);
    for (size_t from = 0, to = 0; from < known; from++) {
        while (to < known && passed[to] < passed[from] + PEAK_S)
            to++;
        if (to == known)
            break;
        worst = fmax(worst, (risen[to] - risen[from]) / (passed[to] - passed[from]));
    }
    if (worst > -INFINITY)
        *peak = fmax(0, 100 * worst);
}

static void look_at_load(const watch *of)
{
    double cores = of->facts->cores > 0 ? of->facts->cores : 1, mean, peak;
    const double *busy = reading(of, "busy_cpu_s"), *own = reading(of, "own_cpu_s");
    const double *steal = reading(of, "steal_s"), *quota = reading(of, "quota_throttled_s");
    if (busy && own) {
        shares(of, busy, own, cores, &mean, &peak);
        if (mean > OTHER_LOAD_PERCENT || peak > OTHER_LOAD_PEAK_PERCENT)
            bench_find(of->findings, "other_load", NULL, true,
                       "other programs used %.0f %% of all %g cores, and %.0f %% at their worst; "
                       "end them (top shows which) and measure again",
                       mean, cores, peak);
    }
    if (steal) {
        shares(of, steal, NULL, cores, &mean, &peak);
        if (mean > STEAL_PERCENT || peak > STEAL_PEAK_PERCENT)
            bench_find(of->findings, "steal", NULL, true,
                       "the hypervisor gave %.1f %% of the cores' time to other machines, and "
                       "%.0f %% at worst; measure on a machine that is not shared",
                       mean, peak);
    }
    if (quota) {
        shares(of, quota, NULL, 1, &mean, &peak);
        if (mean > QUOTA_PERCENT)
            bench_find(of->findings, "throttle", NULL, true,
                       "the container's CPU quota held processes up for %.0f %% of the time; give "
                       "it more CPUs, or the model fewer --threads",
                       mean);
    }
}

/* Clocks, throttling, temperature. ------------------------------------------------------------- */

/* The means of parts of the readings, in their order. */
typedef struct levels {
    size_t count; /* 0: there are none, or they span too short a time */
    double of[PARTS];
    double lowest;
    double highest;
} levels;

/* Take the means of eighths of the readings from `from_s` on, or of fewer, longer parts. */
static levels levels_of(const watch *of, const double *values, double from_s, double part_s)
{
    double *seen = of->room[0], first_s = 0, last_s = 0;
    size_t count = 0, parts = PARTS;
    levels found = {.lowest = INFINITY, .highest = -INFINITY};
    for (size_t i = 0; i < of->trace->count; i++) {
        double at_s = of->trace->times_s[i];
        if (!of->during[i] || at_s < from_s || !isfinite(values[i]))
            continue;
        first_s = count ? first_s : at_s;
        last_s = at_s;
        seen[count++] = values[i];
    }
    if (part_s > 0)
        parts = (size_t)fmin(PARTS, floor((last_s - first_s) / part_s));
    if (!count || parts < 2)
        return found;
    for (size_t part = 0, at = 0; part < parts; part++) {
        /* As even as can be, the longer ones first. */
        size_t length = count / parts + (part < count % parts);
        double sum = 0;
        for (size_t i = 0; i < length; i++)
            sum += seen[at++];
        if (!length)
            break;
        double level = sum / (double)length;
        found.of[found.count++] = level;
        found.lowest = fmin(found.lowest, level);
        found.highest = fmax(found.highest, level);
    }
    return found;
}

/* Return the median of the readings from `from_s` on; there is one at least. */
static double usual_of(const watch *of, const double *values, double from_s)
{
    double *seen = of->room[0];
    size_t count = 0;
    for (size_t i = 0; i < of->trace->count; i++)
        if (of->during[i] && of->trace->times_s[i] >= from_s && !isnan(values[i]))
            seen[count++] = values[i];
    return bench_median(seen, count);
}

static void look_at_clock(const watch *of, const char *name, const char *what, double from_s)
{
    char lock[96], low[BENCH_RATE_TEXT], high[BENCH_RATE_TEXT];
    const double *values = reading(of, name);
    if (!values)
        return;
    levels found = levels_of(of, values, from_s, CLOCK_PART_S);
    if (!found.count || found.highest <= found.lowest * (1 + CLOCK_PERCENT / 100))
        return;
    if (is_jetson(of->facts))
        snprintf(lock, sizeof lock, "sudo jetson_clocks");
    else if (!strncmp(name, "cpu", 3))
        snprintf(lock, sizeof lock, "sudo cpupower frequency-set -g performance");
    else
        snprintf(lock, sizeof lock, "sudo nvidia-smi --lock-%s-clocks=%.0f",
                 strcmp(name, "gpu_memory_mhz") ? "gpu" : "memory", usual_of(of, values, from_s));
    bench_count_text(found.lowest, low);
    bench_count_text(found.highest, high);
    bench_find(of->findings, "clock_change", NULL, true,
               "the clock of the %s moved between %s and %s MHz while it ran; lock it: %s", what,
               low, high, lock);
}

static void look_at_clocks(const watch *of)
{
    size_t first = 0;
    while (!of->during[first])
        first++;
    double from_s = of->trace->times_s[first] + NEAR_S + OLD_S;
    look_at_clock(of, "gpu_mhz", "GPU", from_s);
    look_at_clock(of, "emc_mhz", "memory", from_s);
    look_at_clock(of, "gpu_memory_mhz", "GPU's memory", from_s);
    look_at_clock(of, reading(of, "cpu_mhz_max") ? "cpu_mhz_max" : "cpu_mhz", "CPU", from_s);
}

static void look_at_gpu_throttle(const watch *of, const bench_reading *one)
{
    char reason[96];
    size_t seen = 0, slowed = 0;
    for (size_t i = 0; i < of->trace->count; i++)
        if (of->during[i] && isfinite(one->values[i])) {
            seen++;
            slowed += one->values[i] > 0;
        }
    if (!slowed)
        return;
    snprintf(reason, sizeof reason, "%s", one->name + strlen("gpu_throttle_"));
    /* A cap on power holds the clock steady; the others come and go. */
    bool steady = !strcmp(reason, "sw_power_cap") || !strcmp(reason, "sync_boost");
    for (char *at = reason; *at; at++)
        *at = *at == '_' ? ' ' : *at;
    bench_find(of->findings, "throttle", NULL, !steady,
               "the GPU was slowed down (%s) in %.0f %% of the readings; %s", reason,
               100 * ((double)slowed / (double)seen),
               steady ? "the figures are those of its power limit"
                      : "cool it, or lock a lower clock, and measure again");
}

static void look_at_throttles(const watch *of)
{
    for (size_t r = 0; r < of->trace->reading_count; r++)
        if (!strncmp(of->trace->readings[r].name, "gpu_throttle_", strlen("gpu_throttle_")))
            look_at_gpu_throttle(of, &of->trace->readings[r]);
    const double *counts = reading(of, "cpu_throttle_count");
    double first = NAN, last = NAN;
    for (size_t i = 0; counts && i < of->trace->count; i++)
        if (of->during[i] && isfinite(counts[i])) {
            first = isnan(first) ? counts[i] : first;
            last = counts[i];
        }
    if (last > first)
        bench_find(of->findings, "throttle", NULL, true,
                   "the CPU was slowed down %.0f times for its heat; cool it, or lock a lower "
                   "clock, and measure again",
                   last - first);
}

static void look_at_temperatures(const watch *of)
{
    const size_t prefix = strlen("temperature_c.");
    for (size_t r = 0; r < of->trace->reading_count; r++) {
        const bench_reading *one = &of->trace->readings[r];
        if (strncmp(one->name, "temperature_c.", prefix))
            continue;
        levels found = levels_of(of, one->values, -INFINITY, 0);
        if (!found.count || found.highest < TEMPERATURE_C)
            continue;
        bench_find(of->findings, "temperature", NULL, found.of[0] < TEMPERATURE_C,
                   "%s went from %.0f to %.0f degrees C, where devices slow themselves down; cool "
                   "it, or let it reach its temperature before",
                   one->name + prefix, found.of[0], found.highest);
    }
}

/* Settings. ------------------------------------------------------------------------------------ */

static void look_at_settings(const bench_facts *facts, bench_findings *findings)
{
    if (is_jetson(facts)) {
        /* jtop says the one, and the board's own files the other. */
        const char *told = facts->jetson_clocks;
        const char *locked = told && *told ? told : facts->gpu_clocks_locked;
        if (locked && (!strcmp(locked, "off") || !strcmp(locked, "no")))
            bench_find(findings, "governor", NULL, false,
                       "the clocks of this Jetson are not locked; run sudo jetson_clocks for "
                       "figures that repeat");
    } else if (facts->cpu_governor && strcmp(facts->cpu_governor, "performance")) {
        bench_find(findings, "governor", NULL, false,
                   "the CPU's governor is %s; for figures that repeat run sudo cpupower "
                   "frequency-set -g performance",
                   facts->cpu_governor);
    }
}

bool bench_machine_findings(const bench_series *series, size_t count, const bench_trace *trace,
                            const bench_facts *facts, bench_findings *findings)
{
    if (!trace || trace->count < 2) {
        bench_find(findings, "no_sensors", NULL, false,
                   "nothing was read of the machine meanwhile, so that other load, clocks and "
                   "temperatures are not known; measure for longer than a second");
    } else {
        watch of = {.trace = trace, .facts = facts, .findings = findings};
        of.during = eip_allocate(trace->count, sizeof *of.during);
        of.room[0] = eip_allocate(2 * trace->count, sizeof *of.room[0]);
        if (!of.during || !of.room[0]) {
            free(of.during);
            free(of.room[0]);
            return false;
        }
        of.room[1] = of.room[0] + trace->count;
        mark(&of, series, count);
        look_at_load(&of);
        look_at_clocks(&of);
        look_at_throttles(&of);
        look_at_temperatures(&of);
        for (size_t i = 0; i < trace->lost_count; i++)
            bench_find(findings, "sensor_lost", NULL, false,
                       "the sensors of %s were not read to the end (%s); what they would have "
                       "shown is not known",
                       trace->lost[i].source, trace->lost[i].reason);
        free(of.during);
        free(of.room[0]);
    }
    look_at_settings(facts, findings);
    return !findings->failed;
}
