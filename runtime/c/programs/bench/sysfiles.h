/* SPDX-License-Identifier: Apache-2.0 */
/* Small files of the kernel: /proc, /sys, the device tree. `root` stands before their paths, ""
 * but in tests. */
#ifndef BENCH_SYSFILES_H
#define BENCH_SYSFILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_PATH_BYTES 4096

/* Read a file whole, as much of it as there is room for; its blanks, line ends and NULs at either
 * end are taken off. Return the length; 0 where it can't be read, or is empty. */
size_t bench_read_text(char *text, size_t bytes, const char *root, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Read a whole number that stands alone in a file; false where there is none. */
bool bench_read_number(int64_t *number, const char *root, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Read a file of any length whole; NUL-terminated, to be freed; NULL where it can't be read. */
char *bench_read_long(const char *root, const char *path);

/* Return the line "KEY: 123 kB" of a text as a number; false where there is none. */
bool bench_line_number(const char *text, const char *key, double *number);

/* Paths that match a pattern, in order; `root` is part of them. */
typedef struct bench_paths {
    char **of;
    size_t count;
    void *held;
} bench_paths;

bench_paths bench_find_paths(const char *root, const char *pattern);
void bench_paths_clear(bench_paths *paths);

/* Return what stands behind a path's last slash. */
const char *bench_base(const char *path);

#endif
