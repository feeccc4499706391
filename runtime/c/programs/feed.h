/* SPDX-License-Identifier: Apache-2.0 */
/* From photos and frames to what a model takes. */
#ifndef PROGRAMS_FEED_H
#define PROGRAMS_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edge_imprint.h"
#include "frame.h"
#include "photo.h"

#define FEED_MESSAGE 1024

/* What a model takes, and memory for it. */
typedef struct feed {
    ei_model *model;
    ei_description about;
    bool takes_frames;     /* of a camera; else pixels of the network's size, or embeddings */
    bool takes_embeddings; /* no pixels at all */
    frame_colour colour;   /* of the frames it takes */
    uint8_t *rgb;          /* a frame as RGB */
    size_t rgb_bytes;
    uint8_t *pixels; /* what goes into the model */
    size_t pixel_bytes;
} feed;

/* Ask a model what it takes. */
void feed_open(feed *feed, ei_model *model);

void feed_close(feed *feed);

/* Make an image for the model of a photo: resized and cut, or, where it takes frames, turned into
 * one, if it has a frame's size.
 *
 *   image    becomes it; stays until the next call
 *   message  becomes what is wrong with it, in a sentence
 *
 * Returns whether it could. */
bool feed_photo(feed *feed, const photo *photo, ei_image *image, char message[FEED_MESSAGE]);

/* Make an image of a camera's frame likewise; `colour` is of the frame. */
bool feed_frame(feed *feed, const ei_image *frame, frame_colour colour, ei_image *image,
                char message[FEED_MESSAGE]);

#endif
