/* SPDX-License-Identifier: Apache-2.0 */
#include "lists.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

bool bench_grow(void *list, size_t count, size_t *capacity, size_t bytes)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity ? 2 * *capacity : 8;
    void *old, *larger;
    memcpy(&old, list, sizeof old);
    larger = wanted <= SIZE_MAX / bytes ? realloc(old, wanted * bytes) : NULL;
    if (!larger) {
        eip_fail(EI_OUT_OF_MEMORY, "there is not enough memory for %zu x %zu bytes; free some",
                 wanted, bytes);
        return false;
    }
    memcpy(list, &larger, sizeof larger);
    *capacity = wanted;
    return true;
}

ei_status bench_longs_reserve(bench_longs *list, size_t count)
{
    if (count <= list->capacity)
        return EI_OK;
    int64_t *larger = realloc(list->values, count * sizeof *larger);
    if (!larger)
        return eip_fail(EI_OUT_OF_MEMORY,
                        "there is not enough memory for %zu samples; free some", count);
    memset(larger + list->count, 0, (count - list->count) * sizeof *larger);
    list->values = larger;
    list->capacity = count;
    return EI_OK;
}

ei_status bench_longs_add(bench_longs *list, int64_t value)
{
    if (!bench_grow(&list->values, list->count, &list->capacity, sizeof *list->values))
        return EI_OUT_OF_MEMORY;
    list->values[list->count++] = value;
    return EI_OK;
}

void bench_longs_clear(bench_longs *list)
{
    free(list->values);
    *list = (bench_longs){0};
}

int64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

char *bench_text(const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    char *text = length < 0 ? NULL : eip_allocate((size_t)length + 1, 1);
    if (text)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    return text;
}
