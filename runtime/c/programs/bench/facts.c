/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "lists.h"
#include "machine.h"

/* Return a fact, or NULL. */
static bench_fact *find(const bench_machine *machine, const char *name)
{
    for (size_t i = 0; i < machine->count; i++)
        if (!strcmp(machine->of[i].name, name))
            return &machine->of[i];
    return NULL;
}

static ei_status set(bench_machine *machine, const char *name, bench_fact_kind kind,
                     const char *text, double number)
{
    char *copy = NULL, *own = NULL;
    if (kind == BENCH_TEXT && !(copy = eip_copy_text(text)))
        return EI_OUT_OF_MEMORY;
    bench_fact *one = find(machine, name);
    if (!one) {
        own = eip_copy_text(name);
        if (!own ||
            !bench_grow(&machine->of, machine->count, &machine->capacity, sizeof *machine->of)) {
            free(own);
            free(copy);
            return EI_OUT_OF_MEMORY;
        }
        one = &machine->of[machine->count++];
        *one = (bench_fact){.name = own};
    }
    free(one->text);
    one->kind = kind;
    one->text = copy;
    one->number = number;
    return EI_OK;
}

ei_status bench_fact_text(bench_machine *machine, const char *name, const char *text)
{
    return set(machine, name, text && *text ? BENCH_TEXT : BENCH_UNKNOWN, text, 0);
}

ei_status bench_fact_whole(bench_machine *machine, const char *name, double value)
{
    return set(machine, name, BENCH_WHOLE, NULL, value);
}

ei_status bench_fact_number(bench_machine *machine, const char *name, double value)
{
    return set(machine, name, BENCH_NUMBER, NULL, value);
}

void bench_machine_clear(bench_machine *machine)
{
    for (size_t i = 0; i < machine->count; i++) {
        free(machine->of[i].name);
        free(machine->of[i].text);
    }
    free(machine->of);
    *machine = (bench_machine){0};
}

static const char *text_of(const bench_machine *machine, const char *name)
{
    const bench_fact *one = find(machine, name);
    return one ? one->text : NULL;
}

bench_facts bench_machine_judged(const bench_machine *machine)
{
    const bench_fact *cores = find(machine, "cores");
    return (bench_facts){.cores = cores ? cores->number : 0,
                         .cpu_governor = text_of(machine, "cpu_governor"),
                         .jetpack = text_of(machine, "jetpack"),
                         .l4t = text_of(machine, "l4t"),
                         .jetson_clocks = text_of(machine, "jetson_clocks"),
                         .gpu_clocks_locked = text_of(machine, "gpu_clocks_locked")};
}
