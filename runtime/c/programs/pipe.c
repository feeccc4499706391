/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "source.h"

static const char *name_of(const pipe_source *source)
{
    return source->path ? source->path : "stdin";
}

static source_state failed(const pipe_source *source, const char *what, char *message)
{
    snprintf(message, SOURCE_MESSAGE, "cannot %s %.600s: %s", what, name_of(source),
             strerror(errno));
    return SOURCE_FAILED;
}

bool pipe_make(const char *path, char message[SOURCE_MESSAGE])
{
    pipe_source source = {.path = path};
    struct stat facts;
    if (mkfifo(path, 0660) && errno != EEXIST)
        return failed(&source, "make the pipe", message), false;
    if (stat(path, &facts))
        return failed(&source, "read", message), false;
    if (S_ISFIFO(facts.st_mode))
        return true;
    snprintf(message, SOURCE_MESSAGE,
             "%.600s is no named pipe; name one, or a path where one can be made", path);
    return false;
}

bool pipe_open(pipe_source *source, const char *path, const frame_form *form,
               char message[SOURCE_MESSAGE])
{
    *source = (pipe_source){.path = path, .file = path ? -1 : STDIN_FILENO};
    if (path && !pipe_make(path, message))
        return false;
    source->bytes = frame_bytes(form->format, form->width, form->height);
    source->data = malloc(source->bytes);
    if (!source->data)
        snprintf(message, SOURCE_MESSAGE, "there is not enough memory for a frame of %zu bytes",
                 source->bytes);
    return source->data != NULL;
}

/* Read one frame; its bytes that came are fewer where the pipe ends. -1: errno. */
static ssize_t read_frame(const pipe_source *source)
{
    size_t got = 0;
    while (got < source->bytes) {
        ssize_t part = read(source->file, source->data + got, source->bytes - got);
        if (part < 0 && errno == EAGAIN) { /* whoever opened stdin for us did not want to wait */
            struct pollfd wait = {.fd = source->file, .events = POLLIN};
            poll(&wait, 1, -1);
        } else if (part < 0 && errno != EINTR) {
            return -1;
        } else if (!part) {
            break;
        } else if (part > 0) {
            got += (size_t)part;
        }
    }
    return (ssize_t)got;
}

/* Open a named pipe, which does not wait for a writer: pipe_next does. The end that was open is
 * closed afterwards, since what is in a pipe that nobody has open is lost. */
static bool open_anew(pipe_source *source)
{
    int file = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (source->file >= 0)
        close(source->file);
    source->file = file;
    return file >= 0;
}

source_state pipe_next(pipe_source *source, const frame_form *form, ei_image *frame,
                       char message[SOURCE_MESSAGE])
{
    if (source->file < 0 && !open_anew(source))
        return failed(source, "read", message);
    if (source->path) { /* until there is something to read, or who wrote has left */
        struct pollfd wait = {.fd = source->file, .events = POLLIN};
        while (poll(&wait, 1, -1) < 0 && errno == EINTR)
            continue;
    }
    ssize_t got = read_frame(source);
    if (got == (ssize_t)source->bytes) {
        *frame = (ei_image){source->data, form->width, form->height, form->format, 0, NULL};
        source->count++;
        return SOURCE_FRAME;
    }
    if (got < 0)
        return failed(source, "read", message);
    if (source->path) /* the next who writes begins with a whole frame */
        open_anew(source);
    if (!got)
        return SOURCE_END;
    snprintf(message, SOURCE_MESSAGE,
             "%.600s ended within frame %lld: %zd of %zu bytes came; write whole frames of %d x %d "
             "%s, or say otherwise with --frame and --format",
             name_of(source), (long long)source->count, got, source->bytes, form->width,
             form->height, frame_formats[form->format]);
    return SOURCE_TORN;
}

void pipe_close(pipe_source *source)
{
    if (source->path && source->file >= 0)
        close(source->file);
    free(source->data);
    source->data = NULL;
}
