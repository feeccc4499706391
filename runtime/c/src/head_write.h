/* SPDX-License-Identifier: Apache-2.0 */
/* A head's metadata, written anew: what is read is written in one form only. */
#ifndef EIP_HEAD_WRITE_H
#define EIP_HEAD_WRITE_H

#include <stddef.h>

#include "head.h"

/* Write a head's contract as metadata, as `edge_imprint_runtime.contract.encode` does, under
 * other labels perhaps.
 *
 *   metadata  empty; filled (to be cleared by the caller, also after a failure) */
ei_status eip_head_encode(const eip_head *head, char *const *labels, size_t count,
                          eip_metadata *metadata);

#define EIP_NUMBER_BYTES 48

/* Write a number as Python's repr does: the fewest digits that make the same float64. */
void eip_write_number(double value, char text[EIP_NUMBER_BYTES]);

#endif
