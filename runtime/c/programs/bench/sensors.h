/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine does while a model runs: load, clocks, temperatures, power; from the kernel's
 * files alone, under the names of docs/measuring.md. */
#ifndef BENCH_SENSORS_H
#define BENCH_SENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"
#include "judge.h"

#define BENCH_READING_BYTES 96
#define BENCH_MAX_READINGS 256
#define BENCH_INTERVAL_S 0.25

/* The readings of one moment. */
typedef struct bench_row {
    char names[BENCH_MAX_READINGS][BENCH_READING_BYTES]; /* each carries its unit */
    double values[BENCH_MAX_READINGS];
    size_t count;
} bench_row;

/* Add a reading; of one name the first stays. Blanks in the name become underscores. */
void bench_row_add(bench_row *row, double value, const char *name, ...)
    __attribute__((format(printf, 3, 4)));

/* The files that are read again and again. */
typedef struct bench_sensors bench_sensors;

/* Find what there is. `slow_s`: how old clocks and temperatures may be, which change slowly, or
 * cost a file for each core; 0: never old. */
ei_status bench_sensors_open(const char *root, double slow_s, bench_sensors **sensors);
void bench_sensors_read(bench_sensors *sensors, bench_row *row);
void bench_sensors_close(bench_sensors *sensors);

/* A thread that reads them at an interval while something else is measured (recorder.c). */
typedef struct bench_recorder bench_recorder;

/* Open the sensors, take a first reading now, and go on. */
ei_status bench_recorder_start(const char *root, double interval_s, bench_recorder **recorder);

/* Return when the trace's times are zero, on the clock of bench_now_ns. */
int64_t bench_recorder_start_ns(const bench_recorder *recorder);

/* Take a last reading and end the thread. The trace stays until the recorder is freed; its count
 * is 0 where nothing was read. */
const bench_trace *bench_recorder_stop(bench_recorder *recorder);

/* Stop, if that was not done, and free; NULL is let pass. */
void bench_recorder_free(bench_recorder *recorder);

/* Power, from counters of energy (RAPL) and from a Jetson's rails (power.c). */
typedef struct bench_power bench_power;

ei_status bench_power_open(const char *root, bench_power **power);
void bench_power_read(bench_power *power, bench_row *row);
void bench_power_close(bench_power *power);

#endif
