/* SPDX-License-Identifier: Apache-2.0 */
#include "feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract.h"
#include "model.h"

void feed_open(feed *feed, ei_model *model)
{
    memset(feed, 0, sizeof *feed);
    feed->model = model;
    feed->about.size = sizeof feed->about;
    ei_describe(model, &feed->about);
    /* Whether the size is a camera's or the network's, and what colours are meant, only the
     * file's metadata say. */
    feed->takes_frames = model->intake.input == EIP_INPUT_FRAME;
    feed->takes_embeddings = model->intake.input == EIP_INPUT_EMBEDDING;
    const char *line = eip_metadata_get(&model->file->metadata, "input");
    if (line && feed->takes_frames) {
        feed->colour.is_bt709 = strstr(line, " bt709 ") != NULL;
        feed->colour.is_full = strstr(line, " full") != NULL;
    }
}

void feed_close(feed *feed)
{
    free(feed->rgb);
    free(feed->pixels);
    memset(feed, 0, sizeof *feed);
}

static bool grow(uint8_t **memory, size_t *room, size_t bytes, char message[FEED_MESSAGE])
{
    if (*room >= bytes)
        return true;
    free(*memory);
    *memory = malloc(bytes);
    *room = *memory ? bytes : 0;
    if (!*memory)
        snprintf(message, FEED_MESSAGE, "there is not enough memory for it; free some");
    return *memory != NULL;
}

static bool to_network(feed *feed, const ei_image *rgb, ei_image *image,
                       char message[FEED_MESSAGE])
{
    const ei_description *about = &feed->about;
    size_t bytes = (size_t)about->width * (size_t)about->height * 3;
    if (!grow(&feed->pixels, &feed->pixel_bytes, bytes, message))
        return false;
    if (ei_prepare(feed->model, rgb, feed->pixels, bytes)) {
        snprintf(message, FEED_MESSAGE, "%s", ei_last_error());
        return false;
    }
    *image = (ei_image){feed->pixels, about->width, about->height, EI_RGB8, 0, NULL};
    return true;
}

static bool to_frame(feed *feed, const ei_image *rgb, ei_image *image, char message[FEED_MESSAGE])
{
    const ei_description *about = &feed->about;
    bool any = !about->width;
    if (!any && (rgb->width != about->width || rgb->height != about->height)) {
        snprintf(message, FEED_MESSAGE,
                 "the model takes camera frames of %d x %d pixels, a photo has %d x %d; "
                 "give photos of that size, or export with --input uint8",
                 about->width, about->height, rgb->width, rgb->height);
        return false;
    }
    *image = *rgb; /* EI_RGB8 will do where the model takes BGR, too */
    if (!frame_is_yuv(about->format))
        return true;
    size_t bytes = frame_bytes(about->format, about->width, about->height);
    if (!grow(&feed->pixels, &feed->pixel_bytes, bytes, message))
        return false;
    frame_from_rgb(rgb->data, about->width, about->height, about->format, feed->colour,
                   feed->pixels);
    *image = (ei_image){feed->pixels, about->width, about->height, about->format, 0, NULL};
    return true;
}

bool feed_photo(feed *feed, const photo *photo, ei_image *image, char message[FEED_MESSAGE])
{
    ei_image rgb = {photo->pixels, photo->width, photo->height, EI_RGB8, 0, NULL};
    if (feed->takes_embeddings) {
        snprintf(message, FEED_MESSAGE,
                 "the model has no backbone and takes embeddings, not photos: "
                 "give it float32 of shape (N, %d)",
                 feed->about.embedding_size);
        return false;
    }
    return feed->takes_frames ? to_frame(feed, &rgb, image, message)
                              : to_network(feed, &rgb, image, message);
}

bool feed_frame(feed *feed, const ei_image *frame, frame_colour colour, ei_image *image,
                char message[FEED_MESSAGE])
{
    ei_image rgb = *frame;
    /* Frames of the model's own kind go in as they are: what differs ei_predict refuses. */
    bool direct = feed->takes_frames && frame_is_yuv(feed->about.format);
    if (direct || (feed->takes_frames && !frame_is_yuv(frame->format))) {
        *image = *frame;
        return true;
    }
    if (frame->format != EI_RGB8 && frame->format != EI_BGR8) {
        size_t bytes = (size_t)frame->width * (size_t)frame->height * 3;
        if (!grow(&feed->rgb, &feed->rgb_bytes, bytes, message))
            return false;
        frame_to_rgb(frame, colour, feed->rgb);
        rgb = (ei_image){feed->rgb, frame->width, frame->height, EI_RGB8, 0, NULL};
    }
    if (feed->takes_frames) {
        *image = rgb;
        return true;
    }
    return to_network(feed, &rgb, image, message);
}
