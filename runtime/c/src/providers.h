/* SPDX-License-Identifier: Apache-2.0 */
/* GPU providers: what they are told when they start, and the proof that they took the model. */
#ifndef EIP_PROVIDERS_H
#define EIP_PROVIDERS_H

#include "session_private.h"

#define EIP_PROOF_BYTES 512

/* The proof that a provider took nodes of the model: the trace of one run, in a folder of its own.
 * A provider that starts need not run anything: it may leave every node to the CPU, and ONNX
 * Runtime says no word. */
typedef struct eip_proof {
    char folder[EIP_PROOF_BYTES];
    char prefix[EIP_PROOF_BYTES]; /* of the trace's name; "": none is made */
} eip_proof;

/* Return ONNX Runtime's name of a provider; NULL: there is none. */
const char *eip_provider_name(ei_provider provider);

/* Append the provider asked for, with what it is told. Fails with EI_PROVIDER, and of TensorRT,
 * whose engines are kept, EI_WRITE_FAILED and EI_FILE_MISSING. */
ei_status eip_providers_append(eip_session *session, OrtSessionOptions *options,
                               const ei_options *wanted, const eip_profile *profile,
                               const char *path, const void *data, size_t bytes);

ei_status eip_proof_begin(eip_proof *proof);

/* Run once with zeros and read which provider ran what. EI_PROVIDER: not the one asked for. */
ei_status eip_proof_take(eip_session *session, const eip_profile *profile);

/* Remove the folder. */
void eip_proof_end(eip_proof *proof);

#endif
