/* SPDX-License-Identifier: Apache-2.0 */
#include "sysfiles.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t read_some(int file, char *data, size_t bytes)
{
    size_t taken = 0;
    while (taken < bytes) {
        ssize_t got = read(file, data + taken, bytes - taken);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        taken += (size_t)got;
    }
    return taken;
}

static bool is_blank(char byte)
{
    return byte == 0 || isspace((unsigned char)byte);
}

static size_t read_at(char *text, size_t bytes, const char *root, const char *format,
                      va_list arguments)
{
    char path[BENCH_PATH_BYTES];
    int length = snprintf(path, sizeof path, "%s", root);
    *text = 0;
    if (length < 0 || (size_t)length >= sizeof path)
        return 0;
    int more = vsnprintf(path + length, sizeof path - (size_t)length, format, arguments);
    if (more < 0 || (size_t)(length + more) >= sizeof path)
        return 0;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return 0;
    size_t count = read_some(file, text, bytes - 1), first = 0;
    close(file);
    while (first < count && is_blank(text[first]))
        first++;
    while (count > first && is_blank(text[count - 1]))
        count--;
    memmove(text, text + first, count - first);
    text[count - first] = 0;
    return count - first;
}

size_t bench_read_text(char *text, size_t bytes, const char *root, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = read_at(text, bytes, root, format, arguments);
    va_end(arguments);
    return length;
}

bool bench_read_number(int64_t *number, const char *root, const char *format, ...)
{
    char text[64], *end;
    va_list arguments;
    va_start(arguments, format);
    size_t length = read_at(text, sizeof text, root, format, arguments);
    va_end(arguments);
    if (!length)
        return false;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end)
        return false;
    *number = value;
    return true;
}

char *bench_read_long(const char *root, const char *path)
{
    char whole[BENCH_PATH_BYTES];
    if (snprintf(whole, sizeof whole, "%s%s", root, path) >= (int)sizeof whole)
        return NULL;
    int file = open(whole, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return NULL;
    /* Files of the kernel tell no size; ones above 16 MB are none that is meant here. */
    size_t room = 1 << 14, taken = 0;
    char *text = NULL;
    for (; room <= 1 << 24; room *= 2) {
        char *larger = realloc(text, room);
        if (!larger)
            break;
        text = larger;
        taken += read_some(file, text + taken, room - 1 - taken);
        if (taken < room - 1)
            break;
    }
    close(file);
    if (text)
        text[taken] = 0;
    return text;
}

bool bench_line_number(const char *text, const char *key, double *number)
{
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) || line[length] != ':')
            continue;
        char *end;
        *number = strtod(line + length + 1, &end);
        return end != line + length + 1;
    }
    return false;
}

bench_paths bench_find_paths(const char *root, const char *pattern)
{
    bench_paths paths = {0};
    char whole[BENCH_PATH_BYTES];
    glob_t *found = calloc(1, sizeof *found);
    if (!found || snprintf(whole, sizeof whole, "%s%s", root, pattern) >= (int)sizeof whole ||
        glob(whole, 0, NULL, found)) {
        free(found);
        return paths;
    }
    paths.of = found->gl_pathv;
    paths.count = found->gl_pathc;
    paths.held = found;
    return paths;
}

void bench_paths_clear(bench_paths *paths)
{
    if (paths->held) {
        globfree(paths->held);
        free(paths->held);
    }
    *paths = (bench_paths){0};
}

const char *bench_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
