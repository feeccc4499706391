/* SPDX-License-Identifier: Apache-2.0 */
/* A look into an ONNX file before ONNX Runtime opens it: its metadata, what it claims, and where it
 * reaches; as `edge_imprint_runtime.onnx_scan`. */
#ifndef EIP_ONNX_SCAN_H
#define EIP_ONNX_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "contract.h"
#include "errors.h"

/* Walk an ONNX model that lies in memory.
 *
 *   where     its name, for messages
 *   metadata  filled with its metadata_props (to be cleared by the caller, also after a failure)
 *
 * Fails with EI_MODEL_FILE (no ONNX model), EI_UNSAFE_MODEL (numbers in other files, tensors of
 * another size than their numbers, too many nodes, too deep, stated twice, EPContext). */
ei_status eip_onnx_scan(const void *data, size_t bytes, const char *where,
                        eip_metadata *metadata);

/* The same of a file, which is mapped. EI_FILE_MISSING where it can't be read. */
ei_status eip_onnx_scan_file(const char *path, eip_metadata *metadata);

/* Take the head off a fused model, as `edge_imprint_runtime.headless`: the same model up to the
 * output `embedding`, without metadata. *cut is to be freed. EI_OUTPUT_MISSING: it has none. For
 * ei-bench, which measures what the head costs. */
ei_status eip_onnx_headless(const void *data, size_t bytes, const char *where, void **cut,
                            size_t *cut_bytes);

#endif
