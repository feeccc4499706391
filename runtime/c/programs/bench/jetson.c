/* SPDX-License-Identifier: Apache-2.0 */
/* What a Jetson's own files say of it. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "machine.h"
#include "sysfiles.h"

/* NVIDIA names the release of the system (L4T) in a file, and JetPack in its documents alone. */
static const char *const jetpacks[][2] = {
    {"35.2.1", "5.1"},   {"35.3.1", "5.1.1"}, {"35.4.1", "5.1.2"}, {"35.5.0", "5.1.3"},
    {"35.6.0", "5.1.4"}, {"35.6.1", "5.1.5"}, {"35.6.2", "5.1.5"}, {"35.6.3", "5.1.5"},
    {"35.6.4", "5.1.6"}, {"36.3.0", "6.0"},   {"36.4.0", "6.1"},   {"36.4.2", "6.1"},
    {"36.4.3", "6.2"},   {"36.4.4", "6.2.1"}, {"36.4.7", "6.2.1"}, {"36.5.0", "6.2.2"},
    {"38.2.0", "7.0"},   {"38.2.1", "7.0"},   {"38.2.2", "7.0"},   {"38.4.0", "7.1"},
    {"39.2.0", "7.2"},
};

/* How the GPU is called among the devices with a clock, from the Nano to Thor. */
static const char *const gpus[] = {"gpu", "gm20b", "gp10b", "gv11b", "ga10b"};

/* Copy the last "nvidia,tegra..." of the device tree, a list of NUL-terminated names. */
static bool soc(const char *root, char *name, size_t bytes)
{
    char text[1024];
    size_t length = bench_read_text(text, sizeof text, root, "/proc/device-tree/compatible");
    bool found = false;
    static const char mark[] = "nvidia,tegra";
    for (size_t i = 0; i + sizeof mark <= length; i++) {
        if (memcmp(text + i, mark, sizeof mark - 1) ||
            !isdigit((unsigned char)text[i + sizeof mark - 1]))
            continue;
        size_t digits = strspn(text + i + sizeof mark - 1, "0123456789");
        snprintf(name, bytes, "tegra%.*s", (int)digits, text + i + sizeof mark - 1);
        found = true;
    }
    return found;
}

bool bench_is_jetson(const char *root)
{
    char text[64];
    return bench_read_text(text, sizeof text, root, "/etc/nv_tegra_release") ||
           soc(root, text, sizeof text);
}

static ei_status release(const char *root, bench_machine *machine)
{
    char text[1024], l4t[64];
    int major;
    char revision[32];
    bench_read_text(text, sizeof text, root, "/etc/nv_tegra_release");
    const char *at = strstr(text, "R");
    for (; at; at = strstr(at + 1, "R"))
        if (sscanf(at, "R%d (release), REVISION: %31[0-9.]", &major, revision) == 2)
            break;
    if (!at)
        return EI_OK;
    snprintf(l4t, sizeof l4t, "%d.%s", major, revision);
    ei_status status = bench_fact_text(machine, "l4t", l4t);
    for (size_t i = 0; i < sizeof jetpacks / sizeof *jetpacks; i++)
        if (!status && !strcmp(l4t, jetpacks[i][0]))
            status = bench_fact_text(machine, "jetpack", jetpacks[i][1]);
    return status;
}

/* What nvpmodel writes when a mode is set; its configuration has the names. */
static ei_status power_mode(const char *root, bench_machine *machine)
{
    char text[4096];
    bench_read_text(text, sizeof text, root, "/var/lib/nvpmodel/status");
    const char *mark = strstr(text, "pmode:");
    if (!mark || !isdigit((unsigned char)mark[6]))
        return EI_OK;
    long mode = strtol(mark + 6, NULL, 10);
    char *modes = bench_read_long(root, "/etc/nvpmodel.conf");
    ei_status status = EI_OK;
    for (char *line = modes; line && *line && !status;) {
        long id;
        char name[128];
        if (sscanf(line, "< POWER_MODEL ID=%ld NAME=%127[^ >\n]", &id, name) == 2 && id == mode) {
            status = bench_fact_text(machine, "power_mode", name);
            break;
        }
        line = strchr(line, '\n');
        line += line != NULL;
    }
    free(modes);
    return status ? status : bench_fact_whole(machine, "power_mode_id", (double)mode);
}

static bool names_gpu(const char *name)
{
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
        for (const char *at = name; *at; at++)
            if (!strncasecmp(at, gpus[i], strlen(gpus[i])))
                return true;
    return false;
}

bool bench_jetson_gpu(const char *root, char *path, size_t bytes)
{
    bench_paths devices = bench_find_paths(root, "/sys/class/devfreq/*");
    bool found = false;
    for (size_t i = 0; i < devices.count && !found; i++) {
        char name[256];
        int64_t least, most;
        bench_read_text(name, sizeof name, devices.of[i], "/device/of_node/name");
        found = (names_gpu(bench_base(devices.of[i])) || names_gpu(name)) &&
                bench_read_number(&least, devices.of[i], "/min_freq") &&
                bench_read_number(&most, devices.of[i], "/max_freq") &&
                snprintf(path, bytes, "%s", devices.of[i]) < (int)bytes;
    }
    bench_paths_clear(&devices);
    return found;
}

static ei_status gpu_clock(const char *root, bench_machine *machine)
{
    char path[BENCH_PATH_BYTES], governor[64];
    int64_t least = 0, most = 0;
    if (!bench_jetson_gpu(root, path, sizeof path))
        return EI_OK;
    bench_read_number(&least, path, "/min_freq");
    bench_read_number(&most, path, "/max_freq");
    ei_status status = bench_fact_number(machine, "gpu_mhz_limit", (double)most / 1e6);
    if (!status)
        status = bench_fact_text(machine, "gpu_clocks_locked", least == most ? "yes" : "no");
    if (!status && bench_read_text(governor, sizeof governor, path, "/governor"))
        status = bench_fact_text(machine, "gpu_governor", governor);
    return status;
}

ei_status bench_jetson_describe(const char *root, bench_machine *machine)
{
    char name[64];
    if (!bench_is_jetson(root))
        return EI_OK;
    ei_status status = release(root, machine);
    if (!status && soc(root, name, sizeof name))
        status = bench_fact_text(machine, "soc", name);
    if (!status)
        status = power_mode(root, machine);
    return status ? status : gpu_clock(root, machine);
}
