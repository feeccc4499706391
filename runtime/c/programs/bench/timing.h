/* SPDX-License-Identifier: Apache-2.0 */
/* Latency: of several things in turns (turns.c), of a single stream, and under load (load.c). */
#ifndef BENCH_TIMING_H
#define BENCH_TIMING_H

#include <stdbool.h>
#include <stdint.h>

#include "errors.h"
#include "judge.h"
#include "lists.h"
#include "plan.h"
#include "subject.h"

/* What all ways of measuring are told. */
typedef struct bench_timing {
    int32_t batch;     /* images that one call takes */
    bench_limit limit; /* of each series, without the warm-up */
    double warm_up_s;  /* at most, until it is steady */
    int64_t began_ns;  /* what the starts are counted from */
    const char *step;  /* what is told meanwhile */
} bench_timing;

/* Series, as they were taken. */
typedef struct bench_series_list {
    bench_series *of;
    size_t count;
    size_t capacity;
} bench_series_list;

/* Samples of one series as they are collected. */
typedef struct bench_samples {
    bench_longs taken_ns, starts_ns, warm_up_ns;
    bool steady;
} bench_samples;

void bench_samples_clear(bench_samples *samples);

/* Add a series made of samples, whose lists it takes over; starts are given on the clock. NULL:
 * there is not enough memory, and the samples are as they were. */
bench_series *bench_series_add(bench_series_list *list, const char *name, int32_t batch,
                               const char *stage, bench_samples *samples, int64_t began_ns);
void bench_series_list_clear(bench_series_list *list);

/* Time calls in turns, each warmed up until it is steady; as many samples of each. */
ei_status bench_measure_turns(bench_call *const *calls, const char *const *names,
                              const char *stage, size_t count, const bench_timing *timing,
                              bench_series_list *series);

/* One query after the other, as MLPerf's single stream: the next is due when the one before is
 * complete. limit: it ends after so many samples and so many seconds, both. */
ei_status bench_measure_stream(bench_call *call, const char *name, const bench_timing *timing,
                               bench_series_list *series);

/* Several callers, each calling again as soon as it has its answer. */
ei_status bench_measure_closed(bench_call *const *calls, const char *name, int callers,
                               const bench_timing *timing, bench_series_list *series);

/* What came of calls at a rate of their own. */
typedef struct bench_offered {
    double offered_per_s; /* calls a second that were to come */
    double drawn_per_s;   /* calls a second that chance made of it */
    int64_t arrivals;
    int64_t unserved; /* never begun, because so many waited before them */
    double backlog_mean; /* calls that a call found waiting when it came */
    int64_t backlog_max, backlog_end;
    double busy_share; /* how much of their time the callers were in a call */
    bool overloaded;
} bench_offered;

/* Calls that arrive at random, `rate_per_s` on average, whether a caller is ready or not; a latency
 * counts from the arrival. */
ei_status bench_measure_offered(bench_call *const *calls, const char *name, int callers,
                                double rate_per_s, uint64_t seed, const bench_timing *timing,
                                bench_series_list *series, bench_offered *offered);

/* Draw arrivals: nanoseconds from the begin, rising, at least one. */
ei_status bench_poisson_arrivals(double rate_per_s, const bench_limit *limit, uint64_t seed,
                                 bench_longs *arrivals);

#endif
