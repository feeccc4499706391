/* SPDX-License-Identifier: Apache-2.0 */
/* What session.c, binding.c and providers.c share of a session. */
#ifndef EIP_SESSION_PRIVATE_H
#define EIP_SESSION_PRIVATE_H

#include <stdatomic.h>

#include "ort.h"
#include "session.h"

typedef struct eip_session_private {
    atomic_int holders;
    const eip_ort *ort;
    OrtSession *session;
    const char *where; /* the model's name, while it is opened */
} eip_session_private;

/* What failed: a provider that starts, a model that is opened, a run. */
typedef enum { EIP_STARTING, EIP_OPENING, EIP_RUNNING } eip_stage;

/* Turn a failure of ONNX Runtime into the status that says what it means, and give it back.
 *
 *   images  in the run; 0 where it was none */
ei_status eip_session_failed(const eip_session *session, OrtStatus *status, eip_stage stage,
                             size_t images);

/* Bind an output whose size nobody knows: ONNX Runtime allocates it. */
ei_status eip_bind_output_anywhere(eip_binding *binding, const char *name);

#endif
