/* SPDX-License-Identifier: Apache-2.0 */
/* Camera frames: what they are, and from their colours to RGB and back, as docs/frames.md says. */
#ifndef PROGRAMS_FRAME_H
#define PROGRAMS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edge_imprint.h"

/* What Y, U and V mean. */
typedef struct frame_colour {
    bool is_bt709; /* else BT.601 */
    bool is_full;  /* else limited: Y from 16 to 235 */
} frame_colour;

/* Names of ei_format up to EI_YUYV, as options and the contract call them; ends in NULL. */
extern const char *const frame_formats[];

/* Read "bt601", "bt709,full" and the like: an option_reader; value is a frame_colour. */
const char *read_colour(const char *text, void *value);

bool frame_is_yuv(ei_format format);

/* Return the bytes of a frame whose rows follow each other; 0 where Y, U and V want even sides. */
size_t frame_bytes(ei_format format, int32_t width, int32_t height);

/* Turn a frame of EI_NV12 or EI_YUYV into RGB: width * height * 3 bytes. */
void frame_to_rgb(const ei_image *frame, frame_colour colour, uint8_t *rgb);

/* Turn RGB into a frame of EI_NV12 or EI_YUYV, its rows one after the other; U and V are the mean
 * of the pixels that share them. */
void frame_from_rgb(const uint8_t *rgb, int32_t width, int32_t height, ei_format format,
                    frame_colour colour, uint8_t *frame);

#endif
