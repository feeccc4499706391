/* SPDX-License-Identifier: Apache-2.0 */
#include "errors.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

static _Thread_local char last_error[EIP_MAX_ERROR];

ei_status eip_fail(ei_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    /* By way of a copy: an argument may be the last error itself. */
    char text[EIP_MAX_ERROR];
    int bytes = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (bytes >= (int)sizeof text) { /* cut: not within a character */
        size_t end = sizeof text - 1;
        while (end && ((unsigned char)text[end - 1] & 0xc0) == 0x80)
            end--;
        if (end && (unsigned char)text[end - 1] >= 0xc0)
            end--;
        text[end] = 0;
    }
    memcpy(last_error, text, sizeof text);
    return status;
}

ei_status eip_where(ei_status status, const char *where)
{
    if (status == EI_OK || !where || !*where)
        return status;
    return eip_fail(status, "%s: %s", where, last_error);
}

const char *ei_last_error(void)
{
    return last_error;
}

const char *ei_version(void)
{
    return EI_VERSION_TEXT;
}

const char *ei_status_name(ei_status status)
{
#define NAME(value) \
    case value:     \
        return #value
    switch (status) {
        NAME(EI_OK);
        NAME(EI_INVALID_ARGUMENT);
        NAME(EI_CLOSED_MODEL);
        NAME(EI_OUT_OF_MEMORY);
        NAME(EI_LIBRARY_MISSING);
        NAME(EI_LIBRARY_TOO_OLD);
        NAME(EI_PROVIDER);
        NAME(EI_RUN_FAILED);
        NAME(EI_DEVICE);
        NAME(EI_DEVICE_MEMORY);
        NAME(EI_FILE_MISSING);
        NAME(EI_MODEL_FILE);
        NAME(EI_UNSAFE_MODEL);
        NAME(EI_NO_CONTRACT);
        NAME(EI_CONTRACT_VERSION);
        NAME(EI_CONTRACT_KEY);
        NAME(EI_CONTRACT_VALUE);
        NAME(EI_LABEL_COUNT);
        NAME(EI_INPUT_SIZE);
        NAME(EI_INPUT_STRIDE);
        NAME(EI_INPUT_FORMAT);
        NAME(EI_INPUT_VALUE);
        NAME(EI_OUTPUT_MISSING);
        NAME(EI_NON_FINITE);
        NAME(EI_NOT_TEACHABLE);
        NAME(EI_HEAD_FILE);
        NAME(EI_HEAD_VALUE);
        NAME(EI_HEAD_MISMATCH);
        NAME(EI_ZERO_EMBEDDING);
        NAME(EI_NO_SUCH_CLASS);
        NAME(EI_NO_ROOM);
        NAME(EI_WRITE_FAILED);
    }
#undef NAME
    return "unknown status";
}

static void *no_memory(size_t count, size_t bytes)
{
    eip_fail(EI_OUT_OF_MEMORY, "there is not enough memory for %zu x %zu bytes; free some",
             count, bytes);
    return NULL;
}

void *eip_allocate(size_t count, size_t bytes)
{
    void *memory = calloc(count ? count : 1, bytes ? bytes : 1);
    return memory ? memory : no_memory(count, bytes);
}

void *eip_allocate_array(size_t count, size_t bytes)
{
    if (bytes && count > (SIZE_MAX - 64) / bytes)
        return no_memory(count, bytes);
    size_t size = (count * bytes + 63) / 64 * 64;
    bool large = size >= 2 * HUGE_PAGE;
    void *memory = NULL;
    if (posix_memalign(&memory, large ? HUGE_PAGE : 64, size ? size : 64))
        return no_memory(count, bytes);
    /* Filling 40 MB then costs twenty page faults instead of 10,000. Where there are none: well. */
    if (large)
        madvise(memory, size / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return memory;
}

char *eip_copy_text(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = eip_allocate(bytes, 1);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}
