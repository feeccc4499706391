/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memmem */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "providers.h"

#define TRACE "run"
#define MAX_TRACE_BYTES ((size_t)1 << 28)

ei_status eip_proof_begin(eip_proof *proof)
{
    const char *base = getenv("TMPDIR");
    if (!base || !*base)
        base = "/tmp";
    int bytes = snprintf(proof->folder, sizeof proof->folder, "%s/edge-imprint-XXXXXX", base);
    if (bytes < 0 || (size_t)bytes + sizeof "/" TRACE > sizeof proof->folder) {
        proof->folder[0] = 0;
        return eip_fail(EI_WRITE_FAILED, "the name in TMPDIR is too long");
    }
    if (!mkdtemp(proof->folder)) {
        proof->folder[0] = 0;
        return eip_fail(EI_WRITE_FAILED,
                        "cannot make a folder in %s, where ONNX Runtime tells which provider runs "
                        "what: %s; set TMPDIR to a folder that can be written",
                        base, strerror(errno));
    }
    memcpy(proof->prefix, proof->folder, (size_t)bytes);
    strcpy(proof->prefix + bytes, "/" TRACE);
    return EI_OK;
}

void eip_proof_end(eip_proof *proof)
{
    DIR *folder = proof->folder[0] ? opendir(proof->folder) : NULL;
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));)
        unlinkat(dirfd(folder), entry->d_name, 0); /* "." and ".." can't be, and stay */
    closedir(folder);
    rmdir(proof->folder);
}

/* ------------------------------------------------------------------------------- one run -- */

/* Read the shape of an input in a profile such as "images:1x16x16x3,proxies:8x25". */
static bool shape_in(const char *profile, const eip_port *port, int64_t *shape)
{
    size_t length = strlen(port->name);
    for (const char *at = profile; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, port->name, length) != 0 || at[length] != ':')
            continue;
        at += length + 1;
        for (int i = 0; i < port->dimensions; i++) {
            char *end;
            shape[i] = strtoll(at, &end, 10);
            at = end + (*end == 'x');
        }
        return true;
    }
    return false;
}

/* Choose the shape of an input: as usual, else of one image. False: nobody knows it. */
static bool choose_shape(const eip_port *port, const eip_profile *profile, bool first,
                         int64_t *shape)
{
    if (port->type == EIP_OTHER)
        return false;
    if (profile && profile->optimum && shape_in(profile->optimum, port, shape))
        return true;
    for (int i = 0; i < port->dimensions; i++) {
        shape[i] = port->shape[i];
        if (first && !i && shape[i] < 0)
            shape[i] = 1;
        if (shape[i] < 0)
            return false;
    }
    return true;
}

/* Bind zeros to an input. `zeros` is filled anew, large enough. */
static ei_status bind_zeros(eip_session *session, eip_binding *binding, const eip_port *port,
                            const int64_t *shape, void **zeros, eip_value **value)
{
    size_t count = 1;
    for (int i = 0; i < port->dimensions; i++)
        if (__builtin_mul_overflow(count, (size_t)shape[i], &count))
            return eip_fail(EI_OUT_OF_MEMORY, "the model's input %s is too large", port->name);
    *zeros = eip_allocate(count, port->type == EIP_U8 ? 1 : 4);
    if (!*zeros)
        return EI_OUT_OF_MEMORY;
    ei_status status =
        eip_value_wrap(session, port->type, *zeros, shape, port->dimensions, value);
    return status ? status : eip_bind_input(binding, port->name, *value);
}

typedef struct {
    void **zeros;
    eip_value **values;
    size_t count;
} feed;

/* Run once with zeros; *ran stays false where nobody knows the shapes. */
static ei_status run_zeros(eip_session *session, const eip_profile *profile, feed *fed, bool *ran)
{
    int64_t shape[EIP_MAX_DIMENSIONS];
    eip_binding *binding = NULL;
    for (size_t i = 0; i < fed->count; i++)
        if (!choose_shape(&session->inputs[i], profile, i == 0, shape))
            return EI_OK;
    ei_status status = eip_binding_open(session, &binding);
    for (size_t i = 0; i < fed->count && !status; i++) {
        choose_shape(&session->inputs[i], profile, i == 0, shape);
        status = bind_zeros(session, binding, &session->inputs[i], shape, &fed->zeros[i],
                            &fed->values[i]);
    }
    for (size_t i = 0; i < session->output_count && !status; i++)
        status = eip_bind_output_anywhere(binding, session->outputs[i].name);
    if (!status)
        status = eip_run(binding, 1);
    eip_binding_close(binding);
    *ran = !status;
    return status;
}

/* ----------------------------------------------------------------------------- the trace -- */

/* Find text in a stretch. */
static const char *find(const char *begin, const char *end, const char *text)
{
    return memmem(begin, (size_t)(end - begin), text, strlen(text));
}

/* Find the text that stands behind a key: "provider" : "CUDAExecutionProvider". */
static const char *value_of(const char *begin, const char *end, const char *key, size_t *bytes)
{
    const char *at = find(begin, end, key);
    for (at = at ? at + strlen(key) : end; at < end && (*at == ' ' || *at == ':');)
        at++;
    const char *quote = at < end ? memchr(at + 1, '"', (size_t)(end - at - 1)) : NULL;
    if (!quote || *at != '"')
        return NULL;
    *bytes = (size_t)(quote - at - 1);
    return at + 1;
}

static bool is_text(const char *value, size_t bytes, const char *text)
{
    return value && strlen(text) == bytes && !memcmp(value, text, bytes);
}

/* Count the nodes that compute, and those of them that `provider` ran; one event is a line. */
static void count_nodes(const char *trace, size_t bytes, const char *provider, size_t *all,
                        size_t *taken)
{
    const char *end = trace + bytes;
    for (const char *line = trace, *next; line < end; line = next) {
        size_t kind_bytes = 0, operator_bytes = 0, name_bytes = 0;
        next = memchr(line, '\n', (size_t)(end - line));
        next = next ? next + 1 : end;
        const char *kind = value_of(line, next, "\"cat\"", &kind_bytes);
        const char *operator = value_of(line, next, "\"op_name\"", &operator_bytes);
        const char *name = value_of(line, next, "\"provider\"", &name_bytes);
        if (!is_text(kind, kind_bytes, "Node") || !find(line, next, "_kernel_time\"") ||
            is_text(operator, operator_bytes, "Shape") || is_text(operator, operator_bytes, "Size"))
            continue;
        ++*all;
        *taken += is_text(name, name_bytes, provider);
    }
}

static ei_status read_trace(const eip_session *session, const char *path)
{
    void *trace = NULL;
    size_t bytes = 0, all = 0, taken = 0;
    ei_status status = eip_read_file(path, MAX_TRACE_BYTES, EI_PROVIDER, &trace, &bytes);
    if (status)
        return status;
    count_nodes(trace, bytes, session->provider, &all, &taken);
    free(trace);
    if (taken || !all)
        return EI_OK;
    return eip_fail(EI_PROVIDER,
                    "%s took none of the model's %zu nodes, others would run them; choose the "
                    "provider that can run it",
                    session->provider, all);
}

ei_status eip_proof_take(eip_session *session, const eip_profile *profile)
{
    const eip_ort *ort = session->private_->ort;
    size_t count = session->input_count;
    feed fed = {NULL, NULL, count};
    bool ran = false;
    char *trace = NULL;
    fed.zeros = eip_allocate(count, sizeof *fed.zeros);
    fed.values = eip_allocate(count, sizeof *fed.values);
    ei_status status = fed.zeros && fed.values ? EI_OK : EI_OUT_OF_MEMORY;
    if (!status)
        status = run_zeros(session, profile, &fed, &ran);
    if (!status) {
        OrtStatus *failed =
            ort->SessionEndProfiling(session->private_->session, ort->allocator, &trace);
        if (failed)
            status = eip_session_failed(session, failed, EIP_OPENING, 0);
    }
    if (!status && ran)
        status = read_trace(session, trace);
    if (trace) {
        OrtStatus *failed = ort->AllocatorFree(ort->allocator, trace);
        if (failed && !status)
            status = eip_session_failed(session, failed, EIP_OPENING, 0);
        else if (failed)
            ort->ReleaseStatus(failed);
    }
    for (size_t i = 0; i < count; i++) {
        if (fed.values)
            eip_value_free(session, fed.values[i]);
        if (fed.zeros)
            free(fed.zeros[i]);
    }
    free(fed.values);
    free(fed.zeros);
    return status;
}
