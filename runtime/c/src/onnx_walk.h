/* SPDX-License-Identifier: Apache-2.0 */
/* One walk through an ONNX file, of which onnx_scan.c knows the graphs and onnx_tensor.c the
 * tensors. */
#ifndef EIP_ONNX_WALK_H
#define EIP_ONNX_WALK_H

#include "protobuf.h"

#define EIP_MAX_FILE_BYTES 0x7fffffffU /* protobuf's own limit for one file: 2^31 - 1 */

typedef struct eip_walk {
    eip_wire wire;
    size_t nodes;
    size_t flat_bytes; /* of weights and notes */
    bool has_external;
    eip_span external, location; /* the first tensor whose numbers lie in another file */
} eip_walk;

/* Hold a tensor's shape against its numbers; returns its type. */
uint64_t eip_walk_tensor(eip_walk *walk, eip_span tensor);
void eip_walk_sparse(eip_walk *walk, eip_span sparse);

/* Refuse a field that is there again: protobuf merges the two messages, so that neither alone
 * tells what a library reads. `seen` are the numbers of those that were there, as bits. */
bool eip_walk_once(eip_walk *walk, uint32_t *seen, uint32_t number, const char *what);

static inline size_t eip_span_bytes(eip_span span)
{
    return span.end - span.begin;
}

#endif
