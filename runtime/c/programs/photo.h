/* SPDX-License-Identifier: Apache-2.0 */
/* Photos: JPEG, PNG and PPM files -> upright RGB, the very pixels that Python's
 * `edge_imprint_runtime.images.open_image` makes of them.
 *
 * JPEG is decoded by libturbojpeg.so.0, PNG by libpng16.so.16, opened with dlopen when the first
 * such file comes, so that the programs need neither to be built nor to start. */
#ifndef PROGRAMS_PHOTO_H
#define PROGRAMS_PHOTO_H

#include <stddef.h>
#include <stdint.h>

/* As in Python; more is a decompression bomb, not a photo. */
#define PHOTO_MAX_PIXELS 178956970

#define PHOTO_MESSAGE 1024

typedef struct photo {
    uint8_t *pixels; /* width * height * 3 bytes, RGB; freed by photo_free */
    int32_t width;
    int32_t height;
} photo;

typedef enum {
    PHOTO_READ = 0,
    PHOTO_UNREADABLE, /* the file is missing, or may not be read */
    PHOTO_BROKEN,     /* it is corrupt, truncated, empty, no image, or of another format */
    PHOTO_TOO_LARGE,  /* it has more than PHOTO_MAX_PIXELS */
    PHOTO_NO_LIBRARY, /* what decodes it is not installed */
    PHOTO_NO_MEMORY
} photo_status;

/* Read a photo as upright RGB. Grey, palette, CMYK and 16 bits are converted, transparency is laid
 * on white, the EXIF rotation is applied.
 *
 *   photo    becomes it, or zero after a failure
 *   message  becomes one sentence after a failure: what is wrong, with the file's name */
photo_status photo_read(const char *path, photo *photo, char message[PHOTO_MESSAGE]);

/* Free the pixels, and make it zero. */
void photo_free(photo *photo);

/* A list of files; freed by photo_files_free. */
typedef struct photo_files {
    char **paths;
    size_t count;
    size_t capacity;
} photo_files;

/* Add what a path stands for: itself, or the photos of a folder and its subfolders, sorted by
 * their bytes; links are followed, each folder once. Fails (PHOTO_UNREADABLE) for a folder without
 * photos, or one that can't be read. */
photo_status photo_files_add(photo_files *files, const char *path, char message[PHOTO_MESSAGE]);

void photo_files_free(photo_files *files);

#endif
