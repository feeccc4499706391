/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors: the container of a head file. Reading trusts nothing. */
#ifndef EIP_SAFETENSORS_H
#define EIP_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "contract.h"
#include "errors.h"

/* The arrays that a head file may hold: the others are refused. */
typedef enum {
    EIP_PROXIES,      /* F32 (P, E), required */
    EIP_CLASS_INDEX,  /* I64 (P), required */
    EIP_CENTER,       /* F32 (D) */
    EIP_TRANSFORM,    /* F32 (D, E) */
    EIP_METRIC,       /* F32 (E, F) */
    EIP_THRESHOLD,    /* F32 (C) */
    EIP_SAMPLES,      /* F32 (S, D) */
    EIP_SAMPLE_CLASS, /* I64 (S) */
    EIP_HOST_PROXIES, /* I64 (C) */
    EIP_ARRAYS
} eip_array_name;

typedef struct eip_array {
    const void *data; /* NULL: not there. Reading: into the file's bytes, of any alignment */
    int dimensions;
    uint64_t shape[2];
} eip_array;

/* Read a head file's bytes.
 *
 * Refused with EI_HEAD_FILE: a header length beyond the file or above 100 MB, JSON that is none or
 * deeper than a header, duplicate keys, unknown arrays or types, offsets that overlap, leave holes
 * or lie outside, shapes that are not what the bytes fill, required arrays that are missing.
 *
 *   arrays    EIP_ARRAYS of them; they point into data
 *   metadata  filled (to be cleared by the caller, also after a failure) */
ei_status eip_safetensors_read(const void *data, size_t bytes, eip_array *arrays,
                               eip_metadata *metadata);

/* Write a head file, byte for byte as `edge_imprint_runtime.head_file.dump_arrays` does.
 *
 *   written, bytes  become the file's content, to be freed */
ei_status eip_safetensors_write(const eip_array *arrays, const eip_metadata *metadata,
                                void **written, size_t *bytes);

#endif
