/* SPDX-License-Identifier: Apache-2.0 */
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/types.h>
#include <unistd.h>

int faults_failed;
char faults_called[4096];

void *__real_calloc(size_t count, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes);

static long fail_at, fail_at_next; /* counted down; 0: none fails */

static int fails(void)
{
    int now = fail_at > 0 && --fail_at == 0;
    faults_failed |= now;
    return now;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : __real_calloc(count, bytes);
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    return fails() ? ENOMEM : __real_posix_memalign(memory, alignment, bytes);
}

/* ---------------------------------------------------------------------- the kernel's part -- */

enum { READ, WRITE, FSYNC, CLOSE, RENAMEAT, FCHMOD, FCHOWN, GETRANDOM, OPENAT, CALLS };
static const char *const calls[CALLS] = {"read",   "write",  "fsync",     "close", "renameat",
                                         "fchmod", "fchown", "getrandom", "openat"};
static int fault_errno[CALLS], fault_count[CALLS], fault_errno_next[CALLS];
static int fault_count_next[CALLS];
static size_t most_bytes = SIZE_MAX, most_bytes_next = SIZE_MAX;

static int faulty(int call)
{
    if (strlen(faults_called) + 16 < sizeof faults_called)
        strcat(strcat(faults_called, *faults_called ? " " : ""), calls[call]);
    if (!fault_count[call])
        return 0;
    fault_count[call]--;
    errno = fault_errno[call];
    return 1;
}

#define WRAP(type, name, parameters) \
    type __real_##name parameters;   \
    type __wrap_##name parameters;   \
    type __wrap_##name parameters

WRAP(ssize_t, read, (int file, void *to, size_t bytes))
{
    return faulty(READ) ? -1
                        : __real_read(file, to, bytes < most_bytes ? bytes : most_bytes);
}

WRAP(ssize_t, write, (int file, const void *from, size_t bytes))
{
    return faulty(WRITE) ? -1
                         : __real_write(file, from, bytes < most_bytes ? bytes : most_bytes);
}

WRAP(int, fsync, (int file))
{
    return faulty(FSYNC) ? -1 : __real_fsync(file);
}

/* As Linux does it: the file is closed, even where that tells of a failure. */
WRAP(int, close, (int file))
{
    int done = __real_close(file);
    return faulty(CLOSE) ? -1 : done;
}

WRAP(int, renameat, (int from_folder, const char *from, int to_folder, const char *to))
{
    return faulty(RENAMEAT) ? -1 : __real_renameat(from_folder, from, to_folder, to);
}

WRAP(int, fchmod, (int file, mode_t mode))
{
    return faulty(FCHMOD) ? -1 : __real_fchmod(file, mode);
}

WRAP(int, fchown, (int file, uid_t user, gid_t group))
{
    return faulty(FCHOWN) ? -1 : __real_fchown(file, user, group);
}

WRAP(ssize_t, getrandom, (void *to, size_t bytes, unsigned flags))
{
    return faulty(GETRANDOM) ? -1 : __real_getrandom(to, bytes, flags);
}

WRAP(int, openat, (int folder, const char *path, int flags, ...))
{
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    return faulty(OPENAT) ? -1 : __real_openat(folder, path, flags, mode);
}
/* ------------------------------------------------------------------------- what is wanted -- */

void faults_fail(long at)
{
    fail_at_next = at;
}

int faults_of_call(const char *name, int number, int count)
{
    for (int call = 0; call < CALLS; call++)
        if (strcmp(calls[call], name) == 0) {
            fault_errno_next[call] = number;
            fault_count_next[call] = count;
            return 1;
        }
    return 0;
}

void faults_short(size_t bytes)
{
    most_bytes_next = bytes;
}

void faults_begin(void)
{
    fail_at = fail_at_next;
    memcpy(fault_errno, fault_errno_next, sizeof fault_errno);
    memcpy(fault_count, fault_count_next, sizeof fault_count);
    most_bytes = most_bytes_next;
    faults_failed = 0;
    *faults_called = 0;
}

void faults_end(void)
{
    memset(fault_count, 0, sizeof fault_count);
    memset(fault_count_next, 0, sizeof fault_count_next);
    fail_at = fail_at_next = 0;
    most_bytes = most_bytes_next = SIZE_MAX;
}
