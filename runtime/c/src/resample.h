/* SPDX-License-Identifier: Apache-2.0 */
/* Resizing of RGB pixels, each number what Pillow makes of it: weights in fixed point, 8 bits
 * between the two directions. */
#ifndef EIP_RESAMPLE_H
#define EIP_RESAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "contract.h"
#include "errors.h"

/* A part of a picture: rows of 3 bytes a pixel. */
typedef struct eip_picture {
    const uint8_t *data; /* of row 0, column 0 */
    size_t stride_bytes;
    int32_t width, height;
} eip_picture;

/* What to make of it: a window of the resized picture. */
typedef struct eip_window {
    int32_t resized_width, resized_height; /* of the whole */
    int32_t left, top, width, height;      /* what is wanted of it; lies within */
} eip_window;

/* Resize, with one of Pillow's filters.
 *
 *   to            takes window->height rows of window->width pixels
 *   stride_bytes  from one of them to the next
 *
 * Fails with EI_OUT_OF_MEMORY. */
ei_status eip_resample(const eip_picture *photo, const eip_window *window,
                       eip_interpolation filter, uint8_t *to, size_t stride_bytes);

#endif
