/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG by TurboJPEG's API, of which five functions are declared here; all are in it since 2.0. */
#include <stdlib.h>
#include <string.h>

#include "photo_parts.h"

enum { FORMAT_RGB = 0, FORMAT_CMYK = 11, LIMIT_SCANS = 32768, FATAL = 1 };

static void *(*open_decoder)(void);
static int (*decompress)(void *decoder, const unsigned char *data, unsigned long bytes,
                         unsigned char *pixels, int width, int pitch, int height, int format,
                         int flags);
static char *(*error_text)(void *decoder);
static int (*error_code)(void *decoder);
static int (*close_decoder)(void *decoder);

/* What the markers say. */
typedef struct markers {
    unsigned width, height, layers, bits;
    bool ends; /* there is an end-of-image marker */
    uint8_t *exif;
    size_t exif_bytes;
    const uint8_t *xmp;
    size_t xmp_bytes;
} markers;

static bool starts(const uint8_t *data, size_t bytes, const char *with, size_t length)
{
    return bytes >= length && !memcmp(data, with, length);
}

/* Keep EXIF and XMP; EXIF that does not fit one segment goes on in the next. */
static bool read_app1(markers *found, const uint8_t *data, size_t bytes)
{
    static const char exif[] = "Exif\0", xmp[] = "http://ns.adobe.com/xap/1.0/";
    if (starts(data, bytes, exif, sizeof exif)) {
        size_t more = bytes - sizeof exif;
        uint8_t *longer = realloc(found->exif, found->exif_bytes + more + 1);
        if (!longer)
            return false;
        memcpy(longer + found->exif_bytes, data + sizeof exif, more);
        found->exif = longer;
        found->exif_bytes += more;
    } else if (starts(data, bytes, xmp, sizeof xmp)) {
        found->xmp = data + sizeof xmp;
        found->xmp_bytes = bytes - sizeof xmp;
    }
    return true;
}

/* Whether a marker opens a frame: SOF0 to SOF15, of which DHT, JPG and DAC have taken three. */
static bool is_frame(uint8_t marker)
{
    return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

/* Walk from marker to marker. Whether the end is there is what tells a truncated file from one
 * whose data are only damaged; TurboJPEG warns of both alike, and Pillow takes the latter. */
static photo_status walk(photo_job *job, markers *found)
{
    const uint8_t *data = job->data;
    size_t at = 2, bytes = job->bytes;
    while (at + 1 < bytes) {
        /* Within the picture's data 0xFF is followed by 0, and RST stands alone. */
        if (data[at] != 0xFF || data[at + 1] == 0 || data[at + 1] == 0xFF) {
            at++;
            continue;
        }
        uint8_t marker = data[at + 1];
        at += 2;
        if (marker == 0xD9) {
            found->ends = true;
            return PHOTO_READ;
        }
        if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8))
            continue;
        size_t length = bytes - at < 2 ? 0 : photo_big(data + at, 2);
        if (length < 2 || length > bytes - at)
            return PHOTO_READ;
        const uint8_t *segment = data + at + 2;
        if (marker == 0xE1 && !found->layers && !read_app1(found, segment, length - 2))
            return PHOTO_NO_MEMORY;
        if (is_frame(marker) && length >= 8 && !found->layers) {
            found->bits = segment[0];
            found->height = photo_big(segment + 1, 2);
            found->width = photo_big(segment + 3, 2);
            found->layers = segment[5];
        }
        at += length;
    }
    return PHOTO_READ;
}

/* Ink to light, as Pillow does it: Adobe's polarity, whoever wrote the file. */
static void cmyk_to_rgb(const uint8_t *from, size_t pixels, uint8_t *to)
{
    for (size_t i = 0; i < pixels; i++, from += 4, to += 3) {
        unsigned light = from[3];
        for (int channel = 0; channel < 3; channel++) {
            unsigned product = (255u - from[channel]) * light + 128;
            unsigned ink = ((product >> 8) + product) >> 8;
            to[channel] = (uint8_t)(light - ink);
        }
    }
}

/* Decode to the last row. TurboJPEG fails alike for damage that it got over and for damage that
 * stopped it, once it has warned; so the last row says which it was. Two marks, since one of them
 * may be what the photo shows. */
static bool decode(const photo_job *job, void *decoder, uint8_t *to, bool cmyk)
{
    int width = job->photo->width, height = job->photo->height;
    size_t row_bytes = (size_t)width * (cmyk ? 4 : 3);
    uint8_t *last = to + row_bytes * ((size_t)height - 1);
    for (int mark = 0x5A; mark <= 0xA5; mark += 0xA5 - 0x5A) {
        memset(last, mark, row_bytes);
        if (!decompress(decoder, job->data, job->bytes, to, width, 0, height,
                        cmyk ? FORMAT_CMYK : FORMAT_RGB, LIMIT_SCANS))
            return true;
        if (error_code(decoder) == FATAL)
            return false;
        if (last[0] != mark || memcmp(last, last + 1, row_bytes - 1))
            return true;
    }
    return false;
}

static photo_status run(photo_job *job, bool cmyk)
{
    photo *photo = job->photo;
    size_t pixels = (size_t)photo->width * (size_t)photo->height;
    uint8_t *inks = cmyk ? malloc(pixels * 4) : NULL;
    void *decoder = open_decoder();
    photo_status status = PHOTO_READ;
    if (!decoder || (cmyk && !inks))
        status = PHOTO_NO_MEMORY;
    else if (!decode(job, decoder, cmyk ? inks : photo->pixels, cmyk))
        status = photo_broken(job, "%.200s", error_text(decoder));
    else if (cmyk)
        cmyk_to_rgb(inks, pixels, photo->pixels);
    if (decoder)
        close_decoder(decoder);
    free(inks);
    return status;
}

photo_status photo_jpeg(photo_job *job)
{
    static const photo_symbol symbols[] = {{"tjInitDecompress", &open_decoder},
                                           {"tjDecompress2", &decompress},
                                           {"tjGetErrorStr2", &error_text},
                                           {"tjGetErrorCode", &error_code},
                                           {"tjDestroy", &close_decoder},
                                           {NULL, NULL}};
    markers found = {0};
    photo_status status = walk(job, &found);
    if (status)
        goto done;
    if (!found.layers)
        status = photo_broken(job, "it has no frame");
    else if (found.bits != 8)
        status = photo_broken(job, "cannot handle %u-bit layers", found.bits);
    else if (found.layers != 1 && found.layers != 3 && found.layers != 4)
        status = photo_broken(job, "cannot handle %u-layer images", found.layers);
    else if (!found.ends)
        status = photo_broken(job, "image file is truncated");
    else if (!open_decoder || !close_decoder)
        status = photo_library(job, "libturbojpeg.so.0", "libturbojpeg0 (on Ubuntu: libturbojpeg)",
                               symbols);
    if (!status)
        status = photo_allocate(job, found.width, found.height);
    if (!status)
        status = run(job, found.layers == 4);
    photo_turn turn = {found.exif, found.exif_bytes, found.xmp, found.xmp_bytes};
    job->orientation = photo_orientation(&turn);
done:
    free(found.exif);
    return status;
}
