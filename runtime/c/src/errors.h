/* SPDX-License-Identifier: Apache-2.0 */
/* What all files share: the thread's last error, and allocations that report themselves.
 *
 * Names: ei_ is public, eip_ is private to the library. */
#ifndef EIP_ERRORS_H
#define EIP_ERRORS_H

#include <stddef.h>

#include "edge_imprint.h"

#define EIP_MAX_ERROR 1024

/* Set the thread's last error, cut to EIP_MAX_ERROR bytes, and return `status`. */
ei_status eip_fail(ei_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Put "WHERE: " before the thread's last error, and return `status`; nothing where it is EI_OK. */
ei_status eip_where(ei_status status, const char *where);

/* Allocate zeroed memory for count * bytes; NULL sets EI_OUT_OF_MEMORY's error. One byte at least,
 * so that NULL is always a failure. */
void *eip_allocate(size_t count, size_t bytes);

/* Allocate memory for large arrays, aligned to 64 bytes, not zeroed; free() gives it back. NULL
 * sets the error. */
void *eip_allocate_array(size_t count, size_t bytes);

/* Copy text; NULL sets the error. */
char *eip_copy_text(const char *text);

#endif
