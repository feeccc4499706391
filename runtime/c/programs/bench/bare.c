/* SPDX-License-Identifier: Apache-2.0 */
/* A session called bare: an array in, an array out, in parts where it takes only so many. */
#include <stdlib.h>
#include <string.h>

#include "lane.h"
#include "subject.h"

/* The images of one run. */
typedef struct part {
    eip_value *input, *output;
    size_t images;
} part;

typedef struct bare_call {
    bench_call base;
    eip_session *session;
    eip_binding *binding;
    part *parts;
    size_t part_count;
    const char *input_name;
    unsigned char *padded; /* images of a part, and zeros up to what a run must have */
    float *answers;
} bare_call;

static ei_status run_bare(bench_call *base)
{
    bare_call *call = (bare_call *)base;
    ei_status status = EI_OK;
    for (size_t i = 0; i < call->part_count && !status; i++) {
        part *one = &call->parts[i];
        /* On a device binding copies the images there, as a caller's call must. */
        if (call->part_count > 1 || !call->session->on_cpu) {
            status = eip_bind_input(call->binding, call->input_name, one->input);
            if (!status)
                status = eip_bind_output(call->binding, "embedding", one->output);
        }
        if (!status)
            status = eip_run(call->binding, one->images);
    }
    return status;
}

static void close_bare(bench_call *base)
{
    bare_call *call = (bare_call *)base;
    eip_binding_close(call->binding);
    for (size_t i = 0; i < call->part_count; i++) {
        eip_value_free(call->session, call->parts[i].input);
        eip_value_free(call->session, call->parts[i].output);
    }
    eip_session_release(call->session);
    free(call->parts);
    free(call->padded);
    free(call->answers);
    free(call);
}

/* Lay the parts out, as equal as can be, over images that are padded where a run has a fixed
 * number. */
static ei_status lay_out(bare_call *call, const bench_subject *subject, const void *images,
                         size_t batch, size_t fixed)
{
    size_t width = subject->embedding_size;
    size_t bytes = bench_subject_bytes(subject, 1), first = 0;
    size_t rows = fixed ? fixed * call->part_count : batch;
    call->answers = eip_allocate_array(rows, width * sizeof(float));
    if (!call->answers)
        return EI_OUT_OF_MEMORY;
    if (fixed) {
        call->padded = eip_allocate(rows, bytes);
        if (!call->padded)
            return EI_OUT_OF_MEMORY;
    }
    ei_status status = EI_OK;
    for (size_t i = 0; i < call->part_count && !status; i++) {
        part *one = &call->parts[i];
        one->images = batch / call->part_count + (i < batch % call->part_count);
        size_t run = fixed ? fixed : one->images, at = fixed ? i * fixed : first;
        const unsigned char *from = (const unsigned char *)images + first * bytes;
        if (fixed) {
            memcpy(call->padded + at * bytes, from, one->images * bytes);
            from = call->padded + at * bytes;
        }
        int64_t shape[4], found[2] = {(int64_t)run, (int64_t)width};
        memcpy(shape, subject->shape, sizeof shape);
        shape[0] = (int64_t)run;
        status = eip_value_wrap(call->session, subject->numbers ? EIP_F32 : EIP_U8, from, shape,
                                subject->dimensions, &one->input);
        if (!status)
            status = eip_value_wrap(call->session, EIP_F32, call->answers + at * width, found, 2,
                                    &one->output);
        first += one->images;
    }
    return status;
}

ei_status bench_bare_call(const bench_subject *subject, const void *images, int32_t batch,
                          bench_call **made)
{
    eip_session *session = subject->session;
    size_t most = eip_most_images(session), count = (size_t)batch;
    size_t fixed = session->inputs[0].shape[0] > 0 ? most : 0;
    *made = NULL;
    bare_call *call = eip_allocate(1, sizeof *call);
    if (!call)
        return EI_OUT_OF_MEMORY;
    call->base = (bench_call){run_bare, close_bare};
    call->session = eip_session_hold(session);
    call->input_name = session->inputs[0].name;
    size_t parts = most ? (count + most - 1) / most : 1;
    call->parts = eip_allocate(parts, sizeof *call->parts);
    ei_status status = call->parts ? EI_OK : EI_OUT_OF_MEMORY;
    if (!status) {
        call->part_count = parts;
        status = lay_out(call, subject, images, count, fixed);
    }
    if (!status)
        status = eip_binding_open(session, &call->binding);
    if (!status)
        status = eip_bind_input(call->binding, call->input_name, call->parts[0].input);
    if (!status)
        status = eip_bind_output(call->binding, "embedding", call->parts[0].output);
    if (status)
        close_bare(&call->base);
    else
        *made = &call->base;
    return status;
}
