/* SPDX-License-Identifier: Apache-2.0 */
/* A head: proxies, labels, a rule; as `edge_imprint_runtime.Head`. Does not change once made. */
#ifndef EIP_HEAD_H
#define EIP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "contract.h"
#include "errors.h"
#include "safetensors.h"

typedef struct eip_head {
    eip_metadata metadata; /* as read; `labels` in it are those of the contract */
    eip_contract contract; /* into the metadata */
    size_t proxy_count;    /* P */
    size_t width;          /* E, length of a proxy */
    size_t metric_width;   /* F; 0 without metric */
    const float *proxies;  /* (P, E), sorted by class */
    const int64_t *class_index; /* (P) ascending */
    const float *center;    /* (D) or NULL, likewise the following */
    const float *transform; /* (D, E) */
    const float *metric;    /* (E, F) */
    const float *threshold; /* (C) */
    size_t sample_count;    /* S */
    const float *samples;   /* (S, D) */
    const int64_t *sample_class; /* (S) */
    const int64_t *host_proxies; /* (C) */
    void *owned[EIP_ARRAYS + 1]; /* what is freed with it; the last is the file's bytes */
} eip_head;

/* Read a head file that lies in memory.
 *
 *   data   the file's bytes, as eip_read_file gave them: taken over, freed with the head or
 *          after a failure
 *   where  its name, for messages
 *
 * Fails with EI_HEAD_FILE, EI_HEAD_VALUE, EI_NO_CONTRACT to EI_LABEL_COUNT, EI_OUT_OF_MEMORY. */
ei_status eip_head_read(void *data, size_t bytes, const char *where, eip_head **head);

/* Read a head file. */
ei_status eip_head_load(const char *path, eip_head **head);

/* Write its bytes, the very ones that Python writes. To be freed. */
ei_status eip_head_write(const eip_head *head, void **written, size_t *bytes);

/* Free; NULL is let pass. */
void eip_head_free(eip_head *head);

/* Return where a class's proxies begin and how many there are. */
size_t eip_head_first(const eip_head *head, size_t class_, size_t *count);

/* Return a class's position, or contract.classes where there is none. */
size_t eip_head_find(const eip_head *head, const char *label);

#endif
