/* SPDX-License-Identifier: Apache-2.0 */
/* The statistics of ei-bench: what Python's edge_imprint_runtime.measuring computes, computed the
 * same way. The same samples and the same seed give the same figures (docs/statistics.md).
 *
 * Samples are int64 nanoseconds in the order in which they were taken. Functions that may run out
 * of memory return false for it, and for nothing else; EI_OUT_OF_MEMORY's error is then set. */
#ifndef BENCH_STATISTICS_H
#define BENCH_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The percentiles that a report tells, and their names in it. */
#define BENCH_PERCENTS 5
extern const double bench_percents[BENCH_PERCENTS];          /* 50, 90, 95, 99, 99.9 */
extern const char *const bench_percent_keys[BENCH_PERCENTS]; /* "p50", ..., "p99_9" */

/* What the published figures are made with. */
#define BENCH_CONFIDENCE 0.95
#define BENCH_RESAMPLES 1000
#define BENCH_SEED 0

/* Percentiles by nearest rank: always a sample that was seen. --------------------------------- */

/* Return the rank, from 1, of a percentile of `count` >= 1 samples. */
size_t bench_nearest_rank(size_t count, double percent);

/* Sort, smallest first. */
void bench_sort(int64_t *values, size_t count);
void bench_sort_numbers(double *values, size_t count);

/* Return the median of `count` >= 1 numbers, the middle of two where they are even; they come to
 * lie in order. */
double bench_median(double *values, size_t count);

/* Intervals of percentiles, by the block bootstrap (blocks.c, intervals.c). -------------------- */

/* known false: so few samples (or so many that resemble each other) can't bound it. */
typedef struct bench_interval {
    bool known;
    int64_t low_ns;
    int64_t high_ns;
} bench_interval;

/* Bound `count` percentiles (above 0 and below 100, each once, at most 16) of `samples` >= 1
 * samples: intervals[i] is that of percents[i]. */
bool bench_percentile_intervals(const int64_t *samples_ns, size_t samples, const double *percents,
                                size_t count, double confidence, int resamples, uint64_t seed,
                                bench_interval *intervals);

/* Return how many independent samples bound a percentile from both sides at all: 368 for p99. */
int64_t bench_fewest_samples(double percent, double confidence);

/* *design becomes how many times more a percentile scatters than among independent samples, at
 * least 1: samples / design is what the samples are worth. */
bool bench_design_effect(const int64_t *samples_ns, size_t samples, double percent, double *design);

/* Say how far neighbours resemble each other, after Politis and White (2004): how long blocks
 * should be, in samples, and how many times more the mean scatters; each at least 1. */
bool bench_dependence(const double *values, size_t count, double *length, double *factor);

/* What a report says of a series: its latencies in ms. */
typedef struct bench_summary {
    double min_ms;
    double max_ms;
    double mean_ms;
    double percentiles_ms[BENCH_PERCENTS]; /* of bench_percents */
    bool bounded[BENCH_PERCENTS];          /* false: the report's interval is null */
    double intervals_ms[BENCH_PERCENTS][2];
} bench_summary;

/* Sum up `count` >= 1 samples, with the confidence, resamples and seed above. */
bool bench_summarize(const int64_t *samples_ns, size_t count, bench_summary *summary);

/* Drift and level shifts (shifts.c). ----------------------------------------------------------- */

/* What matters in a run, and how often a quiet one may be called moved. */
#define BENCH_DRIFT_PERCENT 3.0
#define BENCH_SHIFT_PERCENT 5.0
#define BENCH_TAIL_SHIFT_PERCENT 20.0
#define BENCH_DRIFT_ALPHA 0.01
#define BENCH_SHIFT_ALPHA 0.002
#define BENCH_MOST_SHIFTS 4

typedef struct bench_drift {
    double change_percent; /* from the run's begin to its end, on the line that fits best */
    double p_value;        /* of there being no slope */
    bool found;            /* significant, and large enough to matter */
} bench_drift;

/* Samples first up to, not with, last lie at another level than the others. */
typedef struct bench_shift {
    size_t first;
    size_t last;           /* the number of samples where the level stayed */
    double percent;        /* the percentile that moved: 50, or 90 where the median did not */
    int64_t before_ns;     /* of the other samples */
    int64_t level_ns;      /* of these */
    double change_percent; /* of the second against the first */
    double p_value;        /* of no such stretch being there */
} bench_shift;

/* Look for a slope. starts_ns: when the samples were taken; NULL: evenly. */
bool bench_find_drift(const int64_t *samples_ns, const int64_t *starts_ns, size_t count,
                      double least_percent, double alpha, bench_drift *drift);

/* Look for stretches at another level; *found is how many, the most significant first. Safe from
 * several threads at a time. */
bool bench_find_level_shifts(const int64_t *samples_ns, size_t count, double least_percent,
                             double least_tail_percent, double alpha,
                             bench_shift shifts[BENCH_MOST_SHIFTS], size_t *found);

/* *is_step: one shift fits better than one slope, where a series shows both. */
bool bench_is_a_step(const int64_t *samples_ns, size_t count, const bench_shift *shift,
                     bool *is_step);

/* When a warm-up is over (steady.c). ----------------------------------------------------------- */

/* Read over, steady, failed, samples_ns and count; the rest is its own. One thread at a time.
 *
 *     bench_warm_up_begin(&warm_up, 30.0, 1);
 *     while (!warm_up.over)
 *         bench_warm_up_add(&warm_up, nanoseconds of one run);
 *     ... warm_up.samples_ns, warm_up.count, warm_up.steady
 *     bench_warm_up_end(&warm_up);
 *
 * Its time is that of its samples: what runs in between does not count. */
typedef struct bench_warm_up {
    bool over;   /* no further samples are wanted: it is steady, or a limit is reached */
    bool steady; /* it became steady */
    bool failed; /* memory ran out: it is over, and not steady */
    int64_t *samples_ns;
    size_t count;

    size_t capacity;
    int64_t total_ns;
    size_t least;
    int64_t least_ns;
    size_t most;
    int64_t most_ns;
    size_t next_look;
    int quiet;
} bench_warm_up;

/* 24 samples and 0.5 s at least (less where max_s is less), `max_s` seconds and 2,000,000 samples
 * at most. `callers`: so many feed it at a time, and so many samples pass at once. */
void bench_warm_up_begin(bench_warm_up *warm_up, double max_s, int callers);

/* The same, with all limits given: 1 <= min_samples <= max_samples, 0 <= min_s <= max_s. */
void bench_warm_up_limits(bench_warm_up *warm_up, size_t min_samples, double min_s, double max_s,
                          size_t max_samples, int callers);

/* Take the next sample. */
void bench_warm_up_add(bench_warm_up *warm_up, int64_t sample_ns);

/* Free its samples; to keep them, take samples_ns and set it NULL before. */
void bench_warm_up_end(bench_warm_up *warm_up);

/* MLPerf's early stopping (early_stopping.c). -------------------------------------------------- */

#define BENCH_MLPERF_PERCENT 90.0
#define BENCH_MLPERF_CONFIDENCE 0.99

typedef struct bench_early_stopping {
    int64_t queries;
    int64_t over_latency; /* samples that may lie above; 0: there were too few queries */
    int64_t discarded;    /* highest samples left out */
    bool known;           /* false: too few queries for an estimate */
    int64_t estimate_ns;
    int64_t needed_queries;    /* the fewest that give an estimate at all: 64 for p90 */
    int64_t suggested_queries; /* what MLPerf suggests for a tight one: 24,576 for p90 */
} bench_early_stopping;

/* Estimate a percentile (above 0, below 100) at a confidence (above 0, below 1). */
bool bench_early_stopping_estimate(const int64_t *samples_ns, size_t count, double percent,
                                   double confidence, bench_early_stopping *estimate);

/* Return t, the most queries that may lie above; below 1 there is no estimate. */
int64_t bench_most_over_latency(int64_t queries, double percent, double confidence);

int64_t bench_needed_queries(double percent, double confidence);
int64_t bench_suggested_queries(double percent, double confidence);

/* Random numbers, as numpy.random.default_rng(seed) draws them (random.c). --------------------- */

/* PCG64 (O'Neill 2014). The halves of its 128-bit state and increment: no compiler needs to know
 * 128 bits for the struct. */
typedef struct bench_random {
    uint64_t state[2]; /* high, low */
    uint64_t step[2];
    bool has_half; /* the upper half of the last 64 bits waits for the next 32 */
    uint32_t half;
} bench_random;

void bench_random_begin(bench_random *random, uint64_t seed);

uint64_t bench_random_64(bench_random *random);

/* Return Generator.integers(0, below): 1 <= below <= 2^32. */
uint32_t bench_random_below(bench_random *random, uint64_t below);

/* Shuffle as Generator.permuted() does. */
void bench_shuffle(bench_random *random, double *values, size_t count);

/* Return Generator.random(): from 0 up to, not with, 1. */
double bench_random_share(bench_random *random);

/* Return an exponential number with mean 1 (by the logarithm: not numpy's draws). */
double bench_random_exponential(bench_random *random);

/* Distributions (student.c). ------------------------------------------------------------------- */

/* Return the probability that a standard normal lies above z. */
double bench_normal_tail(double z);

/* Return the probability that Student's t with `freedom` > 0 lies above t >= 0. */
double bench_student_tail(double t, double freedom);

/* Return the t that Student's distribution lies below with this probability. */
double bench_student_quantile(double probability, double freedom);

#endif
