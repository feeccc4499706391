/* SPDX-License-Identifier: Apache-2.0 */
/* Facts about the machine that a measurement is made on, under the names that Python's
 * `machine_facts` gives them, so that reports of both compare. */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

#include "errors.h"
#include "judge.h"

typedef enum { BENCH_UNKNOWN, BENCH_TEXT, BENCH_WHOLE, BENCH_NUMBER } bench_fact_kind;

typedef struct bench_fact {
    char *name;
    bench_fact_kind kind;
    char *text;
    double number;
} bench_fact;

/* Facts by name, in the order in which they were set. */
typedef struct bench_machine {
    bench_fact *of;
    size_t count;
    size_t capacity;
} bench_machine;

/* Set a fact; one of that name is replaced. Text that is NULL or empty: not known. */
ei_status bench_fact_text(bench_machine *machine, const char *name, const char *text);
ei_status bench_fact_whole(bench_machine *machine, const char *name, double value);
ei_status bench_fact_number(bench_machine *machine, const char *name, double value);

void bench_machine_clear(bench_machine *machine);

/* Describe this machine. What can't be had is null, or left out; only EI_OUT_OF_MEMORY fails. */
ei_status bench_machine_describe(const char *root, bench_machine *machine);

/* Return those that are judged; they point into the machine. */
bench_facts bench_machine_judged(const bench_machine *machine);

/* Tell whether this is a Jetson, by its release file or the device tree (jetson.c). */
bool bench_is_jetson(const char *root);

/* Describe a Jetson: L4T, JetPack, SoC, power mode, the GPU's clocks; nothing elsewhere. */
ei_status bench_jetson_describe(const char *root, bench_machine *machine);

/* Copy the folder of a Jetson's GPU among the devices with a clock; false: there is none. */
bool bench_jetson_gpu(const char *root, char *path, size_t bytes);

#endif
