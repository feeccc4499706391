/* SPDX-License-Identifier: Apache-2.0 */
/* Video4Linux: frames where the driver puts them, mapped into this process. */
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "source.h"

#define WAIT_MS 10000

static const struct {
    ei_format format;
    uint32_t fourcc;
} formats[] = {{EI_YUYV, V4L2_PIX_FMT_YUYV},
               {EI_NV12, V4L2_PIX_FMT_NV12},
               {EI_RGB8, V4L2_PIX_FMT_RGB24},
               {EI_BGR8, V4L2_PIX_FMT_BGR24}};

static int ask(const camera *camera, unsigned long what, void *with)
{
    int answer;
    do
        answer = ioctl(camera->file, what, with);
    while (answer < 0 && errno == EINTR);
    return answer;
}

static bool failed(const camera *camera, const char *what, char message[SOURCE_MESSAGE])
{
    snprintf(message, SOURCE_MESSAGE, "the camera %.600s: cannot %s: %s", camera->path, what,
             strerror(errno));
    return false;
}

/* Read the colours that the driver tells; what it leaves open is BT.601, limited. */
static frame_colour colour_of(const struct v4l2_pix_format *pixels)
{
    bool hd = pixels->ycbcr_enc == V4L2_YCBCR_ENC_709 ||
              (pixels->ycbcr_enc == V4L2_YCBCR_ENC_DEFAULT &&
               pixels->colorspace == V4L2_COLORSPACE_REC709);
    bool full = pixels->quantization == V4L2_QUANTIZATION_FULL_RANGE ||
                (pixels->quantization == V4L2_QUANTIZATION_DEFAULT &&
                 pixels->colorspace == V4L2_COLORSPACE_JPEG);
    return (frame_colour){hd, full};
}

/* Agree on a format and a size; drivers answer with what they can instead of what was asked. */
static bool set_format(camera *camera, int32_t width, int32_t height, int only,
                       char message[SOURCE_MESSAGE])
{
    struct v4l2_format format = {.type = V4L2_BUF_TYPE_VIDEO_CAPTURE};
    if (ask(camera, VIDIOC_G_FMT, &format))
        return failed(camera, "ask its format", message);
    uint32_t asked_width = width ? (uint32_t)width : format.fmt.pix.width;
    uint32_t asked_height = height ? (uint32_t)height : format.fmt.pix.height;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (only >= 0 && (ei_format)only != formats[i].format)
            continue;
        struct v4l2_pix_format *pixels = &format.fmt.pix;
        memset(pixels, 0, sizeof *pixels);
        pixels->width = asked_width;
        pixels->height = asked_height;
        pixels->pixelformat = formats[i].fourcc;
        pixels->field = V4L2_FIELD_NONE;
        if (ask(camera, VIDIOC_S_FMT, &format) || pixels->pixelformat != formats[i].fourcc)
            continue;
        if (pixels->width != asked_width || pixels->height != asked_height) {
            snprintf(message, SOURCE_MESSAGE,
                     "the camera %.600s delivers %u x %u pixels, not %u x %u; "
                     "v4l2-ctl --list-formats-ext shows what it can",
                     camera->path, pixels->width, pixels->height, asked_width, asked_height);
            return false;
        }
        camera->form = (frame_form){formats[i].format, (int32_t)pixels->width,
                                    (int32_t)pixels->height, colour_of(pixels)};
        camera->stride_bytes = pixels->bytesperline;
        if (!frame_bytes(camera->form.format, camera->form.width, camera->form.height))
            break;
        return true;
    }
    snprintf(message, SOURCE_MESSAGE, "the camera %.600s delivers no %s; %s", camera->path,
             only >= 0 ? frame_formats[only] : "frames of YUYV, NV12, RGB or BGR",
             "v4l2-ctl --list-formats-ext shows what it can");
    return false;
}

static bool map_buffers(camera *camera, char message[SOURCE_MESSAGE])
{
    struct v4l2_requestbuffers request = {.count = CAMERA_BUFFERS,
                                          .type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
                                          .memory = V4L2_MEMORY_MMAP};
    if (ask(camera, VIDIOC_REQBUFS, &request))
        return failed(camera, "get buffers", message);
    if (request.count < 2 || request.count > CAMERA_BUFFERS) {
        errno = ENOMEM;
        return failed(camera, "get buffers", message);
    }
    for (uint32_t i = 0; i < request.count; i++) {
        struct v4l2_buffer buffer = {.type = request.type, .memory = request.memory, .index = i};
        if (ask(camera, VIDIOC_QUERYBUF, &buffer))
            return failed(camera, "get buffers", message);
        void *memory = mmap(NULL, buffer.length, PROT_READ, MAP_SHARED, camera->file,
                            (off_t)buffer.m.offset);
        if (memory == MAP_FAILED)
            return failed(camera, "map buffers", message);
        camera->buffers[i] = memory;
        camera->buffer_bytes[i] = buffer.length;
        camera->buffer_count = i + 1;
        if (ask(camera, VIDIOC_QBUF, &buffer))
            return failed(camera, "get buffers", message);
    }
    return true;
}

static void no_camera(const camera *camera, char message[SOURCE_MESSAGE])
{
    snprintf(message, SOURCE_MESSAGE,
             "%.600s is no camera that streams; v4l2-ctl --list-devices shows them", camera->path);
}

static bool not_opened(const camera *camera, char message[SOURCE_MESSAGE])
{
    const char *help = errno == EACCES || errno == EPERM
                           ? "be of the group that ls -l names for it"
                           : "v4l2-ctl --list-devices shows the cameras";
    snprintf(message, SOURCE_MESSAGE, "the camera %.600s: cannot open it: %s; %s", camera->path,
             strerror(errno), help);
    return false;
}

bool camera_open(camera *camera, const char *path, int32_t width, int32_t height, int only,
                 char message[SOURCE_MESSAGE])
{
    *camera = (struct camera){.path = path, .held = -1};
    camera->file = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (camera->file < 0)
        return not_opened(camera, message);
    struct v4l2_capability can;
    bool good = !ask(camera, VIDIOC_QUERYCAP, &can);
    if (!good && errno == ENOTTY)
        no_camera(camera, message);
    else if (!good)
        failed(camera, "ask what it is", message);
    if (good) {
        uint32_t has = can.capabilities & V4L2_CAP_DEVICE_CAPS ? can.device_caps : can.capabilities;
        good = has & V4L2_CAP_VIDEO_CAPTURE && has & V4L2_CAP_STREAMING;
        if (!good)
            no_camera(camera, message);
    }
    good = good && set_format(camera, width, height, only, message) && map_buffers(camera, message);
    int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (good && ask(camera, VIDIOC_STREAMON, &type))
        good = failed(camera, "start it", message);
    if (!good)
        camera_close(camera);
    return good;
}

/* Take the next filled buffer; frames that the driver marks as damaged go back. */
static source_state take(camera *camera, struct v4l2_buffer *buffer, char message[SOURCE_MESSAGE])
{
    for (;;) {
        struct pollfd wait = {.fd = camera->file, .events = POLLIN};
        int ready = poll(&wait, 1, WAIT_MS);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0) {
            snprintf(message, SOURCE_MESSAGE, "the camera %.600s gave no frame for %d seconds",
                     camera->path, WAIT_MS / 1000);
            return SOURCE_FAILED;
        }
        if (!ask(camera, VIDIOC_DQBUF, buffer)) {
            if (!(buffer->flags & V4L2_BUF_FLAG_ERROR))
                return SOURCE_FRAME;
            if (!ask(camera, VIDIOC_QBUF, buffer))
                continue;
        } else if (errno == EAGAIN) {
            continue;
        }
        failed(camera, "read a frame", message);
        return SOURCE_FAILED;
    }
}

source_state camera_next(camera *camera, ei_image *frame, char message[SOURCE_MESSAGE])
{
    struct v4l2_buffer buffer = {.type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP};
    if (camera->held >= 0) {
        buffer.index = (uint32_t)camera->held;
        camera->held = -1;
        if (ask(camera, VIDIOC_QBUF, &buffer)) {
            failed(camera, "read a frame", message);
            return SOURCE_FAILED;
        }
    }
    source_state state = take(camera, &buffer, message);
    if (state != SOURCE_FRAME)
        return state;
    const frame_form *form = &camera->form;
    size_t rows = (size_t)form->height * (form->format == EI_NV12 ? 3 : 2) / 2;
    size_t packed = frame_bytes(form->format, form->width, form->height) / rows;
    size_t stride = camera->stride_bytes > packed ? camera->stride_bytes : packed;
    if (buffer.index >= camera->buffer_count ||
        camera->buffer_bytes[buffer.index] < stride * (rows - 1) + packed) {
        snprintf(message, SOURCE_MESSAGE, "the camera %.600s gave less than a frame", camera->path);
        return SOURCE_FAILED;
    }
    camera->held = (int)buffer.index;
    *frame = (ei_image){camera->buffers[buffer.index], form->width, form->height, form->format,
                        stride, NULL};
    return SOURCE_FRAME;
}

void camera_close(camera *camera)
{
    int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (camera->file < 0)
        return;
    ask(camera, VIDIOC_STREAMOFF, &type);
    for (unsigned i = 0; i < camera->buffer_count; i++)
        munmap(camera->buffers[i], camera->buffer_bytes[i]);
    close(camera->file);
    camera->file = -1;
}
