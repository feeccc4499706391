/* SPDX-License-Identifier: Apache-2.0 */
#include "sensors.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>

#include "lists.h"
#include "machine.h"
#include "sysfiles.h"

/* Linux counts in ticks of 10 ms: over fewer than some of them a share says nothing. */
#define TICKS_S 0.1

struct bench_sensors {
    char *root;
    double slow_s;
    int64_t slow_due_ns;
    bench_row *slow;
    bool counted;
    double before_busy_s, before_whole_s;
    bool has_quota;
    bool is_jetson;
    bool has_gpu;
    char gpu[BENCH_PATH_BYTES];
    bench_power *power;
};

/* ---------------------------------------------------------------------------------- rows -- */

static bool row_has(const bench_row *row, const char *name)
{
    for (size_t i = 0; i < row->count; i++)
        if (!strcmp(row->names[i], name))
            return true;
    return false;
}

void bench_row_add(bench_row *row, double value, const char *name, ...)
{
    char text[BENCH_READING_BYTES];
    va_list arguments;
    va_start(arguments, name);
    vsnprintf(text, sizeof text, name, arguments);
    va_end(arguments);
    for (char *at = text; *at; at++)
        if (isspace((unsigned char)*at))
            *at = '_';
    if (row->count == BENCH_MAX_READINGS || row_has(row, text) || !isfinite(value))
        return;
    memcpy(row->names[row->count], text, sizeof text);
    row->values[row->count++] = value;
}

static void row_append(bench_row *row, const bench_row *more)
{
    for (size_t i = 0; i < more->count; i++)
        bench_row_add(row, more->values[i], "%s", more->names[i]);
}

/* -------------------------------------------------------------------- what is read always -- */

static double own_cpu_s(void)
{
    struct timespec own = {0};
    struct tms children = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
    times(&children);
    /* The process's own in nanoseconds; that of its children once they ended, in ticks. */
    return (double)own.tv_sec + (double)own.tv_nsec / 1e9 +
           (double)(children.tms_cutime + children.tms_cstime) / (double)sysconf(_SC_CLK_TCK);
}

static void read_load(bench_sensors *sensors, bench_row *row)
{
    char text[512];
    /* user, nice, system, idle, iowait, irq, softirq, steal: guests are within user and nice. */
    double ticks[8] = {0}, load, per_s = (double)sysconf(_SC_CLK_TCK);
    bench_read_text(text, sizeof text, sensors->root, "/proc/stat");
    int known = sscanf(text, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &ticks[0], &ticks[1],
                       &ticks[2], &ticks[3], &ticks[4], &ticks[5], &ticks[6], &ticks[7]);
    bench_row_add(row, own_cpu_s(), "own_cpu_s");
    if (getloadavg(&load, 1) == 1)
        bench_row_add(row, load, "load_average_1min");
    if (known < 4)
        return;
    double busy = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / per_s;
    double whole = busy + (ticks[3] + ticks[4] + ticks[7]) / per_s;
    bench_row_add(row, busy, "busy_cpu_s");
    if (known == 8)
        bench_row_add(row, ticks[7] / per_s, "steal_s");
    double passed = whole - sensors->before_whole_s;
    if (sensors->counted && passed < TICKS_S)
        return;
    if (sensors->counted) {
        double share = (busy - sensors->before_busy_s) / passed;
        bench_row_add(row, 100 * fmin(fmax(share, 0), 1), "cpu_percent");
    }
    sensors->counted = true;
    sensors->before_busy_s = busy;
    sensors->before_whole_s = whole;
}

static void read_quota(bench_sensors *sensors, bench_row *row)
{
    char text[2048];
    long long throttled_us;
    bench_read_text(text, sizeof text, sensors->root, "/sys/fs/cgroup/cpu.stat");
    const char *line = strstr(text, "throttled_usec ");
    if (line && sscanf(line, "throttled_usec %lld", &throttled_us) == 1)
        bench_row_add(row, (double)throttled_us / 1e6, "quota_throttled_s");
}

static void read_gpu(bench_sensors *sensors, bench_row *row)
{
    int64_t value;
    if (bench_read_number(&value, sensors->gpu, "/cur_freq") && value > 0)
        bench_row_add(row, (double)value / 1e6, "gpu_mhz");
    if (bench_read_number(&value, sensors->gpu, "/device/load")) /* in thousandths */
        bench_row_add(row, (double)value / 10, "gpu_percent");
    /* For root alone, where debugfs is there. */
    if (bench_read_number(&value, sensors->root, "/sys/kernel/debug/bpmp/debug/clk/emc/rate") &&
        value > 0)
        bench_row_add(row, (double)value / 1e6, "emc_mhz");
}

/* --------------------------------------------------------------- what is read once a second -- */

static void read_memory(bench_sensors *sensors, bench_row *row)
{
    double kilobytes;
    char text[128];
    unsigned long long whole, resident;
    char *said = bench_read_long(sensors->root, "/proc/meminfo");
    if (said && bench_line_number(said, "MemAvailable", &kilobytes))
        bench_row_add(row, kilobytes * 1024, "memory_available_bytes");
    free(said);
    bench_read_text(text, sizeof text, "", "/proc/self/statm");
    if (sscanf(text, "%llu %llu", &whole, &resident) == 2)
        bench_row_add(row, (double)resident * (double)sysconf(_SC_PAGE_SIZE), "own_rss_bytes");
}

typedef struct spread {
    double sum, least, most;
    int count;
} spread;

static void spread_add(spread *all, double value)
{
    if (!(value > 0)) /* a virtual machine that is not told, or a core without a clock */
        return;
    all->least = all->count && all->least < value ? all->least : value;
    all->most = all->count && all->most > value ? all->most : value;
    all->sum += value;
    all->count++;
}

static void read_clocks(bench_sensors *sensors, bench_row *row)
{
    spread mhz = {0};
    /* x86's kernel says here what the cores ran at; ARM's does not, and cpufreq is asked. */
    char *said = bench_read_long(sensors->root, "/proc/cpuinfo");
    for (const char *line = said; line && *line;) {
        double value;
        if (sscanf(line, "cpu MHz : %lf", &value) == 1)
            spread_add(&mhz, value);
        line = strchr(line, '\n');
        line += line != NULL;
    }
    free(said);
    if (!mhz.count) {
        static const char *const patterns[] = {"/sys/devices/system/cpu/cpufreq/policy[0-9]*",
                                               "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"};
        for (int i = 0; i < 2 && !mhz.count; i++) {
            bench_paths cores = bench_find_paths(sensors->root, patterns[i]);
            int64_t khz;
            for (size_t j = 0; j < cores.count; j++)
                if (bench_read_number(&khz, cores.of[j], "/scaling_cur_freq"))
                    spread_add(&mhz, (double)khz / 1e3);
            bench_paths_clear(&cores);
        }
    }
    if (!mhz.count)
        return;
    bench_row_add(row, mhz.sum / mhz.count, "cpu_mhz");
    bench_row_add(row, mhz.least, "cpu_mhz_min");
    bench_row_add(row, mhz.most, "cpu_mhz_max");
}

static void add_temperature(bench_row *row, const char *chip, const char *label, int index,
                            double degrees_c)
{
    char name[BENCH_READING_BYTES];
    /* 0 and below is what a sensor says that is switched off. */
    if (!(degrees_c > 0))
        return;
    snprintf(name, sizeof name, "temperature_c.%.30s%s%.30s", chip, *label ? " " : "", label);
    for (char *at = name; *at; at++)
        if (isspace((unsigned char)*at))
            *at = '_';
    if (row_has(row, name))
        bench_row_add(row, degrees_c, "%.80s.%d", name, index);
    else
        bench_row_add(row, degrees_c, "%s", name);
}

/* What chips of the board's monitors say; return how many inputs there are. */
static size_t read_monitors(bench_sensors *sensors, bench_row *row)
{
    static const char *const patterns[] = {"/sys/class/hwmon/hwmon*/temp*_input",
                                           "/sys/class/hwmon/hwmon*/device/temp*_input"};
    size_t inputs = 0;
    for (int i = 0; i < 2; i++) {
        bench_paths files = bench_find_paths(sensors->root, patterns[i]);
        char chip[64] = "", label[64], before[64] = "";
        int index = 0;
        inputs += files.count;
        for (size_t j = 0; j < files.count; j++) {
            int folder = (int)(bench_base(files.of[j]) - files.of[j]);
            int stem = (int)(strrchr(files.of[j], '_') - files.of[j]);
            int64_t value;
            if (!bench_read_number(&value, files.of[j], "%s", "") ||
                !bench_read_text(chip, sizeof chip, "", "%.*sname", folder, files.of[j]))
                continue;
            bench_read_text(label, sizeof label, "", "%.*s_label", stem, files.of[j]);
            index = strcmp(chip, before) ? 0 : index + 1;
            memcpy(before, chip, sizeof before);
            add_temperature(row, chip, label, index, (double)value / 1e3);
        }
        bench_paths_clear(&files);
    }
    return inputs;
}

/* What the kernel's thermal zones say: of boards without monitors, and of a Jetson, whose zones
 * jetson-stats names without their "-therm". */
static void read_zones(bench_sensors *sensors, bench_row *row)
{
    bench_paths zones = bench_find_paths(sensors->root, "/sys/class/thermal/thermal_zone*");
    for (size_t i = 0; i < zones.count; i++) {
        char type[64];
        int64_t value;
        if (!bench_read_number(&value, zones.of[i], "/temp") ||
            !bench_read_text(type, sizeof type, zones.of[i], "/type"))
            continue;
        char *end = strstr(type, "-therm");
        if (sensors->is_jetson && end)
            *end = 0;
        for (char *at = type; sensors->is_jetson && *at; at++)
            *at = (char)tolower((unsigned char)*at);
        add_temperature(row, type, "", (int)i, (double)value / 1e3);
    }
    bench_paths_clear(&zones);
}

static void read_temperatures(bench_sensors *sensors, bench_row *row)
{
    if (!read_monitors(sensors, row) || sensors->is_jetson)
        read_zones(sensors, row);
}

static void read_throttling(bench_sensors *sensors, bench_row *row)
{
    bench_paths files = bench_find_paths(
        sensors->root, "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count");
    int64_t value, sum = 0;
    bool known = files.count > 0;
    for (size_t i = 0; i < files.count && known; i++) {
        known = bench_read_number(&value, files.of[i], "%s", "");
        sum += known ? value : 0;
    }
    bench_paths_clear(&files);
    if (known)
        bench_row_add(row, (double)sum, "cpu_throttle_count");
}

static void read_fans(bench_sensors *sensors, bench_row *row)
{
    int64_t value, most = -1;
    bench_paths fans = bench_find_paths(sensors->root, "/sys/class/hwmon/hwmon*/pwm1");
    for (size_t i = 0; i < fans.count; i++)
        if (bench_read_number(&value, fans.of[i], "%s", "") && value > most)
            most = value;
    bench_paths_clear(&fans);
    if (most >= 0)
        bench_row_add(row, (double)most / 2.55, "fan_percent");
}

/* -------------------------------------------------------------------------------- sensors -- */

ei_status bench_sensors_open(const char *root, double slow_s, bench_sensors **opened)
{
    char text[64];
    *opened = NULL;
    bench_sensors *sensors = eip_allocate(1, sizeof *sensors);
    if (!sensors)
        return EI_OUT_OF_MEMORY;
    sensors->slow_s = slow_s;
    sensors->slow_due_ns = INT64_MIN;
    sensors->root = eip_copy_text(root);
    sensors->slow = eip_allocate(1, sizeof *sensors->slow);
    if (!sensors->root || !sensors->slow || bench_power_open(root, &sensors->power)) {
        bench_sensors_close(sensors);
        return EI_OUT_OF_MEMORY;
    }
    sensors->has_quota = bench_read_text(text, sizeof text, root, "/sys/fs/cgroup/cpu.stat") > 0;
    sensors->is_jetson = bench_is_jetson(root);
    sensors->has_gpu =
        sensors->is_jetson && bench_jetson_gpu(root, sensors->gpu, sizeof sensors->gpu);
    *opened = sensors;
    return EI_OK;
}

void bench_sensors_read(bench_sensors *sensors, bench_row *row)
{
    row->count = 0;
    read_load(sensors, row);
    bench_power_read(sensors->power, row);
    if (sensors->has_quota)
        read_quota(sensors, row);
    if (sensors->has_gpu)
        read_gpu(sensors, row);
    int64_t now = bench_now_ns();
    if (now >= sensors->slow_due_ns) {
        sensors->slow_due_ns = now + (int64_t)(sensors->slow_s * 1e9);
        sensors->slow->count = 0;
        read_memory(sensors, sensors->slow);
        read_clocks(sensors, sensors->slow);
        read_temperatures(sensors, sensors->slow);
        read_throttling(sensors, sensors->slow);
        if (sensors->is_jetson)
            read_fans(sensors, sensors->slow);
    }
    row_append(row, sensors->slow);
}

void bench_sensors_close(bench_sensors *sensors)
{
    if (!sensors)
        return;
    bench_power_close(sensors->power);
    free(sensors->slow);
    free(sensors->root);
    free(sensors);
}
