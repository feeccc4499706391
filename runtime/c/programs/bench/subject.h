/* SPDX-License-Identifier: Apache-2.0 */
/* What is measured: a model as a user calls it, or a bare session, on random images that are the
 * same in every run. */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"
#include "session.h"

#define BENCH_BACKBONE "backbone only"

typedef struct bench_subject {
    const char *name;     /* of its series: "fused", "head", "backbone only", or as was asked */
    ei_model *model;      /* NULL: a session alone */
    eip_session *session; /* of it, or of the model */
    bool any_size;        /* it takes frames of any size */
    bool numbers;         /* float32; else bytes */
    ei_format format;     /* of a model */
    int32_t width, height;
    size_t image_numbers;  /* of one image, of either kind */
    size_t embedding_size; /* of a session alone */
    int64_t shape[4];     /* of one image in a run, the batch first */
    int dimensions;
} bench_subject;

/* A call that is timed, on images of its own. */
typedef struct bench_call bench_call;
struct bench_call {
    ei_status (*run)(bench_call *call);
    void (*close)(bench_call *call);
};

/* Open a file: a model, or a backbone alone, which has no contract but the one output "embedding".
 *
 *   name   of a model's series; NULL: "fused", or "head" where it takes embeddings
 *   alone  of a backbone's */
ei_status bench_subject_open(const char *path, const char *name, const char *alone,
                             const ei_options *options, bench_subject *subject);

/* Open the same file without its head, as "backbone only". */
ei_status bench_subject_headless(const char *path, const bench_subject *whole,
                                 const ei_options *options, bench_subject *subject);

void bench_subject_close(bench_subject *subject);

/* Say of which size frames are ({0, 0}: none was given): EI_INVALID_ARGUMENT where a size is
 * missing, or given where there is but one. Before any images are made. */
ei_status bench_subject_size(bench_subject *subject, const int32_t frame_size[2]);

/* Refuse more images than half of the memory takes, each caller with a batch of its own: a system
 * that overcommits would promise any number of bytes, and kill who uses them. */
ei_status bench_subject_fits(const bench_subject *subject, int32_t batch, int callers);

/* Make `batch` random images, to be freed. */
ei_status bench_subject_images(const bench_subject *subject, int32_t batch, uint64_t seed,
                               void **images);

/* Return how many bytes `batch` images have. */
size_t bench_subject_bytes(const bench_subject *subject, int32_t batch);

/* Make a call on images, which must stay as long as it. */
ei_status bench_subject_call(const bench_subject *subject, const void *images, int32_t batch,
                             bench_call **call);

/* Make a call that runs a model's session alone, without the checks of what goes in and the
 * reading of what comes out: the stage "compute". */
ei_status bench_subject_compute(const bench_subject *subject, const void *images, int32_t batch,
                                bench_call **call);

/* Classify one random image and return the label, to be freed: what a cold start ends with. */
ei_status bench_first_label(const bench_subject *subject, char **label);

/* Close a call; NULL is let pass. */
void bench_call_close(bench_call *call);

/* A session called bare (bare.c). */
ei_status bench_bare_call(const bench_subject *subject, const void *images, int32_t batch,
                          bench_call **call);

#endif
