/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "session_private.h"

struct eip_binding {
    eip_session *session;
    OrtIoBinding *inner;
};

static unsigned onnx_type(eip_type type, size_t *bytes)
{
    static const struct {
        unsigned type, bytes;
    } types[] = {[EIP_F32] = {1, 4}, [EIP_U8] = {2, 1}, [EIP_I32] = {6, 4}};
    *bytes = types[type].bytes;
    return types[type].type;
}

ei_status eip_value_wrap(const eip_session *session, eip_type type, const void *data,
                         const int64_t *shape, int dimensions, eip_value **value)
{
    const eip_ort *ort = session->private_->ort;
    OrtValue *made = NULL;
    size_t bytes;
    unsigned onnx = onnx_type(type, &bytes);
    for (int i = 0; i < dimensions; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(bytes, (size_t)shape[i], &bytes))
            return eip_fail(EI_INVALID_ARGUMENT, "a tensor of that shape does not fit in memory");
    /* ONNX Runtime writes into outputs only, and those the caller may write to. */
    OrtStatus *status = ort->CreateTensorWithDataAsOrtValue(
        ort->cpu, (void *)(uintptr_t)data, bytes, shape, (size_t)dimensions, onnx, &made);
    if (status)
        return eip_session_failed(session, status, EIP_RUNNING, 0);
    *value = (eip_value *)made;
    return EI_OK;
}

void eip_value_free(const eip_session *session, eip_value *value)
{
    if (value)
        session->private_->ort->ReleaseValue((OrtValue *)value);
}

ei_status eip_binding_open(eip_session *session, eip_binding **binding)
{
    *binding = NULL;
    eip_binding *made = eip_allocate(1, sizeof *made);
    if (!made)
        return EI_OUT_OF_MEMORY;
    OrtStatus *status =
        session->private_->ort->CreateIoBinding(session->private_->session, &made->inner);
    if (status) {
        free(made);
        return eip_session_failed(session, status, EIP_RUNNING, 0);
    }
    made->session = eip_session_hold(session);
    *binding = made;
    return EI_OK;
}

void eip_binding_close(eip_binding *binding)
{
    if (!binding)
        return;
    binding->session->private_->ort->ReleaseIoBinding(binding->inner);
    eip_session_release(binding->session);
    free(binding);
}

ei_status eip_bind_input(eip_binding *binding, const char *name, const eip_value *value)
{
    const eip_session *session = binding->session;
    OrtStatus *status =
        session->private_->ort->BindInput(binding->inner, name, (const OrtValue *)value);
    return status ? eip_session_failed(session, status, EIP_RUNNING, 0) : EI_OK;
}

ei_status eip_bind_output(eip_binding *binding, const char *name, const eip_value *value)
{
    const eip_session *session = binding->session;
    OrtStatus *status =
        session->private_->ort->BindOutput(binding->inner, name, (const OrtValue *)value);
    return status ? eip_session_failed(session, status, EIP_RUNNING, 0) : EI_OK;
}

ei_status eip_bind_output_anywhere(eip_binding *binding, const char *name)
{
    const eip_session *session = binding->session;
    const eip_ort *ort = session->private_->ort;
    OrtStatus *status = ort->BindOutputToDevice(binding->inner, name, ort->cpu);
    return status ? eip_session_failed(session, status, EIP_RUNNING, 0) : EI_OK;
}

ei_status eip_run(eip_binding *binding, size_t images)
{
    const eip_session *session = binding->session;
    const eip_ort *ort = session->private_->ort;
    OrtStatus *status = ort->RunWithBinding(session->private_->session, ort->run, binding->inner);
    if (!status && !session->on_cpu)
        status = ort->SynchronizeBoundOutputs(binding->inner);
    return status ? eip_session_failed(session, status, EIP_RUNNING, images) : EI_OK;
}
