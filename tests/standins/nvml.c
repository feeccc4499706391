/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for libnvidia-ml.so.1: two GPUs whose values are lines "key value" of the file
 * that NVML_STANDIN names, read at each call, so that a test changes them in mid-run.
 * "error" is what every call about a GPU returns, "error.KEY" what those about KEY do.
 * With -DOLD_DRIVER it lacks what drivers before 535 and 570 lack.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int index; } device;
typedef struct { unsigned int gpu, memory; } utilization;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned int version; int sensor, temperature; } temperature;

static device devices[2] = {{0}, {1}};

static unsigned long long value(const char *key, unsigned long long otherwise)
{
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    char name[64];
    unsigned long long found;
    if (!file) return otherwise;
    while (fscanf(file, "%63s %llu", name, &found) == 2)
        if (!strcmp(name, key)) otherwise = found;
    fclose(file);
    return otherwise;
}

static int status(const char *key)
{
    char name[64];
    int all = (int)value("error", 0);
    snprintf(name, sizeof name, "error.%s", key);
    return all ? all : (int)value(name, 0);
}

static int number(const device *gpu, const char *key, unsigned int *out)
{
    int failed = status(key);
    char name[64];
    if (failed) return failed;
    snprintf(name, sizeof name, "%s.%d", key, gpu->index);
    *out = (unsigned int)value(name, value(key, 0));
    return 0;
}

static int text(const char *what, int index, char *out, unsigned int size)
{
    snprintf(out, size, "%s%d", what, index);
    return 0;
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return (int)value("error.init", 0); }
int nvmlShutdown(void)
{
    const char *path = getenv("NVML_STANDIN_CLOSED");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) { fputs("closed\n", file); fclose(file); }
    return 0;
}

const char *nvmlErrorString(int code)
{
    switch (code) {
    case 3: return "Not Supported";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *out, unsigned int size)
{
    snprintf(out, size, "575.57.08");
    return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = 12090; return 0; }
int nvmlDeviceGetCount_v2(unsigned int *out) { *out = 2; return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, device **out)
{
    if (index > 1) return 2;
    *out = &devices[index];
    return status("handle");
}
int nvmlDeviceGetHandleByUUID(const char *uuid, device **out)
{
    if (strncmp(uuid, "GPU-standin-", 12)) return 6;
    return nvmlDeviceGetHandleByIndex_v2((unsigned int)atoi(uuid + 12), out);
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, device **out)
{
    return nvmlDeviceGetHandleByIndex_v2(strcmp(bus, "0000:65:00.0") ? 0 : 1, out);
}

int nvmlDeviceGetName(device *gpu, char *out, unsigned int size)
{
    return text("NVIDIA Standin ", gpu->index, out, size);
}
int nvmlDeviceGetUUID(device *gpu, char *out, unsigned int size)
{
    return text("GPU-standin-", gpu->index, out, size);
}
int nvmlDeviceGetCudaComputeCapability(device *gpu, int *major, int *minor)
{
    (void)gpu;
    *major = 8;
    *minor = 9;
    return 0;
}
int nvmlDeviceGetPersistenceMode(device *gpu, unsigned int *out)
{
    return number(gpu, "persistence", out);
}
int nvmlDeviceGetPowerManagementLimit(device *gpu, unsigned int *out)
{
    return number(gpu, "power_limit", out);
}
int nvmlDeviceGetPowerUsage(device *gpu, unsigned int *out)
{
    return number(gpu, "power", out);
}
int nvmlDeviceGetPerformanceState(device *gpu, unsigned int *out)
{
    return number(gpu, "pstate", out);
}
int nvmlDeviceGetClockInfo(device *gpu, unsigned int kind, unsigned int *out)
{
    return number(gpu, kind == 1 ? "sm_clock" : kind == 2 ? "memory_clock" : "clock", out);
}
int nvmlDeviceGetMaxClockInfo(device *gpu, unsigned int kind, unsigned int *out)
{
    return number(gpu, kind == 1 ? "sm_clock_max" : "clock_max", out);
}
int nvmlDeviceGetUtilizationRates(device *gpu, utilization *out)
{
    out->memory = 0;
    return number(gpu, "load", &out->gpu);
}
int nvmlDeviceGetMemoryInfo(device *gpu, memory *out)
{
    (void)gpu;
    out->total = value("memory_total", 0);
    out->used = value("memory_used", 0);
    out->free = out->total - out->used;
    return status("memory");
}
int nvmlDeviceGetTemperature(device *gpu, unsigned int sensor, unsigned int *out)
{
    return sensor ? 2 : number(gpu, "temperature", out);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(device *gpu, unsigned long long *out)
{
    (void)gpu;
    *out = value("reasons", 0);
    return status("reasons");
}
#ifndef OLD_DRIVER
int nvmlDeviceGetTemperatureV(device *gpu, temperature *out)
{
    return number(gpu, "temperature", (unsigned int *)&out->temperature);
}
int nvmlDeviceGetCurrentClocksEventReasons(device *gpu, unsigned long long *out)
{
    (void)gpu;
    *out = value("reasons", 0);
    return status("reasons");
}
#endif
