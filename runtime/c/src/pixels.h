/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels: from what a caller has to what a model takes, and from photos to the network's size. */
#ifndef EIP_PIXELS_H
#define EIP_PIXELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "contract.h"
#include "errors.h"

/* What a model takes, of its contract. */
typedef struct eip_intake {
    eip_input input;
    ei_format format;      /* of ei_describe */
    int32_t width, height; /* 0: any; of an embedding its length, and 1 */
    double mean[3], std[3]; /* for EIP_INPUT_FLOAT32 */
} eip_intake;

eip_intake eip_intake_of(const eip_contract *contract);

/* Say the shape of `count` images of this image's width and height, as the model takes them, the
 * batch first; a side of any length is 0. */
void eip_intake_shape(const eip_intake *intake, const ei_image *image, size_t count,
                      int64_t *shape, int *dimensions);

/* Check images against it: EI_INVALID_ARGUMENT, EI_INPUT_SIZE, EI_INPUT_STRIDE, EI_INPUT_FORMAT,
 * EI_INPUT_VALUE (an embedding or float image that is not finite).
 *
 *   image_bytes, element_bytes  become the size of one image as the model takes it
 *   shape, dimensions           become the shape of all, the batch first */
ei_status eip_intake_check(const eip_intake *intake, const ei_image *images, size_t count,
                           size_t *image_bytes, int64_t *shape, int *dimensions);

/* Whether the images lie in memory just as the model takes them, one after the other. */
bool eip_intake_direct(const eip_intake *intake, const ei_image *images, size_t count,
                       size_t image_bytes);

/* Copy one checked image as the model takes it: rows packed, channels swapped, or normalised. */
void eip_intake_copy(const eip_intake *intake, const ei_image *image, void *to);

/* Resize and cut a photo as `edge_imprint_runtime.images.prepare` does.
 *
 *   pixels  takes preprocess->height * width * 3 bytes, RGB */
ei_status eip_prepare(const eip_preprocess *preprocess, const ei_image *photo, uint8_t *pixels);

#endif
