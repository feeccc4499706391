/* SPDX-License-Identifier: Apache-2.0 */
/* What a run becomes: a report (docs/report.schema.json), and tables for people. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <stdio.h>

#include "json_writer.h"
#include "run.h"
#include "statistics.h"

/* What is computed of a run for both. */
typedef struct bench_figures {
    bench_summary *summaries; /* of each series */
    bench_early_stopping mlperf;
    double mlperf_duration_s;
    char mlperf_reason[256]; /* why it is not valid by MLPerf; "": it is */
    double cold_p50_ms;
    bool has_energy;
    bench_energy energy;
} bench_figures;

ei_status bench_figures_make(const bench_run *run, bench_figures *figures);
void bench_figures_clear(bench_figures *figures);

/* Where the run was made. */
typedef struct bench_origin {
    char *commit; /* of the folder in which it ran; NULL: none */
    char sha256[65];
    int64_t file_bytes;
    int64_t created_unix_s;
} bench_origin;

/* Find out before the run what can't be had after it: the model's digest, the commit. */
ei_status bench_origin_find(const char *path, bench_origin *origin);
void bench_origin_clear(bench_origin *origin);

/* Write the report, one line of JSON. */
void bench_report_write(const bench_run *run, const bench_figures *figures,
                        const bench_origin *origin, bench_json *json);

/* Print the tables of a report (tables.c); false: memory ran out. */
bool bench_tables_print(FILE *file, const bench_run *run, const bench_figures *figures);

#endif
