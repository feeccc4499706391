/* SPDX-License-Identifier: Apache-2.0 */
/* Carries out a plan: which series are taken, one after the other, while sensors are read. */
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include "judge.h"
#include "machine.h"
#include "memory.h"
#include "options.h"
#include "plan.h"
#include "sensors.h"
#include "subject.h"
#include "timing.h"

#define BENCH_MAX_BESIDE 8
#define BENCH_MAX_SUBJECTS (BENCH_MAX_BESIDE + 2)

typedef struct bench_run {
    bench_plan plan;
    run_options options;
    const char *path; /* the model's file */
    bench_subject subjects[BENCH_MAX_SUBJECTS]; /* the model, its backbone, what is beside it */
    int subject_count;
    bench_memory memory;
    bench_machine machine;
    bench_series_list series;
    bench_findings found; /* while the series were taken */
    bench_recorder *recorder;
    const bench_trace *trace; /* NULL before all series were taken */
    double *cold_ms;          /* NULL: no cold starts, or they failed */
    bench_findings verdict;   /* all findings, the severe ones first */
} bench_run;

/* Take all series, and read the sensors meanwhile; then what comes last, and the verdict. */
ei_status bench_run_measure(bench_run *run);

/* Return the series that speaks for the run: the first of whole calls, or their load. */
const bench_series *bench_run_main(const bench_run *run);

void bench_run_clear(bench_run *run);

/* Start a process of this program, wait for its first label, and again (cold.c): taken_ms takes as
 * many milliseconds. EI_PROVIDER where one came to no label. */
ei_status bench_cold_starts(const bench_run *run, double *taken_ms);

/* Energy of an image, where a sensor tells the power (energy.c). */
typedef struct bench_energy {
    double joules_per_image;
    double mean_power_w;
    const char *source;
} bench_energy;

/* Integrate the power over the time in which a series ran; false where no sensor tells it, or its
 * readings don't cover the series. */
bool bench_energy_of(const bench_series *series, const bench_trace *trace, bench_energy *energy);

#endif
