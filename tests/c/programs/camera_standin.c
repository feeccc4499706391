/* SPDX-License-Identifier: Apache-2.0 */
/* kind: shared library
 *
 * A camera for machines without one, preloaded: /dev/standin answers Video4Linux's calls as a
 * driver does, its buffers in a file of memory, and delivers the frames of a file.
 *
 *   STANDIN_FRAMES  the file: frames as they lie in a buffer, one after the other
 *   STANDIN_FORM    "FOURCC WIDTH HEIGHT STRIDE BYTES QUANTIZATION ENCODING"
 *   STANDIN_FAILS   an ioctl's name without VIDIOC_, which then fails with EIO; or "empty"
 *
 * The first buffer is marked as damaged; before the second it asks to wait. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUFFERS 3 /* fewer than are asked for, as drivers do */

static int camera = -1, frames = -1, streaming;
static unsigned width, height, stride, bytes, quantization, encoding;
static char fourcc[5];
static unsigned queued[BUFFERS], queue_length, delivered;

int open(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...);
    va_list rest;
    va_start(rest, flags);
    int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
    va_end(rest);
    *(void **)&real = dlsym(RTLD_NEXT, "open");
    if (strcmp(path, "/dev/standin"))
        return real(path, flags, mode);
    sscanf(getenv("STANDIN_FORM"), "%4s %u %u %u %u %u %u", fourcc, &width, &height, &stride,
           &bytes, &quantization, &encoding);
    frames = real(getenv("STANDIN_FRAMES"), O_RDONLY);
    camera = memfd_create("camera", MFD_CLOEXEC);
    if (ftruncate(camera, (off_t)BUFFERS << 20))
        abort();
    return camera;
}

static int fail(int with)
{
    errno = with;
    return -1;
}

static int fill(struct v4l2_pix_format *pixels)
{
    memset(pixels, 0, sizeof *pixels);
    memcpy(&pixels->pixelformat, fourcc, 4); /* what it can, whatever was asked */
    pixels->width = width;
    pixels->height = height;
    pixels->bytesperline = stride;
    pixels->quantization = quantization;
    pixels->ycbcr_enc = encoding;
    return 0;
}

static int deliver(struct v4l2_buffer *buffer)
{
    static char data[1 << 20];
    if (!streaming || !queue_length)
        return fail(EINVAL);
    if (delivered++ == 1)
        return fail(EAGAIN);
    buffer->index = queued[0];
    memmove(queued, queued + 1, --queue_length * sizeof *queued);
    if (delivered == 1) {
        buffer->flags = V4L2_BUF_FLAG_ERROR;
        return 0;
    }
    buffer->flags = 0;
    ssize_t got = read(frames, data, bytes);
    if (got != (ssize_t)bytes)
        return fail(ENODEV); /* pulled out */
    return pwrite(camera, data, bytes, (off_t)buffer->index << 20) == got ? 0 : -1;
}

int ioctl(int file, unsigned long request, ...)
{
    int (*real)(int, unsigned long, ...);
    va_list rest;
    va_start(rest, request);
    void *with = va_arg(rest, void *);
    va_end(rest);
    *(void **)&real = dlsym(RTLD_NEXT, "ioctl");
    if (file != camera || camera < 0)
        return real(file, request, with);
    const char *fails = getenv("STANDIN_FAILS");
    struct v4l2_buffer *buffer = with;
#define CASE(name)          \
    case VIDIOC_##name:     \
        if (fails && !strcmp(fails, #name)) \
            return fail(EIO)
    switch (request) {
        CASE(QUERYCAP);
        memset(with, 0, sizeof(struct v4l2_capability));
        ((struct v4l2_capability *)with)->capabilities = V4L2_CAP_DEVICE_CAPS;
        if (!fails || strcmp(fails, "capture"))
            ((struct v4l2_capability *)with)->device_caps =
                V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
        CASE(G_FMT);
        return fill(&((struct v4l2_format *)with)->fmt.pix);
        CASE(S_FMT);
        return fill(&((struct v4l2_format *)with)->fmt.pix);
        CASE(REQBUFS);
        ((struct v4l2_requestbuffers *)with)->count = BUFFERS;
        return 0;
        CASE(QUERYBUF);
        buffer->length = fails && !strcmp(fails, "short") ? 16 : bytes;
        buffer->m.offset = buffer->index << 20;
        return 0;
        CASE(QBUF);
        if (queue_length == BUFFERS || buffer->index >= BUFFERS)
            return fail(EINVAL);
        queued[queue_length++] = buffer->index;
        return 0;
        CASE(STREAMON);
        streaming = 1;
        return 0;
        CASE(STREAMOFF);
        streaming = 0;
        return 0;
        CASE(DQBUF);
        return deliver(buffer);
    }
    return fail(ENOTTY);
}
