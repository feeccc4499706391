/* SPDX-License-Identifier: Apache-2.0 */
/* One ONNX Runtime session on one provider, and runs of it. ONNX Runtime's names stay in here. */
#ifndef EIP_SESSION_H
#define EIP_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

#define EIP_MAX_DIMENSIONS 8

typedef enum { EIP_F32, EIP_U8, EIP_I32, EIP_OTHER } eip_type;

/* An input, an initializer that may be replaced, or an output, as the graph declares it. */
typedef struct eip_port {
    char *name;
    eip_type type;
    int dimensions;
    int64_t shape[EIP_MAX_DIMENSIONS]; /* -1: any */
} eip_port;

/* A session; freed when the last who holds it lets go. All fields are read-only. */
typedef struct eip_session {
    eip_port *inputs;
    size_t input_count;
    eip_port *defaults; /* initializers that may be replaced */
    size_t default_count;
    eip_port *outputs;
    size_t output_count;
    const char *provider; /* "CPUExecutionProvider", ... */
    char *library;        /* "onnxruntime 1.23.2" */
    int32_t max_batch;    /* the most images in one run; 0: no limit */
    bool on_cpu;
    struct eip_session_private *private_;
} eip_session;

/* Open a session.
 *
 *   path     the file, or NULL
 *   data     else its bytes, needed during the call only
 *   where    its name, for messages
 *   profile  for TensorRT: shape ranges of inputs that vary, or NULL (see eip_profile) */
typedef struct eip_profile {
    const char *minimum, *optimum, *maximum; /* "images:1x16x16x3,proxies:8x25", ... */
    int32_t max_batch;
} eip_profile;

ei_status eip_session_open(const char *path, const void *data, size_t bytes, const char *where,
                           const ei_options *options, const eip_profile *profile,
                           eip_session **session);

/* Hold it once more; returns it. */
eip_session *eip_session_hold(eip_session *session);

/* Let go; the last one closes it. NULL is let pass. */
void eip_session_release(eip_session *session);

/* Find by name; NULL: there is none. */
const eip_port *eip_session_input(const eip_session *session, const char *name);
const eip_port *eip_session_default(const eip_session *session, const char *name);
const eip_port *eip_session_output(const eip_session *session, const char *name);

/* A tensor over memory that its owner keeps: an OrtValue. */
typedef struct eip_value eip_value;

/* Wrap memory. It is neither copied nor freed, and must outlive the value. */
ei_status eip_value_wrap(const eip_session *session, eip_type type, const void *data,
                         const int64_t *shape, int dimensions, eip_value **value);
void eip_value_free(const eip_session *session, eip_value *value);

/* What goes in and comes out of runs: an OrtIoBinding. One thread at a time; it holds the
 * session. */
typedef struct eip_binding eip_binding;

ei_status eip_binding_open(eip_session *session, eip_binding **binding);
void eip_binding_close(eip_binding *binding);

/* Bind an input; on a device that copies it there, so that it must be done anew when the numbers
 * change. Binding a name again replaces it. */
ei_status eip_bind_input(eip_binding *binding, const char *name, const eip_value *value);
ei_status eip_bind_output(eip_binding *binding, const char *name, const eip_value *value);

/* Run; outputs lie in the memory of their values when it returns. `images` is for messages.
 * Fails with EI_RUN_FAILED, EI_DEVICE, EI_DEVICE_MEMORY. */
ei_status eip_run(eip_binding *binding, size_t images);

#endif
