/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_getaffinity, gnu_get_libc_version */
#include "machine.h"

#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include "sysfiles.h"

#define TEXT_BYTES 512

/* What decides how fast 8-bit and half-precision arithmetic is, of all that a CPU tells. */
static const char *const features[] = {
    "avx2",        "fma",         "avx512f",  "avx512bw", "avx_vnni", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimd",    "asimdhp",
    "asimddp",     "i8mm",        "bf16",     "sve",      "sve2",
};

/* ARM's kernel tells a number and no name, as the architecture's MIDR has it. */
static const struct {
    const char *implementer, *part, *name;
} arm_cores[] = {
    {"0x41", "0xd03", "Cortex-A53"},    {"0x41", "0xd05", "Cortex-A55"},
    {"0x41", "0xd07", "Cortex-A57"},    {"0x41", "0xd08", "Cortex-A72"},
    {"0x41", "0xd0b", "Cortex-A76"},    {"0x41", "0xd0c", "Neoverse-N1"},
    {"0x41", "0xd40", "Neoverse-V1"},   {"0x41", "0xd42", "Cortex-A78AE"},
    {"0x41", "0xd49", "Neoverse-N2"},   {"0x41", "0xd4f", "Neoverse-V2"},
    {"0x41", "0xd83", "Neoverse-V3AE"}, {"0x4e", "0x003", "Denver 2"},
    {"0x4e", "0x004", "Carmel"},
};

/* ---------------------------------------------------------------------------------- CPU -- */

/* Copy a value of the kernel's lines about the first processor; "" where it tells none. */
static void cpu_value(const char *cpuinfo, const char *key, char *value, size_t bytes)
{
    size_t length = strlen(key);
    *value = 0;
    for (const char *line = cpuinfo; line && *line && *line != '\n';) {
        const char *end = strchr(line, '\n'), *colon = line + length;
        size_t rest = end ? (size_t)(end - line) : strlen(line);
        if (rest > length && !strncmp(line, key, length)) {
            while (*colon == ' ' || *colon == '\t')
                colon++;
            if (*colon == ':') {
                const char *from = colon + 1, *to = line + rest;
                while (from < to && isspace((unsigned char)*from))
                    from++;
                while (to > from && isspace((unsigned char)to[-1]))
                    to--;
                snprintf(value, bytes, "%.*s", (int)(to - from), from);
                return;
            }
        }
        line = end ? end + 1 : NULL;
    }
}

static void cpu_model(const char *cpuinfo, char *model, size_t bytes)
{
    char implementer[32], part[32];
    cpu_value(cpuinfo, "CPU implementer", implementer, sizeof implementer);
    cpu_value(cpuinfo, "CPU part", part, sizeof part);
    for (size_t i = 0; i < sizeof arm_cores / sizeof *arm_cores; i++)
        if (!strcmp(implementer, arm_cores[i].implementer) && !strcmp(part, arm_cores[i].part)) {
            snprintf(model, bytes, "%s", arm_cores[i].name);
            return;
        }
    cpu_value(cpuinfo, "model name", model, bytes);
}

/* Whether a word stands in a list of words. */
static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += length)
        if ((at == words || at[-1] == ' ') && (!at[length] || at[length] == ' '))
            return true;
    return false;
}

static void cpu_features(const char *flags, char *text, size_t bytes)
{
    size_t used = 0;
    *text = 0;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (has_word(flags, features[i]))
            used += (size_t)snprintf(text + used, bytes - used, "%s%s", used ? " " : "",
                                     features[i]);
}

static void virtual_machine(const char *root, const char *flags, char *text, size_t bytes)
{
    size_t length = bench_read_text(text, bytes, root, "/proc/device-tree/hypervisor/compatible");
    for (size_t i = 0; i < length; i++)
        if (!text[i])
            text[i] = ' ';
    if (length || !has_word(flags, "hypervisor"))
        return;
    size_t used = bench_read_text(text, bytes, root, "/sys/class/dmi/id/sys_vendor");
    char product[128];
    if (bench_read_text(product, sizeof product, root, "/sys/class/dmi/id/product_name"))
        snprintf(text + used, bytes - used, "%s%s", used ? " " : "", product);
    if (!*text)
        snprintf(text, bytes, "yes");
}

/* How many cores there are that share nothing; 0 where the kernel does not say. */
static int cores_physical(const char *root)
{
    bench_paths cores =
        bench_find_paths(root, "/sys/devices/system/cpu/cpu[0-9]*/topology/core_cpus_list");
    if (!cores.count) {
        bench_paths_clear(&cores);
        cores = bench_find_paths(
            root, "/sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list");
    }
    int count = 0;
    for (size_t i = 0; i < cores.count; i++) {
        char text[256], other[256];
        bool first = bench_read_text(text, sizeof text, cores.of[i], "%s", "") > 0;
        for (size_t j = 0; j < i && first; j++)
            first = !bench_read_text(other, sizeof other, cores.of[j], "%s", "") ||
                    strcmp(text, other) != 0;
        count += first;
    }
    bench_paths_clear(&cores);
    return count;
}

/* ----------------------------------------------------------------------------- software -- */

/* Name what this runs in, by the marks that containers leave; NULL outside of one. */
static const char *container(const char *root)
{
    static const char *const names[] = {"docker", "kubepods", "containerd", "podman", "lxc"};
    char path[BENCH_PATH_BYTES];
    snprintf(path, sizeof path, "%s/.dockerenv", root);
    if (!access(path, F_OK))
        return "docker";
    snprintf(path, sizeof path, "%s/run/.containerenv", root);
    if (!access(path, F_OK))
        return "podman";
    char groups[4096];
    bench_read_text(groups, sizeof groups, root, "/proc/1/cgroup");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(groups, names[i]))
            return names[i];
    return NULL;
}

/* "Linux-6.8.0-x86_64-with-glibc2.36", as Python's platform.platform(). */
static void system_name(char *text, size_t bytes)
{
    struct utsname name;
    *text = 0;
    if (uname(&name))
        return;
    int used = snprintf(text, bytes, "%s-%s-%s", name.sysname, name.release, name.machine);
#ifdef __GLIBC__
    if (used > 0 && (size_t)used < bytes)
        snprintf(text + used, bytes - (size_t)used, "-with-glibc%s", gnu_get_libc_version());
#endif
    for (char *at = text; *at; at++)
        if (*at == ' ')
            *at = '_';
}

/* Whether a version says more than another: it has more parts, or is later in the alphabet. */
static bool longer(const char *version, const char *than)
{
    int parts = 0, others = 0;
    for (const char *at = version; *at; at++)
        parts += *at == '.';
    for (const char *at = than; *at; at++)
        others += *at == '.';
    return parts != others ? parts > others : strcmp(version, than) > 0;
}

/* Read a version off the longest of a library's names: libnvinfer.so.10.3.0. */
static void library_version(const char *root, const char *name, char *version, size_t bytes)
{
    static const char *const folders[] = {"/usr/lib/*-linux-gnu", "/usr/lib64",
                                          "/usr/local/cuda/lib64", "/usr/lib"};
    *version = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char pattern[256];
        snprintf(pattern, sizeof pattern, "%s/%s.so.*", folders[i], name);
        bench_paths files = bench_find_paths(root, pattern);
        for (size_t j = 0; j < files.count; j++) {
            const char *found = strstr(bench_base(files.of[j]), ".so.") + 4;
            if (*found && !found[strspn(found, "0123456789.")] && strlen(found) < bytes &&
                longer(found, version))
                snprintf(version, bytes, "%s", found);
        }
        bench_paths_clear(&files);
    }
}

/* Take "version" of "cuda" out of the toolkit's version.json, without a parser for its few lines;
 * what looks otherwise is passed over. */
static void toolkit_version(const char *root, char *version, size_t bytes)
{
    char text[16384];
    *version = 0;
    bench_read_text(text, sizeof text, root, "/usr/local/cuda/version.json");
    const char *at = strstr(text, "\"cuda\"");
    const char *end = at ? strchr(at, '}') : NULL;
    at = at ? strstr(at, "\"version\"") : NULL;
    at = at && end && at < end ? strchr(at, ':') : NULL;
    at = at ? strchr(at, '"') : NULL;
    size_t length = at ? strspn(at + 1, "0123456789.") : 0;
    if (length && length < bytes && at[1 + length] == '"')
        snprintf(version, bytes, "%.*s", (int)length, at + 1);
}

static ei_status libraries(const char *root, bench_machine *machine)
{
    static const char *const names[][2] = {
        {"cuda", "libcudart"}, {"cudnn", "libcudnn"}, {"tensorrt", "libnvinfer"}};
    ei_status status = EI_OK;
    for (size_t i = 0; i < 3 && !status; i++) {
        char version[64] = "";
        if (i == 0)
            toolkit_version(root, version, sizeof version);
        if (!*version)
            library_version(root, names[i][1], version, sizeof version);
        if (*version)
            status = bench_fact_text(machine, names[i][0], version);
    }
    return status;
}

/* -------------------------------------------------------------------------------- facts -- */

static ei_status memory(const char *root, bench_machine *machine)
{
    double kilobytes[3] = {0};
    static const char *const keys[] = {"MemAvailable", "SwapTotal", "SwapFree"};
    char *text = bench_read_long(root, "/proc/meminfo");
    bool known[3];
    for (int i = 0; i < 3; i++)
        known[i] = text && bench_line_number(text, keys[i], &kilobytes[i]);
    free(text);
    ei_status status = EI_OK;
    int physical = cores_physical(root);
    if (physical)
        status = bench_fact_whole(machine, "cores_physical", physical);
    if (!status && known[0])
        status = bench_fact_whole(machine, "memory_available_bytes", kilobytes[0] * 1024);
    if (!status && known[1])
        status = bench_fact_whole(machine, "swap_bytes", kilobytes[1] * 1024);
    if (!status && known[1] && known[2])
        status = bench_fact_whole(machine, "swap_used_bytes",
                                  (kilobytes[1] - kilobytes[2]) * 1024);
    return status;
}

static ei_status clocks(const char *root, bench_machine *machine)
{
    bench_paths policies =
        bench_find_paths(root, "/sys/devices/system/cpu/cpufreq/policy[0-9]*");
    int64_t top = 0, low, high, boost;
    bool known = false, locked = true;
    for (size_t i = 0; i < policies.count; i++) {
        if (!bench_read_number(&low, policies.of[i], "/scaling_min_freq") ||
            !bench_read_number(&high, policies.of[i], "/scaling_max_freq"))
            continue;
        known = true;
        locked = locked && low == high;
        top = high > top ? high : top;
    }
    bench_paths_clear(&policies);
    ei_status status = EI_OK;
    if (known) {
        status = bench_fact_number(machine, "cpu_mhz_limit", (double)top / 1e3);
        if (!status)
            status = bench_fact_text(machine, "cpu_clocks_locked", locked ? "yes" : "no");
    }
    int64_t none;
    bool off = bench_read_number(&none, root, "/sys/devices/system/cpu/intel_pstate/no_turbo");
    if (!status &&
        bench_read_number(&boost, root, "/sys/devices/system/cpu/cpufreq/boost"))
        status = bench_fact_text(machine, "cpu_boost", !!boost != off ? "on" : "off");
    else if (!status && off)
        status = bench_fact_text(machine, "cpu_boost", none ? "off" : "on");
    return status;
}

static ei_status quota(const char *root, bench_machine *machine)
{
    char text[64];
    long long allowed, period;
    bench_read_text(text, sizeof text, root, "/sys/fs/cgroup/cpu.max");
    if (sscanf(text, "%lld %lld", &allowed, &period) != 2 || period <= 0)
        return EI_OK;
    return bench_fact_number(machine, "cores_quota", (double)allowed / (double)period);
}

/* NVIDIA's driver names its GPUs in files, without a library. */
static ei_status gpu(const char *root, bench_machine *machine)
{
    bench_paths told = bench_find_paths(root, "/proc/driver/nvidia/gpus/*/information");
    ei_status status = EI_OK;
    if (told.count) {
        char text[2048], name[TEXT_BYTES];
        bench_read_text(text, sizeof text, told.of[0], "%s", "");
        cpu_value(text, "Model", name, sizeof name);
        if (*name)
            status = bench_fact_text(machine, "gpu_name", name);
        if (!status)
            status = bench_fact_whole(machine, "gpu_count", (double)told.count);
    }
    bench_paths_clear(&told);
    return status;
}

static ei_status always(const char *root, bench_machine *machine)
{
    char text[TEXT_BYTES], flags[8192];
    struct utsname system = {0};
    cpu_set_t usable;
    double load;
    uname(&system);
    char *cpuinfo = bench_read_long(root, "/proc/cpuinfo");
    const char *cpu = cpuinfo ? cpuinfo : "";
    bench_read_text(text, sizeof text, root, "/proc/device-tree/model");
    ei_status status = bench_fact_text(machine, "board", text);
    cpu_model(cpu, text, sizeof text);
    status = status ? status : bench_fact_text(machine, "cpu_model", text);
    status = status ? status : bench_fact_text(machine, "architecture", system.machine);
    if (!status && !sched_getaffinity(0, sizeof usable, &usable))
        status = bench_fact_whole(machine, "cores_usable", CPU_COUNT(&usable));
    long cores = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
    if (!status && cores > 0)
        status = bench_fact_whole(machine, "cores", (double)cores);
    if (!status && pages > 0)
        status = bench_fact_whole(machine, "memory_bytes",
                                  (double)pages * (double)sysconf(_SC_PAGE_SIZE));
    if (!status && getloadavg(&load, 1) == 1) {
        snprintf(text, sizeof text, "%.2f", load);
        status = bench_fact_number(machine, "load_average_1min", strtod(text, NULL));
    }
    bench_read_text(text, sizeof text, root, "/sys/devices/system/cpu/cpu0/cpufreq/%s",
                    "scaling_governor");
    status = status ? status : bench_fact_text(machine, "cpu_governor", text);
    cpu_value(cpu, "flags", flags, sizeof flags);
    if (!*flags)
        cpu_value(cpu, "Features", flags, sizeof flags);
    cpu_features(flags, text, sizeof text);
    status = status ? status : bench_fact_text(machine, "cpu_features", text);
    virtual_machine(root, flags, text, sizeof text);
    status = status ? status : bench_fact_text(machine, "virtual_machine", text);
    status = status ? status : bench_fact_text(machine, "container", container(root));
    free(cpuinfo);
    return status;
}

ei_status bench_machine_describe(const char *root, bench_machine *machine)
{
    ei_status status = always(root, machine);
    struct statvfs disk;
    char text[TEXT_BYTES];
    if (!status && !statvfs(".", &disk))
        status = bench_fact_whole(machine, "disk_free_bytes",
                                  (double)disk.f_bavail * (double)disk.f_frsize);
    system_name(text, sizeof text);
    status = status ? status : bench_fact_text(machine, "system", text);
    status = status ? status : bench_fact_text(machine, "edge-imprint", ei_version());
    status = status ? status : bench_jetson_describe(root, machine);
    status = status ? status : memory(root, machine);
    status = status ? status : clocks(root, machine);
    status = status ? status : quota(root, machine);
    status = status ? status : gpu(root, machine);
    return status ? status : libraries(root, machine);
}
