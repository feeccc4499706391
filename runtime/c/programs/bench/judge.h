/* SPDX-License-Identifier: Apache-2.0 */
/* A measurement judges itself: what moved while it ran, and what to do about it. The findings are
 * those of Python's edge_imprint_runtime.measuring, by code, weight and text. */
#ifndef BENCH_JUDGE_H
#define BENCH_JUDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The samples of one thing measured. It owns the three arrays. */
typedef struct bench_series {
    const char *name; /* what ran: "fused", "backbone only"; lives longer than the series */
    int batch;        /* images a sample */
    int64_t *samples_ns;
    int64_t *starts_ns; /* since the run began, when each was asked for; NULL: not known */
    size_t count;
    int concurrency;      /* callers at a time, from 1 */
    const char *stage;    /* "whole", "copy_in", "compute", "copy_out" */
    const char *clock;    /* "host" */
    int64_t *warm_up_ns;  /* the samples before, that count nowhere */
    size_t warm_up_count;
    bool warmed_up;       /* it had become steady before the first sample */
    double offered_per_s; /* where calls come at a rate of their own: calls a second; else 0 */
} bench_series;

/* Free its arrays. */
void bench_series_end(bench_series *series);

/* Return images a second while it ran: by Little's law, or, where calls come at a rate of their
 * own, from the first arrival to the last answer. `count` >= 1. */
double bench_throughput_images_per_s(const bench_series *series);

/* What the sensors read, on the clock of starts_ns. */
typedef struct bench_reading {
    const char *name;     /* "busy_cpu_s", "cpu_mhz_max", "temperature_c.cpu", ... */
    const double *values; /* [count of the trace], NaN where missing */
} bench_reading;

typedef struct bench_lost {
    const char *source;
    const char *reason;
} bench_lost;

typedef struct bench_trace {
    size_t count;
    const double *times_s; /* rising */
    size_t reading_count;
    const bench_reading *readings;
    size_t lost_count;
    const bench_lost *lost; /* sources that ended, and why */
} bench_trace;

/* The facts of the machine that are judged; NULL or 0 where they are not known. */
typedef struct bench_facts {
    double cores;
    const char *cpu_governor;
    const char *jetpack;
    const char *l4t;
    const char *jetson_clocks;
    const char *gpu_clocks_locked;
} bench_facts;

typedef struct bench_finding {
    const char *code; /* a literal: "drift", "other_load", ... */
    char *series;     /* NULL: it is about the machine */
    char *text;       /* one sentence: what was seen, and what to do */
    bool severe;      /* the figures can't be trusted for it */
} bench_finding;

/* A list that grows; begin with zeroes. */
typedef struct bench_findings {
    bench_finding *items;
    size_t count;
    size_t capacity;
    bool failed; /* memory ran out: what follows is ignored */
} bench_findings;

/* Add one. `series` is copied (NULL: the machine), the text is made as printf makes it. */
void bench_find(bench_findings *findings, const char *code, const char *series, bool severe,
                const char *format, ...) __attribute__((format(printf, 5, 6)));

void bench_findings_end(bench_findings *findings);

/* Put the severe ones first, each kind in the order in which it was found. */
void bench_findings_sort(bench_findings *findings);

/* Nothing severe was found. */
bool bench_is_stable(const bench_findings *findings);

/* Add what a measurement says of itself, the severe ones first (those that were there before stay
 * before). trace: NULL where there were no sensors. False: memory ran out. */
bool bench_judge(const bench_series *series, size_t count, const bench_trace *trace,
                 const bench_facts *facts, bench_findings *findings);

/* Only what the sensors and the machine's settings say (conditions.c). */
bool bench_machine_findings(const bench_series *series, size_t count, const bench_trace *trace,
                            const bench_facts *facts, bench_findings *findings);

/* Write a rate for people: 20, 0.5, 90.91, 100,000. */
#define BENCH_RATE_TEXT 48
void bench_rate_text(double per_s, char text[BENCH_RATE_TEXT]);

/* Write a whole number with commas: 100,000. */
void bench_count_text(double count, char text[BENCH_RATE_TEXT]);

#endif
