/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "providers.h"
#include "session_private.h"

/* ONNX's numbers of element types. */
enum { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT32 = 6 };

#define LOG_ERROR 3     /* ORT_LOGGING_LEVEL_ERROR */
#define OPTIMIZE_ALL 99 /* ORT_ENABLE_ALL */

/* --------------------------------------------------------------------------------- ports -- */

static eip_type type_of(unsigned onnx)
{
    switch (onnx) {
    case ONNX_FLOAT:
        return EIP_F32;
    case ONNX_UINT8:
        return EIP_U8;
    case ONNX_INT32:
        return EIP_I32;
    default:
        return EIP_OTHER;
    }
}

/* The functions that tell of the inputs, of the defaults, or of the outputs. */
typedef struct {
    OrtStatus *(*count)(const OrtSession *, size_t *);
    OrtStatus *(*name)(const OrtSession *, size_t, OrtAllocator *, char **);
    OrtStatus *(*info)(const OrtSession *, size_t, OrtTypeInfo **);
} questions;

/* Read the type and shape of a port; what is no tensor, or has too many sides, is EIP_OTHER. */
static OrtStatus *read_shape(const eip_ort *ort, const OrtTypeInfo *info, eip_port *port)
{
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    unsigned type = 0;
    size_t dimensions = 0;
    port->type = EIP_OTHER;
    OrtStatus *status = ort->CastTypeInfoToTensorInfo(info, &tensor);
    if (status || !tensor)
        return status;
    status = ort->GetTensorElementType(tensor, &type);
    if (!status)
        status = ort->GetDimensionsCount(tensor, &dimensions);
    if (status || dimensions > EIP_MAX_DIMENSIONS)
        return status;
    port->type = type_of(type);
    port->dimensions = (int)dimensions;
    return ort->GetDimensions(tensor, port->shape, dimensions);
}

static OrtStatus *read_port(const eip_session *session, const questions *ask, size_t index,
                            eip_port *port, ei_status *failed)
{
    const eip_ort *ort = session->private_->ort;
    const OrtSession *inner = session->private_->session;
    char *name = NULL;
    OrtTypeInfo *info = NULL;
    OrtStatus *status = ask->name(inner, index, ort->allocator, &name);
    if (status)
        return status;
    port->name = eip_copy_text(name);
    status = ort->AllocatorFree(ort->allocator, name);
    if (!port->name)
        *failed = EI_OUT_OF_MEMORY;
    if (!status && !*failed)
        status = ask->info(inner, index, &info);
    if (!status && info) {
        status = read_shape(ort, info, port);
        ort->ReleaseTypeInfo(info);
    }
    return status;
}

static ei_status read_ports(const eip_session *session, const questions *ask, eip_port **ports,
                            size_t *count)
{
    size_t wanted = 0;
    ei_status failed = EI_OK;
    OrtStatus *status = ask->count(session->private_->session, &wanted);
    if (!status) {
        *ports = eip_allocate(wanted, sizeof **ports);
        if (!*ports)
            return EI_OUT_OF_MEMORY;
    }
    for (size_t i = 0; i < wanted && !status && !failed; i++) {
        *count = i + 1;
        status = read_port(session, ask, i, &(*ports)[i], &failed);
    }
    return status ? eip_session_failed(session, status, EIP_OPENING, 0) : failed;
}

static ei_status describe(eip_session *session)
{
    const eip_ort *ort = session->private_->ort;
    const questions inputs = {ort->SessionGetInputCount, ort->SessionGetInputName,
                              ort->SessionGetInputTypeInfo};
    const questions defaults = {ort->SessionGetOverridableInitializerCount,
                                ort->SessionGetOverridableInitializerName,
                                ort->SessionGetOverridableInitializerTypeInfo};
    const questions outputs = {ort->SessionGetOutputCount, ort->SessionGetOutputName,
                               ort->SessionGetOutputTypeInfo};
    ei_status status = read_ports(session, &inputs, &session->inputs, &session->input_count);
    if (!status)
        status = read_ports(session, &defaults, &session->defaults, &session->default_count);
    if (!status)
        status = read_ports(session, &outputs, &session->outputs, &session->output_count);
    if (!status && session->input_count && session->inputs[0].dimensions &&
        session->inputs[0].shape[0] > 0)
        session->max_batch = session->inputs[0].shape[0] < INT32_MAX
                                 ? (int32_t)session->inputs[0].shape[0]
                                 : INT32_MAX;
    return status;
}

static void free_ports(eip_port *ports, size_t count)
{
    for (size_t i = 0; ports && i < count; i++)
        free(ports[i].name);
    free(ports);
}

static const eip_port *find(const eip_port *ports, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(ports[i].name, name))
            return &ports[i];
    return NULL;
}

const eip_port *eip_session_input(const eip_session *session, const char *name)
{
    return find(session->inputs, session->input_count, name);
}

const eip_port *eip_session_default(const eip_session *session, const char *name)
{
    return find(session->defaults, session->default_count, name);
}

const eip_port *eip_session_output(const eip_session *session, const char *name)
{
    return find(session->outputs, session->output_count, name);
}

/* -------------------------------------------------------------------------------- errors -- */

static ei_status run_failed(const eip_session *session, const eip_words *words, size_t images)
{
    if (words->no_memory) {
        if (!images)
            return eip_fail(EI_DEVICE_MEMORY,
                            "%s has not enough memory for the model: %s; free some",
                            session->provider, words->text);
        return eip_fail(EI_DEVICE_MEMORY,
                        "%s has not enough memory for %zu images at a time: %s; give fewer at a "
                        "time, or free some",
                        session->provider, images, words->text);
    }
    if (!session->on_cpu && words->device_failed)
        return eip_fail(EI_DEVICE,
                        "%s failed: %s; look at the GPU and its driver, then open the model again",
                        session->provider, words->text);
    return eip_fail(EI_RUN_FAILED, "ONNX Runtime could not run the model: %s", words->text);
}

ei_status eip_session_failed(const eip_session *session, OrtStatus *status, eip_stage stage,
                             size_t images)
{
    eip_words words;
    eip_ort_take_words(session->private_->ort, status, &words);
    if (stage == EIP_RUNNING)
        return run_failed(session, &words, images);
    if (!session->on_cpu) {
        if (words.no_memory)
            return run_failed(session, &words, 0);
        if (stage == EIP_STARTING || words.provider || words.device_failed) {
            const char *log = eip_ort_logged();
            return eip_fail(EI_PROVIDER, "%s did not start: %s%s%s; or run on the CPU",
                            session->provider, words.text, *log ? ": " : "", log);
        }
    }
    return eip_fail(EI_MODEL_FILE, "%s can't load %s: %s", session->library,
                    session->private_->where, words.text);
}

/* ------------------------------------------------------------------------------- opening -- */

/* What an opening needs. */
typedef struct {
    const char *path;
    const void *data;
    size_t bytes;
    const ei_options *options;
    const eip_profile *profile;
    eip_proof proof;
} order;

static ei_status set_options(eip_session *session, OrtSessionOptions *options, const order *wanted)
{
    const eip_ort *ort = session->private_->ort;
    OrtStatus *status = ort->SetSessionLogSeverityLevel(options, LOG_ERROR);
    if (!status)
        status = ort->SetIntraOpNumThreads(options, wanted->options->threads);
    if (!status)
        status = ort->SetSessionGraphOptimizationLevel(options, OPTIMIZE_ALL);
    /* Else a name that ends in .ort, or four letters in the bytes, would make it read another
     * format than the one that was checked. */
    if (!status)
        status = ort->AddSessionConfigEntry(options, "session.load_model_format", "ONNX");
    if (!status && *wanted->proof.prefix)
        status = ort->EnableProfiling(options, wanted->proof.prefix);
    return status ? eip_session_failed(session, status, EIP_OPENING, 0) : EI_OK;
}

static ei_status create(eip_session *session, const order *wanted)
{
    const eip_ort *ort = session->private_->ort;
    OrtSessionOptions *options = NULL;
    OrtStatus *failed = ort->CreateSessionOptions(&options);
    if (failed)
        return eip_session_failed(session, failed, EIP_OPENING, 0);
    ei_status status = set_options(session, options, wanted);
    if (!status && !session->on_cpu)
        status = eip_providers_append(session, options, wanted->options, wanted->profile,
                                      wanted->path, wanted->data, wanted->bytes);
    if (!status) {
        OrtSession **inner = &session->private_->session;
        failed = wanted->path
                     ? ort->CreateSession(ort->env, wanted->path, options, inner)
                     : ort->CreateSessionFromArray(ort->env, wanted->data, wanted->bytes, options,
                                                   inner);
        if (failed)
            status = eip_session_failed(session, failed, EIP_OPENING, 0);
    }
    ort->ReleaseSessionOptions(options);
    return status;
}

/* Allocate a session with what is known before it is opened. */
static ei_status begin(const char *where, const ei_options *options, eip_session **session)
{
    const eip_ort *ort;
    const char *provider = eip_provider_name(options->provider);
    if (!provider)
        return eip_fail(EI_INVALID_ARGUMENT, "there is no provider %d", (int)options->provider);
    ei_status status = eip_ort_open(options->library, &ort);
    if (status)
        return status;
    eip_session *made = eip_allocate(1, sizeof *made);
    eip_session_private *inner = eip_allocate(1, sizeof *inner);
    if (!made || !inner) {
        free(made);
        free(inner);
        return EI_OUT_OF_MEMORY;
    }
    atomic_init(&inner->holders, 1);
    inner->ort = ort;
    inner->where = where;
    made->private_ = inner;
    made->provider = provider;
    made->library = ort->library;
    made->on_cpu = options->provider == EI_CPU;
    *session = made;
    return EI_OK;
}

ei_status eip_session_open(const char *path, const void *data, size_t bytes, const char *where,
                           const ei_options *options, const eip_profile *profile,
                           eip_session **session)
{
    static const ei_options defaults = {.size = sizeof defaults};
    order wanted = {path, data, bytes, options ? options : &defaults, profile, {.folder = ""}};
    eip_session *made = NULL;
    *session = NULL;
    eip_ort_forget_logged();
    ei_status status = begin(where, wanted.options, &made);
    if (status)
        return status;
    if (!made->on_cpu)
        status = eip_proof_begin(&wanted.proof);
    if (!status)
        status = create(made, &wanted);
    if (!status)
        status = describe(made);
    if (!status && profile && profile->max_batch && !made->max_batch)
        made->max_batch = profile->max_batch;
    if (!status && !made->on_cpu)
        status = eip_proof_take(made, profile);
    made->private_->where = NULL; /* the caller's */
    if (status)
        eip_session_release(made); /* which may write the trace */
    else
        *session = made;
    eip_proof_end(&wanted.proof);
    return status;
}

eip_session *eip_session_hold(eip_session *session)
{
    atomic_fetch_add(&session->private_->holders, 1);
    return session;
}

void eip_session_release(eip_session *session)
{
    if (!session || atomic_fetch_sub(&session->private_->holders, 1) != 1)
        return;
    eip_session_private *inner = session->private_;
    if (inner->session)
        inner->ort->ReleaseSession(inner->session);
    free_ports(session->inputs, session->input_count);
    free_ports(session->defaults, session->default_count);
    free_ports(session->outputs, session->output_count);
    free(inner);
    free(session);
}
