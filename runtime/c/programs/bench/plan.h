/* SPDX-License-Identifier: Apache-2.0 */
/* What is to be measured, and how. */
#ifndef BENCH_PLAN_H
#define BENCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "errors.h"

#define BENCH_MAX_SAMPLES 2000000     /* of one series: 40 MB of a report */
#define BENCH_MAX_ALL_SAMPLES 6000000 /* of all: below the 256 MB that a reader takes */
#define BENCH_DEFAULT_ITERATIONS 1000
#define BENCH_MAX_BATCHES 16
#define BENCH_MAX_BATCH 4096
#define BENCH_MAX_CONCURRENCY 256
#define BENCH_MAX_COLD 1000
#define BENCH_MAX_LABEL 300 /* characters, also of a series' name: more a reader refuses */
#define BENCH_MLPERF_S 600.0

typedef struct bench_batches {
    int32_t of[BENCH_MAX_BATCHES];
    int count;
} bench_batches;

typedef struct bench_plan {
    bench_batches batches;
    int32_t frame_size[2]; /* width, height; 0: the model takes images of one size */
    int64_t iterations;    /* 0: 1,000, or what fits into the duration */
    double duration_s;     /* 0: a number of samples counts */
    int64_t concurrency;
    double rate[2]; /* a share of what the same threads do in a closed loop, or calls a second */
    bool mlperf;
    bool stages;
    int64_t cold;
    const char *label; /* NULL: none */
    double warm_up_s;
    uint64_t seed;
} bench_plan;

/* When a series ends: after so many samples, or, where duration_s is above 0, so many seconds. */
typedef struct bench_limit {
    int64_t samples;
    double duration_s;
} bench_limit;

/* Refuse what can't be measured, before anything is: EI_INVALID_ARGUMENT. */
ei_status bench_plan_check(const bench_plan *plan);

/* Return the limit of a series that may have `most` samples. */
bench_limit bench_limit_of(const bench_plan *plan, int64_t most);
bool bench_limit_over(const bench_limit *limit, int64_t samples, int64_t elapsed_ns);

/* Tell how far it is: samples of samples, or milliseconds of milliseconds. */
void bench_limit_tell(const bench_limit *limit, const char *step, int64_t samples,
                      int64_t elapsed_ns);

const char *bench_plan_mode(const bench_plan *plan);

/* Refuse more threads than this process has cores for: they would fight each other. */
ei_status bench_check_threads(int64_t threads);

/* Option readers (options.h): what they return is what the text must be. */
const char *bench_read_batches(const char *text, void *batches);    /* "1,8" */
const char *bench_read_seconds(const char *text, void *seconds);    /* "30s", "2m" */
const char *bench_read_rate(const char *text, void *rate);          /* "20/s", "80%" */

#endif
