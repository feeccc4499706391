/* SPDX-License-Identifier: Apache-2.0 */
/* Teaching and forgetting: a head -> another head; as `edge_imprint_runtime.teaching`. */
#ifndef EIP_TEACHING_H
#define EIP_TEACHING_H

#include <stddef.h>
#include <stdint.h>

#include "errors.h"
#include "head.h"

#define EIP_MAX_SAMPLES 10000

/* Add a class, or improve one.
 *
 *   embeddings  (count, D)
 *   proxies     at most, >= 1
 *   taught      becomes the new head
 *
 * Fails with EI_NOT_TEACHABLE, EI_INPUT_VALUE, EI_ZERO_EMBEDDING, EI_NO_ROOM, EI_CONTRACT_VALUE,
 * EI_INVALID_ARGUMENT, EI_OUT_OF_MEMORY. */
ei_status eip_teach(const eip_head *head, const char *label, const float *embeddings,
                    size_t count, int32_t proxies, eip_head **taught);

/* Take a class away. Fails with EI_NO_SUCH_CLASS, EI_OUT_OF_MEMORY. */
ei_status eip_forget(const eip_head *head, const char *label, eip_head **left);

#endif
