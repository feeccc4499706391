/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of any number of images on a session that takes only some at a time: in parts, padded where
 * it takes a fixed number. What was bound stays bound from call to call, so that a call like the
 * one before allocates nothing. */
#ifndef EIP_LANE_H
#define EIP_LANE_H

#include "model.h"

#define EIP_MAX_OUTPUTS 5

/* An output, and where its rows go. All have numbers of 4 bytes. */
typedef struct eip_output {
    const char *name;
    eip_type type;
    size_t width; /* numbers an image; 0: one, in an output of one dimension */
    void *data;   /* (count, width) */
} eip_output;

/* The images of one run. */
typedef struct eip_part {
    size_t first, images;
    size_t rows;      /* that the session is given; above `images`: the rest are zeros */
    eip_value *input;
    eip_value *outputs[EIP_MAX_OUTPUTS];
} eip_part;

/* Zero is an empty one. */
typedef struct eip_lane {
    eip_knowledge *known; /* what is bound beside images, and whose session runs; held */
    eip_binding *binding;
    eip_output outputs[EIP_MAX_OUTPUTS];
    size_t output_count;
    size_t count;      /* images it is laid out for */
    eip_part *parts;
    size_t part_count;
    size_t bound;      /* the part that is bound; part_count: none */
    const void *source; /* the caller's memory that inputs lie in; NULL: they are copied */
    int64_t shape[4];  /* of all images */
    int dimensions;    /* 0: no part has an input yet */
    unsigned char *staging; /* images of one run, copied */
    size_t staging_bytes;
    float *spill;      /* outputs of a padded run */
} eip_lane;

/* Lay it out.
 *
 *   known    taken over, also after a failure
 *   outputs  output_count of them; their data must stay as long as the lane
 *   batch    the most images of one run; 0: as many as the session takes
 *
 * After a failure it is empty. */
ei_status eip_lane_open(eip_lane *lane, eip_knowledge *known, const eip_output *outputs,
                        size_t output_count, size_t count, size_t batch);

/* Run `lane->count` images that eip_intake_check let pass, which gave the last three. */
ei_status eip_lane_run(eip_lane *lane, const eip_intake *intake, const ei_image *images,
                       size_t image_bytes, const int64_t *shape, int dimensions);

/* Let go of all it holds; it is empty then. */
void eip_lane_close(eip_lane *lane);

/* The most images of one run; 0: no limit. */
size_t eip_most_images(const eip_session *session);

#endif
