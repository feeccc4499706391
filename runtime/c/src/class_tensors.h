/* SPDX-License-Identifier: Apache-2.0 */
/* A head's numbers as the graph of a teachable model takes them, and whether they fit it; as
 * `edge_imprint_runtime.class_tensors`. */
#ifndef EIP_CLASS_TENSORS_H
#define EIP_CLASS_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "contract.h"
#include "errors.h"
#include "head.h"

#define EIP_MAX_TENSORS 10

typedef struct eip_tensor {
    const char *name; /* "proxies", "head/mean", ...; a constant */
    float *data;
    int dimensions;
    int64_t shape[2];
} eip_tensor;

typedef struct eip_class_tensors {
    eip_tensor tensors[EIP_MAX_TENSORS];
    size_t count;
} eip_class_tensors;

/* Lay a head out for K slots a class. EI_HEAD_MISMATCH: a class has more than K proxies. */
ei_status eip_class_tensors_make(const eip_head *head, int32_t slots, eip_class_tensors *made);
void eip_class_tensors_clear(eip_class_tensors *made);

/* Refuse a head that a teachable model can't take (EI_HEAD_MISMATCH).
 *
 *   model  the model's contract
 *   where  the head's file, for messages */
ei_status eip_head_fits(const eip_head *head, const eip_contract *model, const char *where);

#endif
