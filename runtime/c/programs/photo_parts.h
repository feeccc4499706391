/* SPDX-License-Identifier: Apache-2.0 */
/* What photo.c puts together: one decoder a format, and the EXIF rotation. */
#ifndef PROGRAMS_PHOTO_PARTS_H
#define PROGRAMS_PHOTO_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "photo.h"

/* A file that is being read, and the photo that it becomes. */
typedef struct photo_job {
    const uint8_t *data;
    size_t bytes;
    photo *photo;
    int orientation; /* EXIF's 1 to 8; else nothing is turned */
    const char *other; /* the format's name where it is one that is not read; else NULL */
    char reason[256];  /* what is wrong with it, in words */
} photo_job;

/* Decode; the photo's pixels are freed by the caller, after a failure too. */
photo_status photo_jpeg(photo_job *job);
photo_status photo_png(photo_job *job);
photo_status photo_ppm(photo_job *job);

/* Note why, and return PHOTO_BROKEN. */
photo_status photo_broken(photo_job *job, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Set the size, within the limit, and allocate the pixels. */
photo_status photo_allocate(photo_job *job, uint64_t width, uint64_t height);

/* Open a library and its functions: pairs of a name and where to put it, up to NULL. Fails with
 * PHOTO_NO_LIBRARY; `package` is Debian's name of what to install. */
typedef struct photo_symbol {
    const char *name;
    void *function; /* a pointer to a pointer to a function */
} photo_symbol;

photo_status photo_library(photo_job *job, const char *file, const char *package,
                           const photo_symbol *symbols);

/* What may say how a photo is turned. */
typedef struct photo_turn {
    const uint8_t *exif; /* NULL: none */
    size_t exif_bytes;
    const uint8_t *xmp; /* NULL: none */
    size_t xmp_bytes;
} photo_turn;

/* Return the orientation, 0 where none is stated, -1 where the EXIF data have no TIFF header. */
int photo_orientation(const photo_turn *turn);

/* Read a big-endian number. */
static inline uint32_t photo_big(const uint8_t *at, int bytes)
{
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

#endif
