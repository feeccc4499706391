/* SPDX-License-Identifier: Apache-2.0 */
/* What a measurement found, and what its series are summed up to. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "judge.h"
#include "lists.h"

void bench_series_end(bench_series *series)
{
    free(series->samples_ns);
    free(series->starts_ns);
    free(series->warm_up_ns);
    series->samples_ns = series->starts_ns = series->warm_up_ns = NULL;
    series->count = series->warm_up_count = 0;
}

double bench_throughput_images_per_s(const bench_series *series)
{
    const int64_t *samples = series->samples_ns, *starts = series->starts_ns;
    double count = (double)series->count, sum = 0;
    if (series->offered_per_s > 0 && starts) {
        int64_t first = starts[0], last = starts[0] + samples[0];
        for (size_t i = 1; i < series->count; i++) {
            first = starts[i] < first ? starts[i] : first;
            last = starts[i] + samples[i] > last ? starts[i] + samples[i] : last;
        }
        double span_ns = last > first ? (double)(last - first) : 1;
        return series->batch * count / span_ns * 1e9;
    }
    /* Callers that each wait for their answer finish concurrency / mean latency calls a second
     * (Little's law), whatever ran between the turns of this series. */
    for (size_t i = 0; i < series->count; i++)
        sum += (double)samples[i];
    double mean_ms = fmax(sum / count, 1e-3) / 1e6;
    return (double)series->concurrency * series->batch / mean_ms * 1e3;
}

void bench_count_text(double count, char text[BENCH_RATE_TEXT])
{
    char digits[BENCH_RATE_TEXT / 2 + 8];
    /* What has too many digits for commas is no count, and is written short. */
    int length = fabs(count) < 1e21 ? snprintf(digits, sizeof digits, "%.0f", count) : 0;
    if (!length) {
        snprintf(text, BENCH_RATE_TEXT, "%.4g", count);
        return;
    }
    for (int i = 0; i < length; i++) {
        *text++ = digits[i];
        if (digits[i] != '-' && i + 1 < length && (length - 1 - i) % 3 == 0)
            *text++ = ',';
    }
    *text = 0;
}

void bench_rate_text(double per_s, char text[BENCH_RATE_TEXT])
{
    if (per_s >= 1000)
        bench_count_text(per_s, text);
    else
        snprintf(text, BENCH_RATE_TEXT, "%.4g", per_s);
}

void bench_find(bench_findings *findings, const char *code, const char *series, bool severe,
                const char *format, ...)
{
    va_list arguments, again;
    if (findings->failed)
        return;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    char *text = length < 0 ? NULL : eip_allocate((size_t)length + 1, 1);
    char *name = series ? eip_copy_text(series) : NULL;
    if (text)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    if (!text || (series && !name) ||
        !bench_grow(&findings->items, findings->count, &findings->capacity,
                    sizeof *findings->items)) {
        free(text);
        free(name);
        findings->failed = true;
        return;
    }
    findings->items[findings->count++] = (bench_finding){code, name, text, severe};
}

void bench_findings_end(bench_findings *findings)
{
    for (size_t i = 0; i < findings->count; i++) {
        free(findings->items[i].series);
        free(findings->items[i].text);
    }
    free(findings->items);
    *findings = (bench_findings){0};
}

void bench_findings_sort(bench_findings *findings)
{
    /* By insertion: it keeps the order of what weighs the same, and they are few. */
    for (size_t i = 1; i < findings->count; i++) {
        bench_finding moved = findings->items[i];
        size_t to = i;
        for (; moved.severe && to > 0 && !findings->items[to - 1].severe; to--)
            findings->items[to] = findings->items[to - 1];
        findings->items[to] = moved;
    }
}

bool bench_is_stable(const bench_findings *findings)
{
    for (size_t i = 0; i < findings->count; i++)
        if (findings->items[i].severe)
            return false;
    return true;
}
