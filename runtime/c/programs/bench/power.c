/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lists.h"
#include "sensors.h"
#include "sysfiles.h"

#define MAX_ZONES 32
/* The energy counters move about once a millisecond. */
#define ENERGY_S 0.02

/* A counter of the processor's energy (RAPL). */
typedef struct zone {
    char path[256];
    char name[64];
    int64_t top;    /* where it starts over */
    int64_t before; /* microjoules */
    int64_t before_ns;
} zone;

/* A rail that a Jetson's monitor (INA3221) measures. */
typedef struct rail {
    char folder[256];
    char name[64];
    int number;
} rail;

struct bench_power {
    zone zones[MAX_ZONES];
    size_t zone_count;
    rail rails[MAX_ZONES];
    size_t rail_count;
    int total; /* which rail is the board's input; -1: their sum is told */
};

static bool named(const bench_power *power, const char *name)
{
    for (size_t i = 0; i < power->zone_count; i++)
        if (!strcmp(power->zones[i].name, name))
            return true;
    return false;
}

static void find_zones(const char *root, bench_power *power)
{
    bench_paths found = bench_find_paths(root, "/sys/class/powercap/*-rapl:*");
    for (size_t i = 0; i < found.count && power->zone_count < MAX_ZONES; i++) {
        zone *one = &power->zones[power->zone_count];
        char name[40];
        if (strlen(found.of[i]) >= sizeof one->path ||
            !bench_read_number(&one->before, found.of[i], "/energy_uj") || /* mostly root's */
            !bench_read_text(name, sizeof name, found.of[i], "/name") ||
            !bench_read_number(&one->top, found.of[i], "/max_energy_range_uj"))
            continue;
        one->before_ns = bench_now_ns();
        memcpy(one->path, found.of[i], strlen(found.of[i]) + 1);
        if (named(power, name))
            snprintf(one->name, sizeof one->name, "%s.%.20s", name, bench_base(found.of[i]));
        else
            snprintf(one->name, sizeof one->name, "%s", name);
        power->zone_count++;
    }
    bench_paths_clear(&found);
}

static void find_rails(const char *root, bench_power *power)
{
    /* How the input of the whole board is called, from the Nano to Thor. */
    static const char *const inputs[] = {"VDD_IN", "VIN_SYS_5V0", "VIN", "POM_5V_IN", "5V_IN"};
    bench_paths found = bench_find_paths(root, "/sys/class/hwmon/hwmon*/in[1-3]_label");
    power->total = -1;
    for (size_t i = 0; i < found.count && power->rail_count < MAX_ZONES; i++) {
        rail *one = &power->rails[power->rail_count];
        int folder = (int)(bench_base(found.of[i]) - found.of[i]);
        char chip[32];
        if (folder >= (int)sizeof one->folder ||
            !bench_read_text(chip, sizeof chip, "", "%.*sname", folder, found.of[i]) ||
            strcmp(chip, "ina3221") ||
            !bench_read_text(one->name, sizeof one->name, found.of[i], "%s", "") ||
            !strcmp(one->name, "NC"))
            continue;
        snprintf(one->folder, sizeof one->folder, "%.*s", folder, found.of[i]);
        one->number = bench_base(found.of[i])[2] - '0';
        for (size_t j = 0; j < sizeof inputs / sizeof *inputs; j++)
            if (!strcmp(one->name, inputs[j]))
                power->total = (int)power->rail_count;
        power->rail_count++;
    }
    bench_paths_clear(&found);
}

ei_status bench_power_open(const char *root, bench_power **power)
{
    *power = eip_allocate(1, sizeof **power);
    if (!*power)
        return EI_OUT_OF_MEMORY;
    find_zones(root, *power);
    find_rails(root, *power);
    return EI_OK;
}

static void read_zones(bench_power *power, bench_row *row)
{
    for (size_t i = 0; i < power->zone_count; i++) {
        zone *one = &power->zones[i];
        int64_t energy, now = bench_now_ns();
        double passed_s = (double)(now - one->before_ns) / 1e9;
        if (passed_s < ENERGY_S || !bench_read_number(&energy, one->path, "/energy_uj"))
            continue;
        int64_t spent = energy - one->before;
        spent += spent < 0 ? one->top + 1 : 0;
        bench_row_add(row, (double)spent / 1e6 / passed_s, "power_w.%s", one->name);
        one->before = energy;
        one->before_ns = now;
    }
}

static void read_rails(bench_power *power, bench_row *row)
{
    double sum = 0, total = -1;
    int known = 0;
    for (size_t i = 0; i < power->rail_count; i++) {
        const rail *one = &power->rails[i];
        int64_t millivolts, milliamperes;
        if (!bench_read_number(&millivolts, one->folder, "in%d_input", one->number) ||
            !bench_read_number(&milliamperes, one->folder, "curr%d_input", one->number))
            continue;
        double watts = (double)millivolts * (double)milliamperes / 1e6;
        bench_row_add(row, watts, "power_w.%s", one->name);
        sum += watts;
        known++;
        if ((int)i == power->total)
            total = watts;
    }
    if (known)
        bench_row_add(row, total >= 0 ? total : sum, "power_w.total");
}

void bench_power_read(bench_power *power, bench_row *row)
{
    read_zones(power, row);
    read_rails(power, row);
}

void bench_power_close(bench_power *power)
{
    free(power);
}
