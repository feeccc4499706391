/* SPDX-License-Identifier: Apache-2.0 */
/* Files: read whole, written beside and renamed. */
#ifndef EIP_FILES_H
#define EIP_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

/* Read a regular file whole into memory aligned to 64 bytes, to be freed.
 *
 *   limit    the most bytes that are taken; more is `status`
 *   status   what a failure is called: EI_HEAD_FILE, EI_FILE_MISSING, ... */
ei_status eip_read_file(const char *path, size_t limit, ei_status status, void **data,
                        size_t *bytes);

/* Write a file atomically: beside, fsync, rename, fsync of the folder; what was there keeps its
 * permissions. A link is followed. The temporary file's name begins with a dot and ends in .tmp,
 * and it is removed after a failure. Fails with EI_WRITE_FAILED. */
ei_status eip_write_file(const char *path, const void *data, size_t bytes);

/* Which file lies under a name, and as of when; equal: nobody replaced or wrote it between. */
typedef struct eip_stamp {
    uint64_t device, number, bytes;
    int64_t changed_s, changed_ns;
} eip_stamp;

/* All zero where there is none. */
eip_stamp eip_stamp_of(const char *path);

/* Whether anything of that name is there, a link that leads nowhere included. */
bool eip_exists(const char *path);

#endif
