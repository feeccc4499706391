/* SPDX-License-Identifier: Apache-2.0 */
/* PNG by libpng's own API, of which the functions used are declared here. It gives the samples as
 * they are stored: its simplified API would apply gamma, which Pillow, and so the classes, never
 * saw. Chunks are read here, since what Pillow takes of them is not what libpng does. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "photo_parts.h"

#define MAX_TEXT_BYTES (1 << 20)

static const char *(*version_of)(const void *png);
static void *(*create_reader)(const char *version, void *user, void (*fail)(void *, const char *),
                              void (*warn)(void *, const char *));
static void *(*create_info)(void *png);
static void (*destroy_reader)(void **png, void **info, void **end_info);
static void *(*error_pointer)(const void *png);
static void *(*io_pointer)(const void *png);
static void (*set_reader)(void *png, void *user, void (*read)(void *, uint8_t *, size_t));
static void (*set_limits)(void *png, uint32_t width, uint32_t height);
static void (*keep_chunks)(void *png, int keep, const uint8_t *names, int count);
static void (*read_info)(void *png, void *info);
static void (*set_packing)(void *png);
static int (*set_interlace)(void *png);
static void (*update_info)(void *png, void *info);
static size_t (*row_bytes)(const void *png, const void *info);
static void (*read_row)(void *png, uint8_t *row, uint8_t *display);

enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGB_ALPHA = 6 };

/* A file that is being read. All of it outlives a jump out of libpng. */
typedef struct reader {
    photo_job *job;
    size_t at; /* what libpng has read */
    uint32_t width, height;
    int depth, kind;
    bool interlaced;
    uint8_t palette[256][4]; /* RGBA */
    bool has_clear;          /* one colour is transparent */
    uint8_t clear[3];
    bool has_alpha;
    photo_turn turn;
    uint8_t *owned[2]; /* EXIF and XMP that had to be unpacked */
    void *png, *info;
    uint8_t *row;
    jmp_buf failed;
} reader;

/* ------------------------------------------------------------------------------- chunks -- */

static uint32_t checksum(const uint8_t *data, size_t bytes)
{
    uint32_t sum = 0xFFFFFFFF;
    for (size_t i = 0; i < bytes; i++) {
        sum ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xEDB88320 : 0);
    }
    return ~sum;
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                                              : -1;
}

/* Read what ImageMagick writes in place of eXIf: three lines, then EXIF in hexadecimal. */
static bool read_profile(reader *reader, const uint8_t *text, size_t bytes)
{
    size_t at = 0, count = 0;
    for (int line = 0; line < 3 && at < bytes; at++)
        line += text[at] == '\n';
    uint8_t *exif = malloc((bytes - at) / 2 + 1);
    if (!exif)
        return false;
    int high = -1;
    for (; at < bytes; at++) {
        int digit = hex_digit(text[at]);
        if (digit < 0)
            continue; /* blanks and ends of lines */
        if (high >= 0)
            exif[count++] = (uint8_t)(high << 4 | digit);
        high = high >= 0 ? -1 : digit;
    }
    free(reader->owned[0]);
    reader->owned[0] = exif;
    if (!reader->turn.exif) { /* eXIf goes first */
        reader->turn.exif = exif;
        reader->turn.exif_bytes = count;
    }
    return true;
}

/* Unpack a text by zlib, which libpng brings with it; NULL: it can't be. */
static uint8_t *unpack(const uint8_t *data, size_t bytes, size_t *unpacked)
{
    int (*uncompress)(uint8_t *, unsigned long *, const uint8_t *, unsigned long) = NULL;
    const photo_symbol symbols[] = {{"uncompress", &uncompress}, {NULL, NULL}};
    photo_job nobody = {0};
    unsigned long room = MAX_TEXT_BYTES;
    uint8_t *text = malloc(MAX_TEXT_BYTES);
    if (!text || photo_library(&nobody, "libz.so.1", "zlib1g", symbols) ||
        uncompress(text, &room, data, bytes)) {
        free(text);
        return NULL;
    }
    *unpacked = room;
    return text;
}

/* Read tEXt, zTXt or iTXt, of which two keywords can say how the photo is turned. */
static void read_text(reader *reader, char kind, const uint8_t *data, size_t bytes)
{
    static const char exif[] = "Raw profile type exif", xmp[] = "XML:com.adobe.xmp";
    bool is_exif = bytes > sizeof exif && !memcmp(data, exif, sizeof exif);
    bool is_xmp = bytes > sizeof xmp && !memcmp(data, xmp, sizeof xmp) && kind == 'i';
    if (!is_exif && !is_xmp)
        return;
    size_t at = is_exif ? sizeof exif : sizeof xmp;
    bool packed = kind == 'z';
    if (kind == 'z')
        at += 1;
    if (kind == 'i') { /* a flag, a method, then language and translated keyword, each with a NUL */
        packed = data[at] == 1;
        at += 2;
        for (int skip = 0; skip < 2 && at < bytes; skip++) {
            const uint8_t *end = memchr(data + at, 0, bytes - at);
            at = end ? (size_t)(end - data) + 1 : bytes;
        }
    }
    if (at >= bytes)
        return;
    const uint8_t *text = data + at;
    size_t length = bytes - at;
    uint8_t *unpacked = packed ? unpack(text, length, &length) : NULL;
    if (packed && !unpacked)
        return;
    if (is_exif) {
        read_profile(reader, packed ? unpacked : text, length);
        free(unpacked);
    } else {
        free(reader->owned[1]);
        reader->owned[1] = unpacked;
        reader->turn.xmp = packed ? unpacked : text;
        reader->turn.xmp_bytes = length;
    }
}

static photo_status read_header(reader *reader, const uint8_t *data, size_t bytes)
{
    if (bytes < 13)
        return photo_broken(reader->job, "its PNG header is damaged");
    reader->width = photo_big(data, 4);
    reader->height = photo_big(data + 4, 4);
    reader->depth = data[8];
    reader->kind = data[9];
    reader->interlaced = data[12];
    return photo_allocate(reader->job, reader->width, reader->height);
}

static void read_transparency(reader *reader, const uint8_t *data, size_t bytes)
{
    if (reader->kind == PALETTE) {
        for (size_t i = 0; i < bytes && i < 256; i++)
            reader->palette[i][3] = data[i];
        reader->has_alpha = true;
    } else if (reader->kind == GREY && reader->depth < 16 && bytes >= 2) {
        /* Compared with the scaled sample, as Pillow compares; of one bit as black or white. */
        unsigned grey = photo_big(data, 2);
        memset(reader->clear, reader->depth == 1 ? (grey ? 255 : 0) : (int)(grey & 255), 3);
        reader->has_clear = reader->has_alpha = true;
    } else if (reader->kind == RGB && bytes >= 6) {
        for (int channel = 0; channel < 3; channel++)
            reader->clear[channel] = data[2 * channel + 1];
        reader->has_clear = reader->has_alpha = true;
    }
}

static photo_status read_chunk(reader *reader, const uint8_t *name, const uint8_t *data,
                               size_t bytes)
{
    if (!memcmp(name, "IHDR", 4) && !reader->width)
        return read_header(reader, data, bytes);
    if (!memcmp(name, "PLTE", 4))
        for (size_t i = 0; i < bytes / 3 && i < 256; i++)
            memcpy(reader->palette[i], data + 3 * i, 3);
    else if (!memcmp(name, "tRNS", 4))
        read_transparency(reader, data, bytes);
    else if (!memcmp(name, "eXIf", 4) && bytes) {
        reader->turn.exif = data;
        reader->turn.exif_bytes = bytes;
    } else if (!memcmp(name + 1, "EXt", 3) || !memcmp(name + 1, "TXt", 3))
        read_text(reader, (char)name[0], data, bytes);
    return PHOTO_READ;
}

/* Walk over the chunks. Those before the pixels must be whole; what comes after them is read as
 * far as it is good. */
static photo_status walk(reader *reader)
{
    photo_job *job = reader->job;
    bool pixels = false;
    for (size_t at = 8; job->bytes - at >= 12;) {
        const uint8_t *name = job->data + at + 4;
        size_t bytes = photo_big(job->data + at, 4);
        bool whole = bytes <= job->bytes - at - 12;
        if (!memcmp(name, "IDAT", 4)) {
            pixels = true;
        } else if (!memcmp(name, "IEND", 4)) {
            break;
        } else if (!whole ||
                   (!pixels && checksum(name, bytes + 4) != photo_big(name + 4 + bytes, 4))) {
            return pixels ? PHOTO_READ : photo_broken(job, "a chunk is damaged");
        } else {
            photo_status status = read_chunk(reader, name, name + 4, bytes);
            if (status)
                return status;
        }
        if (!whole)
            break; /* libpng says what is missing of the pixels */
        at += 12 + bytes;
    }
    return pixels && reader->width ? PHOTO_READ : photo_broken(job, "image file is truncated");
}

/* ------------------------------------------------------------------------------- pixels -- */

/* Lay a colour on white, with the very rounding of Pillow's alpha_composite. */
static uint8_t on_white(unsigned colour, unsigned alpha)
{
    if (!alpha)
        return 255;
    unsigned share = (alpha * 255 * 255 << 7) / (alpha * 255 + 255 * (255 - alpha));
    unsigned mixed = colour * share + 255 * ((255u << 7) - share) + (0x80 << 7);
    return (uint8_t)(((mixed >> 8) + mixed) >> 8 >> 7);
}

static void convert_row(const reader *reader, const uint8_t *row, uint8_t *to)
{
    static const int channels[] = {[GREY] = 1, [RGB] = 3, [PALETTE] = 1, [GREY_ALPHA] = 2,
                                   [RGB_ALPHA] = 4};
    int count = channels[reader->kind], sample_bytes = reader->depth == 16 ? 2 : 1;
    bool grey = count < 3;
    unsigned scale = reader->depth < 8 && reader->kind == GREY ? 255u / ((1u << reader->depth) - 1)
                                                               : 1;
    for (uint32_t x = 0; x < reader->width; x++, row += count * sample_bytes, to += 3) {
        unsigned alpha = 255;
        if (reader->kind == PALETTE) {
            memcpy(to, reader->palette[row[0]], 3);
            alpha = reader->palette[row[0]][3];
        } else if (reader->kind == GREY && sample_bytes == 2) {
            /* Grey of 16 bits is scaled, others keep their high byte: so does Pillow. */
            memset(to, (int)(photo_big(row, 2) / 257), 3);
        } else {
            for (int channel = 0; channel < 3; channel++)
                to[channel] = (uint8_t)(row[grey ? 0 : channel * sample_bytes] * scale);
            if (count == 2 || count == 4)
                alpha = row[(count - 1) * sample_bytes];
            if (reader->has_clear && !memcmp(to, reader->clear, 3))
                alpha = 0;
        }
        if (alpha != 255)
            for (int channel = 0; channel < 3; channel++)
                to[channel] = on_white(to[channel], alpha);
    }
}

static void on_error(void *png, const char *text)
{
    reader *reader = error_pointer(png);
    photo_broken(reader->job, "%.200s", text);
    longjmp(reader->failed, 1);
}

static void on_warning(void *png, const char *text)
{
    (void)png;
    (void)text;
}

static void on_read(void *png, uint8_t *data, size_t bytes)
{
    reader *reader = io_pointer(png);
    if (reader->job->bytes - reader->at < bytes)
        on_error(png, "image file is truncated");
    memcpy(data, reader->job->data + reader->at, bytes);
    reader->at += bytes;
}

/* Read the pixels; what is allocated here is in *reader, since libpng may jump out. */
static photo_status read_pixels(reader *reader)
{
    if (setjmp(reader->failed))
        return PHOTO_BROKEN;
    reader->png = create_reader(version_of(NULL), reader, on_error, on_warning);
    reader->info = reader->png ? create_info(reader->png) : NULL;
    if (!reader->info)
        return PHOTO_NO_MEMORY;
    set_limits(reader->png, 0x7FFFFFFF, 0x7FFFFFFF);
    keep_chunks(reader->png, 1, NULL, -1); /* skip all that is not needed: colour profiles, text */
    set_reader(reader->png, reader, on_read);
    read_info(reader->png, reader->info);
    set_packing(reader->png);
    int passes = set_interlace(reader->png);
    update_info(reader->png, reader->info);
    size_t stride = row_bytes(reader->png, reader->info);
    uint32_t rows = passes > 1 ? reader->height : 1;
    reader->row = malloc(stride * rows); /* interlaced: the whole picture, filled pass by pass */
    if (!reader->row)
        return PHOTO_NO_MEMORY;
    uint8_t *pixels = reader->job->photo->pixels;
    for (int pass = 0; pass < passes; pass++)
        for (uint32_t y = 0; y < reader->height; y++) {
            uint8_t *row = reader->row + (rows > 1 ? y * stride : 0);
            read_row(reader->png, row, NULL);
            if (pass == passes - 1)
                convert_row(reader, row, pixels + 3 * (size_t)y * reader->width);
        }
    return PHOTO_READ;
}

static photo_status open_library(photo_job *job)
{
    static const photo_symbol symbols[] = {{"png_get_libpng_ver", &version_of},
                                           {"png_create_read_struct", &create_reader},
                                           {"png_create_info_struct", &create_info},
                                           {"png_get_error_ptr", &error_pointer},
                                           {"png_get_io_ptr", &io_pointer},
                                           {"png_set_read_fn", &set_reader},
                                           {"png_set_user_limits", &set_limits},
                                           {"png_set_keep_unknown_chunks", &keep_chunks},
                                           {"png_read_info", &read_info},
                                           {"png_set_packing", &set_packing},
                                           {"png_set_interlace_handling", &set_interlace},
                                           {"png_read_update_info", &update_info},
                                           {"png_get_rowbytes", &row_bytes},
                                           {"png_read_row", &read_row},
                                           {"png_destroy_read_struct", &destroy_reader},
                                           {NULL, NULL}};
    if (destroy_reader)
        return PHOTO_READ;
    return photo_library(job, "libpng16.so.16", "libpng16-16", symbols);
}

photo_status photo_png(photo_job *job)
{
    reader reader = {.job = job};
    for (int i = 0; i < 256; i++)
        reader.palette[i][3] = 255;
    photo_status status = walk(&reader);
    if (!status)
        status = open_library(job);
    if (!status)
        status = read_pixels(&reader);
    if (!status) {
        job->orientation = photo_orientation(&reader.turn);
        if (job->orientation < 0)
            status = photo_broken(job, "its EXIF data are damaged");
    }
    if (reader.png)
        destroy_reader(&reader.png, &reader.info, NULL);
    free(reader.row);
    free(reader.owned[0]);
    free(reader.owned[1]);
    return status;
}
