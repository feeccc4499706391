/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4): names of files by their content. */
#ifndef EIP_SHA256_H
#define EIP_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define EIP_SHA256_HEX 65 /* 64 digits and a NUL */

typedef struct eip_sha256_state {
    uint32_t words[8];
    uint64_t bytes;
    uint8_t block[64]; /* what was not used yet */
} eip_sha256_state;

void eip_sha256_begin(eip_sha256_state *state);
void eip_sha256_add(eip_sha256_state *state, const void *data, size_t bytes);
void eip_sha256_end(eip_sha256_state *state, char hex[EIP_SHA256_HEX]);

/* All at once. */
void eip_sha256(const void *data, size_t bytes, char hex[EIP_SHA256_HEX]);

#endif
