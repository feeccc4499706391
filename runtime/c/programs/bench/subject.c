/* SPDX-License-Identifier: Apache-2.0 */
#include "subject.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "lane.h"
#include "lists.h"
#include "model.h"
#include "onnx_scan.h"
#include "statistics.h"

#define MAX_MODEL_BYTES ((size_t)4 << 30)

/* ------------------------------------------------------------------------------- opening -- */

static void describe_model(bench_subject *subject, const char *name)
{
    const eip_intake *intake = &subject->model->intake;
    bool embeds = intake->input == EIP_INPUT_EMBEDDING;
    subject->name = name ? name : embeds ? "head" : "fused";
    subject->session = subject->model->session;
    subject->format = intake->format;
    subject->width = intake->width;
    subject->height = intake->height;
    subject->any_size = intake->width == 0;
    subject->numbers = intake->format == EI_FLOAT32;
}

/* A session of one input, the batch first, of bytes or numbers. */
static ei_status describe_session(bench_subject *subject, const char *where)
{
    const eip_session *session = subject->session;
    const eip_port *input = session->inputs;
    if (session->input_count != 1 || input->dimensions < 2 || input->dimensions > 4 ||
        (input->type != EIP_U8 && input->type != EIP_F32))
        return eip_fail(EI_MODEL_FILE,
                        "%s: what is measured as '%s' must have one input of uint8 or float32, "
                        "the batch first",
                        where, subject->name);
    subject->numbers = input->type == EIP_F32;
    subject->dimensions = input->dimensions;
    memcpy(subject->shape, input->shape, sizeof subject->shape);
    subject->shape[0] = 1;
    const eip_port *output = eip_session_output(session, "embedding");
    if (!subject->embedding_size && output && output->dimensions == 2 && output->shape[1] > 0)
        subject->embedding_size = (size_t)output->shape[1];
    if (!output || !subject->embedding_size)
        return eip_fail(EI_MODEL_FILE,
                        "%s: what is measured as '%s' must have an output 'embedding' whose "
                        "length is in the file",
                        where, subject->name);
    for (int i = 1; i < input->dimensions; i++)
        subject->any_size |= input->shape[i] <= 0;
    return EI_OK;
}

static ei_status open_backbone(const char *path, const char *name, const ei_options *options,
                               bench_subject *subject)
{
    eip_metadata metadata = {0};
    ei_status status = eip_onnx_scan_file(path, &metadata);
    eip_metadata_clear(&metadata);
    if (!status)
        status = eip_session_open(path, NULL, 0, path, options, NULL, &subject->session);
    if (status)
        return status;
    subject->name = name;
    if (subject->session->output_count == 1 &&
        !strcmp(subject->session->outputs[0].name, "embedding"))
        status = describe_session(subject, path);
    else
        status = eip_fail(EI_NO_CONTRACT,
                          "%s carries no edge-imprint metadata; make the file with: edge-imprint "
                          "export",
                          path);
    if (status)
        bench_subject_close(subject);
    return status;
}

ei_status bench_subject_open(const char *path, const char *name, const char *alone,
                             const ei_options *options, bench_subject *subject)
{
    *subject = (bench_subject){0};
    ei_status status = ei_open(path, options, &subject->model);
    if (!status)
        describe_model(subject, name);
    else if (status == EI_NO_CONTRACT)
        status = open_backbone(path, alone, options, subject);
    return status;
}

/* TensorRT must know which batches may come. */
static void make_profile(const bench_subject *whole, char texts[2][128], eip_profile *profile)
{
    int32_t most = whole->session->max_batch ? whole->session->max_batch : 1;
    for (int i = 0; i < 2; i++) {
        size_t used = (size_t)snprintf(texts[i], sizeof texts[i], "%s:%d",
                                       whole->session->inputs[0].name, i ? most : 1);
        for (int d = 1; d < whole->dimensions && used < sizeof texts[i]; d++)
            used += (size_t)snprintf(texts[i] + used, sizeof texts[i] - used, "x%lld",
                                     (long long)whole->shape[d]);
    }
    *profile = (eip_profile){texts[0], texts[1], texts[1], most};
}

ei_status bench_subject_headless(const char *path, const bench_subject *whole,
                                 const ei_options *options, bench_subject *subject)
{
    void *data = NULL, *cut = NULL;
    size_t bytes, cut_bytes;
    char texts[2][128];
    eip_profile profile;
    /* The cut file need not say how long an embedding is; the model's contract does. */
    int32_t length = whole->model->file->contract.embedding_size;
    *subject = (bench_subject){.name = BENCH_BACKBONE, .embedding_size = (size_t)length};
    ei_status status = eip_read_file(path, MAX_MODEL_BYTES, EI_FILE_MISSING, &data, &bytes);
    if (!status)
        status = eip_onnx_headless(data, bytes, path, &cut, &cut_bytes);
    free(data);
    if (!status) {
        make_profile(whole, texts, &profile);
        bool tensorrt = options && options->provider == EI_TENSORRT;
        status = eip_session_open(NULL, cut, cut_bytes, path, options,
                                  tensorrt ? &profile : NULL, &subject->session);
    }
    free(cut);
    if (!status)
        status = describe_session(subject, path);
    if (status)
        bench_subject_close(subject);
    return status;
}

void bench_subject_close(bench_subject *subject)
{
    if (subject->model)
        ei_close(subject->model);
    else
        eip_session_release(subject->session);
    *subject = (bench_subject){0};
}

/* -------------------------------------------------------------------------------- images -- */

ei_status bench_subject_size(bench_subject *subject, const int32_t frame_size[2])
{
    if (subject->any_size != (frame_size[0] != 0))
        return eip_fail(EI_INVALID_ARGUMENT, "%s",
                        subject->any_size
                            ? "the model takes frames of any size; say of which it is measured, "
                              "such as --frame-size 1280x720"
                            : "the model takes images of one size; leave out --frame-size");
    if (subject->any_size) {
        subject->width = frame_size[0];
        subject->height = frame_size[1];
    }
    if (subject->model) {
        ei_image image = {.width = subject->width,
                          .height = subject->height,
                          .format = subject->format};
        if (subject->format == EI_NV12 && (subject->width | subject->height) & 1)
            return eip_fail(EI_INVALID_ARGUMENT,
                            "--frame-size must have even sides, got %dx%d: the model takes nv12",
                            subject->width, subject->height);
        if (subject->format == EI_YUYV && subject->width & 1)
            return eip_fail(EI_INVALID_ARGUMENT,
                            "--frame-size must have an even width, got %d: the model takes yuyv",
                            subject->width);
        eip_intake_shape(&subject->model->intake, &image, 1, subject->shape,
                         &subject->dimensions);
    } else if (subject->any_size) {
        subject->shape[1] = subject->height;
        subject->shape[2] = subject->width;
    }
    subject->image_numbers = 1;
    for (int i = 1; i < subject->dimensions; i++)
        if (subject->shape[i] <= 0 ||
            __builtin_mul_overflow(subject->image_numbers, (size_t)subject->shape[i],
                                   &subject->image_numbers))
            return eip_fail(EI_MODEL_FILE, "what is measured as '%s' takes images of no size",
                            subject->name);
    return EI_OK;
}

size_t bench_subject_bytes(const bench_subject *subject, int32_t batch)
{
    return subject->image_numbers * (size_t)batch * (subject->numbers ? sizeof(float) : 1);
}

ei_status bench_subject_fits(const bench_subject *subject, int32_t batch, int callers)
{
    double bytes = (double)bench_subject_bytes(subject, batch) * callers;
    double room = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGE_SIZE) / 2;
    if (bytes <= room)
        return EI_OK;
    return eip_fail(EI_OUT_OF_MEMORY,
                    "%lld images of '%s' take %.0f MB, more than half of the memory; give a "
                    "smaller --batch%s",
                    (long long)batch * callers, subject->name, bytes / 1e6,
                    callers > 1 ? " or --concurrency" : "");
}

ei_status bench_subject_images(const bench_subject *subject, int32_t batch, uint64_t seed,
                               void **images)
{
    bench_random random;
    size_t bytes = bench_subject_bytes(subject, batch);
    ei_status status = bench_subject_fits(subject, batch, 1);
    if (status)
        return status;
    bench_random_begin(&random, seed);
    unsigned char *made = eip_allocate_array(bytes, 1);
    if (!made)
        return EI_OUT_OF_MEMORY;
    if (subject->numbers) { /* normal, by Box and Muller */
        float *numbers = (float *)(void *)made;
        for (size_t i = 0; i < bytes / sizeof(float); i++) {
            double radius = sqrt(-2 * log1p(-bench_random_share(&random)));
            numbers[i] = (float)(radius * cos(6.283185307179586 * bench_random_share(&random)));
        }
    } else { /* those that Python's Generator.integers(0, 256, ..., uint8) makes */
        for (size_t i = 0; i < bytes; i += 8) {
            uint64_t drawn = bench_random_64(&random);
            for (size_t j = 0; j < 8 && i + j < bytes; j++)
                made[i + j] = (unsigned char)(drawn >> 8 * j);
        }
    }
    *images = made;
    return EI_OK;
}

/* --------------------------------------------------------------------------------- calls -- */

void bench_call_close(bench_call *call)
{
    if (call)
        call->close(call);
}

typedef struct model_call {
    bench_call base;
    ei_model *model;
    ei_predictions *found;
    size_t count;
    ei_image *images;
    /* Of the stage "compute". */
    eip_lane lane;
    float *answers;
    size_t image_bytes;
    int64_t shape[4];
    int dimensions;
} model_call;

static ei_status predict(bench_call *base)
{
    model_call *call = (model_call *)base;
    return ei_predict(call->model, call->images, call->count, &call->found);
}

static ei_status compute(bench_call *base)
{
    model_call *call = (model_call *)base;
    return eip_lane_run(&call->lane, &call->model->intake, call->images, call->image_bytes,
                        call->shape, call->dimensions);
}

static void close_model_call(bench_call *base)
{
    model_call *call = (model_call *)base;
    ei_free_predictions(call->found);
    eip_lane_close(&call->lane);
    free(call->answers);
    free(call->images);
    free(call);
}

static model_call *make_call(const bench_subject *subject, const void *images, int32_t batch)
{
    model_call *call = eip_allocate(1, sizeof *call);
    if (!call)
        return NULL;
    call->base = (bench_call){predict, close_model_call};
    call->model = subject->model;
    call->count = (size_t)batch;
    call->images = eip_allocate((size_t)batch, sizeof *call->images);
    if (!call->images) {
        free(call);
        return NULL;
    }
    size_t bytes = bench_subject_bytes(subject, 1);
    for (size_t i = 0; i < call->count; i++)
        call->images[i] = (ei_image){.data = (const char *)images + i * bytes,
                                     .width = subject->width,
                                     .height = subject->height,
                                     .format = subject->format};
    return call;
}

ei_status bench_subject_call(const bench_subject *subject, const void *images, int32_t batch,
                             bench_call **call)
{
    *call = NULL;
    if (!subject->model)
        return bench_bare_call(subject, images, batch, call);
    model_call *made = make_call(subject, images, batch);
    if (!made)
        return EI_OUT_OF_MEMORY;
    *call = &made->base;
    return EI_OK;
}

ei_status bench_subject_compute(const bench_subject *subject, const void *images, int32_t batch,
                                bench_call **compute_call)
{
    *compute_call = NULL;
    if (!subject->model || !subject->session->on_cpu)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "--stages is for models on the CPU here; a GPU's copies are timed by: "
                        "edge-imprint bench --stages");
    size_t most = eip_most_images(subject->session);
    if (most && (size_t)batch > most)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "stages are those of one run, which takes at most %zu images here, got a "
                        "batch of %d; give another --batch",
                        most, batch);
    model_call *call = make_call(subject, images, batch);
    if (!call)
        return EI_OUT_OF_MEMORY;
    call->base.run = compute;
    eip_knowledge *known = eip_know(subject->model);
    size_t classes = known->classes;
    call->answers = eip_allocate_array((size_t)batch, (classes + 1) * sizeof(float));
    ei_status status = call->answers ? EI_OK : EI_OUT_OF_MEMORY;
    if (status) {
        eip_knowledge_release(known);
    } else {
        eip_output outputs[] = {
            {"scores", EIP_F32, classes, call->answers},
            {"label", EIP_I32, 0, call->answers + (size_t)batch * classes},
        };
        status = eip_lane_open(&call->lane, known, outputs, 2, (size_t)batch, 0);
    }
    if (!status)
        status = eip_intake_check(&subject->model->intake, call->images, (size_t)batch,
                                  &call->image_bytes, call->shape, &call->dimensions);
    if (status)
        close_model_call(&call->base);
    else
        *compute_call = &call->base;
    return status;
}

ei_status bench_first_label(const bench_subject *subject, char **label)
{
    void *image = NULL;
    bench_call *call = NULL;
    *label = NULL;
    ei_status status = bench_subject_images(subject, 1, (uint64_t)bench_now_ns(), &image);
    if (!status)
        status = bench_subject_call(subject, image, 1, &call);
    if (!status)
        status = call->run(call);
    if (!status) {
        *label = eip_copy_text(ei_prediction_at(((model_call *)call)->found, 0)->label);
        status = *label ? EI_OK : EI_OUT_OF_MEMORY;
    }
    bench_call_close(call);
    free(image);
    return status;
}
