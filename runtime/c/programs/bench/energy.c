/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "run.h"

/* Which reading says best what the computation draws, best first: the whole board, then the GPU,
 * then the processor's package. */
static const char *const best[] = {"power_w.total", "gpu_power_w", "power_w.package"};

static const bench_reading *power_reading(const bench_trace *trace)
{
    for (size_t i = 0; i < sizeof best / sizeof *best; i++)
        for (size_t j = 0; j < trace->reading_count; j++) {
            const bench_reading *one = &trace->readings[j];
            if (strncmp(one->name, best[i], strlen(best[i])))
                continue;
            for (size_t t = 0; t < trace->count; t++)
                if (!isnan(one->values[t]))
                    return one;
        }
    return NULL;
}

/* Return a reading at a time: linear between its neighbours, NaN outside of them. */
static double at(const bench_trace *trace, const double *values, double time_s)
{
    size_t low = 0, high = trace->count; /* the first time above it */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trace->times_s[middle] <= time_s)
            low = middle + 1;
        else
            high = middle;
    }
    size_t before = low, after = low;
    while (before > 0 && isnan(values[before - 1]))
        before--;
    if (before == 0)
        return NAN;
    before--;
    if (trace->times_s[before] == time_s)
        return values[before];
    while (after < trace->count && isnan(values[after]))
        after++;
    if (after == trace->count)
        return NAN;
    double share = (time_s - trace->times_s[before]) /
                   (trace->times_s[after] - trace->times_s[before]);
    return values[before] + share * (values[after] - values[before]);
}

/* Integrate a reading over a span by the trapezoid rule; NaN unless it covers the span. */
static double joules_of(const bench_trace *trace, const double *values, double begin_s,
                        double end_s)
{
    double sum = 0, time_s = begin_s, watts = at(trace, values, begin_s);
    for (size_t t = 0; t <= trace->count; t++) {
        bool last = t == trace->count || trace->times_s[t] >= end_s;
        if (!last && trace->times_s[t] <= begin_s)
            continue;
        double next_s = last ? end_s : trace->times_s[t], next = at(trace, values, next_s);
        sum += (watts + next) / 2 * (next_s - time_s);
        time_s = next_s;
        watts = next;
        if (last)
            break;
    }
    return sum;
}

bool bench_energy_of(const bench_series *series, const bench_trace *trace, bench_energy *energy)
{
    const bench_reading *power = trace ? power_reading(trace) : NULL;
    if (!power || !series->starts_ns || !series->count)
        return false;
    double joules = 0, seconds = 0;
    if (series->concurrency > 1 || series->offered_per_s > 0) { /* their calls overlap */
        double begin_s = INFINITY, end_s = -INFINITY;
        for (size_t i = 0; i < series->count; i++) {
            double start_s = (double)series->starts_ns[i] / 1e9;
            begin_s = fmin(begin_s, start_s);
            end_s = fmax(end_s, start_s + (double)series->samples_ns[i] / 1e9);
        }
        joules = joules_of(trace, power->values, begin_s, end_s);
        seconds = end_s - begin_s;
    } else { /* over its own calls: what ran between its turns is not its */
        for (size_t i = 0; i < series->count; i++) {
            double taken_s = (double)series->samples_ns[i] / 1e9;
            joules += taken_s * at(trace, power->values,
                                   (double)series->starts_ns[i] / 1e9 + taken_s / 2);
            seconds += taken_s;
        }
    }
    if (isnan(joules))
        return false;
    *energy = (bench_energy){joules / ((double)series->batch * (double)series->count),
                             seconds > 0 ? joules / seconds : 0, power->name};
    return true;
}
