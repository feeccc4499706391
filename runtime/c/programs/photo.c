/* SPDX-License-Identifier: Apache-2.0 */
#include "photo.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "photo_parts.h"

/* A photo of PHOTO_MAX_PIXELS in the largest form that is read, 16-bit RGBA without compression,
 * is below this. */
#define MAX_FILE_BYTES ((size_t)1536 << 20)

photo_status photo_broken(photo_job *job, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(job->reason, sizeof job->reason, format, arguments);
    va_end(arguments);
    return PHOTO_BROKEN;
}

photo_status photo_allocate(photo_job *job, uint64_t width, uint64_t height)
{
    if (!width || !height)
        return photo_broken(job, "it has no pixels");
    if (width > PHOTO_MAX_PIXELS || height > PHOTO_MAX_PIXELS ||
        width * height > PHOTO_MAX_PIXELS) {
        snprintf(job->reason, sizeof job->reason, "%llu x %llu", (unsigned long long)width,
                 (unsigned long long)height);
        return PHOTO_TOO_LARGE;
    }
    job->photo->width = (int32_t)width;
    job->photo->height = (int32_t)height;
    job->photo->pixels = malloc((size_t)(width * height * 3));
    return job->photo->pixels ? PHOTO_READ : PHOTO_NO_MEMORY;
}

photo_status photo_library(photo_job *job, const char *file, const char *package,
                           const photo_symbol *symbols)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    for (const photo_symbol *symbol = symbols; library && symbol->name; symbol++) {
        void *found = dlsym(library, symbol->name);
        if (!found)
            library = NULL; /* older than anything that is still kept up; stays open */
        else
            memcpy(symbol->function, &found, sizeof found);
    }
    if (library)
        return PHOTO_READ;
    snprintf(job->reason, sizeof job->reason,
             "%s, which is not installed here; run: apt install %s", file, package);
    return PHOTO_NO_LIBRARY;
}

/* Turn the photo as EXIF says: each orientation is a place to begin, and a step in bytes for a
 * pixel to the right and one for a row down. */
static photo_status turn(photo_job *job)
{
    photo *photo = job->photo;
    int kind = job->orientation;
    if (kind < 2 || kind > 8)
        return PHOTO_READ;
    ptrdiff_t width = photo->width, height = photo->height;
    bool swaps = kind >= 5;
    bool from_right = kind == 2 || kind == 3 || kind == 7 || kind == 8;
    bool from_below = kind == 3 || kind == 4 || kind == 6 || kind == 7;
    ptrdiff_t along_row = from_right ? -3 : 3, along_column = from_below ? -3 * width : 3 * width;
    ptrdiff_t right = swaps ? along_column : along_row, down = swaps ? along_row : along_column;
    const uint8_t *from = photo->pixels + (from_right ? 3 * (width - 1) : 0) +
                          (from_below ? 3 * width * (height - 1) : 0);
    ptrdiff_t columns = swaps ? height : width, rows = swaps ? width : height;
    uint8_t *turned = malloc((size_t)(width * height * 3));
    if (!turned)
        return PHOTO_NO_MEMORY;
    uint8_t *to = turned;
    for (ptrdiff_t y = 0; y < rows; y++)
        for (ptrdiff_t x = 0; x < columns; x++, to += 3)
            memcpy(to, from + y * down + x * right, 3);
    free(photo->pixels);
    photo->pixels = turned;
    photo->width = (int32_t)columns;
    photo->height = (int32_t)rows;
    return PHOTO_READ;
}

/* Name a format that other programs read; NULL: it is none of them, either. */
static const char *other_format(const uint8_t *data, size_t bytes)
{
    static const struct {
        const char *name, *magic;
        size_t at, bytes;
    } formats[] = {{"WebP", "WEBP", 8, 4},           {"AVIF", "ftypavi", 4, 7},
                   {"HEIC", "ftyphei", 4, 7},        {"HEIC", "ftypmif1", 4, 8},
                   {"JPEG 2000", "jP  \r\n", 4, 6},  {"JPEG 2000", "\xff\x4f\xff\x51", 0, 4},
                   {"GIF", "GIF8", 0, 4},            {"TIFF", "II*\0", 0, 4},
                   {"TIFF", "MM\0*", 0, 4},          {"BMP", "BM", 0, 2},
                   {"PBM", "P4", 0, 2}};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (bytes >= formats[i].at + formats[i].bytes &&
            !memcmp(data + formats[i].at, formats[i].magic, formats[i].bytes))
            return formats[i].name;
    return NULL;
}

static photo_status decode(photo_job *job)
{
    const uint8_t *data = job->data;
    if (job->bytes >= 3 && !memcmp(data, "\xff\xd8\xff", 3))
        return photo_jpeg(job);
    if (job->bytes >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8))
        return photo_png(job);
    if (job->bytes >= 3 && data[0] == 'P' && (data[1] == '5' || data[1] == '6'))
        return photo_ppm(job);
    job->other = other_format(data, job->bytes);
    return photo_broken(job, "no JPEG, PNG or PPM file");
}

/* Put what went wrong into a sentence, the one that Python has for it. */
static photo_status say(photo_job *job, photo_status status, const char *name,
                        char message[PHOTO_MESSAGE])
{
    switch (status) {
    case PHOTO_READ:
        return status;
    case PHOTO_BROKEN:
        if (job->other) {
            snprintf(message, PHOTO_MESSAGE,
                     "the image %.600s is %s, and only JPEG, PNG and PPM are read here; convert it",
                     name, job->other);
            break;
        }
        snprintf(message, PHOTO_MESSAGE,
                 "the image %.600s is corrupt, truncated or no image (%s); "
                 "replace it or take it out",
                 name, job->reason);
        break;
    case PHOTO_TOO_LARGE:
        snprintf(message, PHOTO_MESSAGE,
                 "the image %.600s has %s pixels, the limit is 178,956,970; "
                 "make it smaller or take it out",
                 name, job->reason);
        break;
    case PHOTO_NO_LIBRARY:
        snprintf(message, PHOTO_MESSAGE, "to read the image %.600s takes %s", name, job->reason);
        break;
    default:
        snprintf(message, PHOTO_MESSAGE, "there is not enough memory for the image %.600s", name);
    }
    photo_free(job->photo);
    return status;
}

static photo_status decode_upright(const void *data, size_t bytes, const char *name,
                                   photo *photo, char message[PHOTO_MESSAGE])
{
    photo_job job = {.data = data, .bytes = bytes, .photo = photo};
    memset(photo, 0, sizeof *photo);
    photo_status status = decode(&job);
    if (status == PHOTO_READ)
        status = turn(&job);
    return say(&job, status, name, message);
}

/* Read a file whole; 0, or an errno. */
static int read_file(int file, uint8_t **data, size_t *bytes)
{
    size_t capacity = 0;
    struct stat facts;
    if (fstat(file, &facts))
        return errno;
    if (S_ISDIR(facts.st_mode))
        return EISDIR;
    for (;;) {
        if (*bytes == capacity) {
            /* The size is where to begin; what has none (a pipe, /proc) grows. */
            size_t more = capacity ? capacity * 2 : (size_t)facts.st_size + 1;
            capacity = more < 65536 ? 65536 : more;
            if (*bytes >= MAX_FILE_BYTES || (size_t)facts.st_size >= MAX_FILE_BYTES)
                return EFBIG;
            uint8_t *larger = realloc(*data, capacity);
            if (!larger)
                return ENOMEM;
            *data = larger;
        }
        ssize_t got = read(file, *data + *bytes, capacity - *bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (!got)
            return 0;
        *bytes += (size_t)got;
    }
}

photo_status photo_read(const char *path, photo *photo, char message[PHOTO_MESSAGE])
{
    memset(photo, 0, sizeof *photo);
    uint8_t *data = NULL;
    size_t bytes = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    int problem = file < 0 ? errno : read_file(file, &data, &bytes);
    if (file >= 0)
        close(file);
    photo_status status = PHOTO_UNREADABLE;
    if (problem)
        snprintf(message, PHOTO_MESSAGE, "cannot read the image %.600s: %s", path,
                 strerror(problem));
    else
        status = decode_upright(data, bytes, path, photo, message);
    free(data);
    return status;
}

void photo_free(photo *photo)
{
    free(photo->pixels);
    memset(photo, 0, sizeof *photo);
}
