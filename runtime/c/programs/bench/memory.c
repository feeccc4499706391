/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sysfiles.h"

/* Return a line of /proc/self/status in bytes, or -1. */
static int64_t status_bytes(const char *key)
{
    double kilobytes;
    char *text = bench_read_long("", "/proc/self/status");
    int64_t bytes =
        text && bench_line_number(text, key, &kilobytes) ? (int64_t)kilobytes * 1024 : -1;
    free(text);
    return bytes;
}

void bench_memory_before(bench_memory *memory)
{
    /* The peak begins anew (man 5 proc); some sandboxes don't let it. */
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t written = write(file, "5", 1);
        (void)written;
        close(file);
    }
    memory->before_bytes = status_bytes("VmRSS");
    memory->open_bytes = memory->peak_bytes = -1;
}

void bench_memory_opened(bench_memory *memory)
{
    memory->open_bytes = status_bytes("VmRSS");
}

void bench_memory_peaked(bench_memory *memory)
{
    int64_t now = status_bytes("VmRSS");
    struct rusage used;
    memory->peak_bytes = status_bytes("VmHWM");
    if (memory->peak_bytes < 0 && !getrusage(RUSAGE_SELF, &used))
        memory->peak_bytes = (int64_t)used.ru_maxrss * 1024;
    memory->peak_bytes = memory->peak_bytes < now ? now : memory->peak_bytes;
}
