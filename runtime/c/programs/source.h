/* SPDX-License-Identifier: Apache-2.0 */
/* Where frames come from: stdin, a named pipe, a camera. */
#ifndef PROGRAMS_SOURCE_H
#define PROGRAMS_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edge_imprint.h"
#include "frame.h"

#define SOURCE_MESSAGE 1024

/* What the frames are. */
typedef struct frame_form {
    ei_format format;
    int32_t width, height;
    frame_colour colour;
} frame_form;

/* What came of asking for the next frame. */
typedef enum {
    SOURCE_FRAME,  /* a frame */
    SOURCE_TORN,   /* the pipe ended within one; the message says so */
    SOURCE_END,    /* the pipe ended after a whole one */
    SOURCE_FAILED  /* it can't be read; the message says why */
} source_state;

/* A pipe of frames, one after the other, without anything between them. */
typedef struct pipe_source {
    const char *path; /* NULL: stdin */
    int file;
    uint8_t *data;
    size_t bytes; /* of a frame */
    int64_t count; /* whole frames so far */
} pipe_source;

/* Make a named pipe where there is none. */
bool pipe_make(const char *path, char message[SOURCE_MESSAGE]);

/* Get ready to read frames. A named pipe is made where there is none; it is opened at the first
 * frame, and again when who writes into it has gone. */
bool pipe_open(pipe_source *source, const char *path, const frame_form *form,
               char message[SOURCE_MESSAGE]);

/* Read the next frame. After SOURCE_TORN and SOURCE_END of a named pipe it may be asked again. */
source_state pipe_next(pipe_source *source, const frame_form *form, ei_image *frame,
                       char message[SOURCE_MESSAGE]);

void pipe_close(pipe_source *source);

/* A camera by Video4Linux, its buffers mapped. */
#define CAMERA_BUFFERS 4

typedef struct camera {
    const char *path;
    int file;
    frame_form form;
    size_t stride_bytes;
    void *buffers[CAMERA_BUFFERS];
    size_t buffer_bytes[CAMERA_BUFFERS];
    unsigned buffer_count;
    int held; /* the buffer of the last frame; -1: none */
} camera;

/* Open a camera and start it.
 *
 *   wanted     the size, or 0 x 0 for the one that it has
 *   only       the format it must deliver, or -1 for the first it can of YUYV, NV12, RGB and BGR
 *
 * `camera->form` becomes what it delivers, colours as it says. */
bool camera_open(camera *camera, const char *path, int32_t width, int32_t height, int only,
                 char message[SOURCE_MESSAGE]);

/* Wait for the next frame, 10 seconds at most; it stays until the next call. */
source_state camera_next(camera *camera, ei_image *frame, char message[SOURCE_MESSAGE]);

void camera_close(camera *camera);

#endif
