/* SPDX-License-Identifier: Apache-2.0 */
#include "frame.h"

#include <math.h>
#include <string.h>

const char *const frame_formats[] = {"rgb", "bgr", "nv12", "yuyv", NULL};

const char *read_colour(const char *text, void *value)
{
    static const char *const names[] = {"bt601", "bt709", "limited", "full"};
    frame_colour colour = *(const frame_colour *)value;
    while (*text) {
        size_t bytes = strcspn(text, ",");
        int which = 0;
        while (which < 4 && (strlen(names[which]) != bytes || memcmp(names[which], text, bytes)))
            which++;
        if (which == 4)
            return "bt601 or bt709, and limited or full, such as bt709,full";
        if (which < 2)
            colour.is_bt709 = which == 1;
        else
            colour.is_full = which == 3;
        text += bytes + (text[bytes] == ',');
    }
    *(frame_colour *)value = colour;
    return NULL;
}

bool frame_is_yuv(ei_format format)
{
    return format == EI_NV12 || format == EI_YUYV;
}

size_t frame_bytes(ei_format format, int32_t width, int32_t height)
{
    size_t pixels = (size_t)width * (size_t)height;
    if (format == EI_NV12)
        return width % 2 || height % 2 ? 0 : pixels / 2 * 3;
    if (format == EI_YUYV)
        return width % 2 ? 0 : pixels * 2;
    return pixels * 3;
}

/* The numbers of docs/frames.md: rgb = gain y + chroma (u, v) + offset. */
typedef struct levels {
    double red, green, blue; /* their shares in Y */
    double luma_range, chroma_range, black;
} levels;

static levels levels_of(frame_colour colour)
{
    levels of = {.red = colour.is_bt709 ? 0.2126 : 0.299,
                 .blue = colour.is_bt709 ? 0.0722 : 0.114,
                 .luma_range = colour.is_full ? 255 : 219,
                 .chroma_range = colour.is_full ? 255 : 224,
                 .black = colour.is_full ? 0 : 16};
    of.green = 1 - of.red - of.blue;
    return of;
}

static uint8_t to_byte(double value)
{
    value = floor(value + 0.5);
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Tables make a frame of 1280 x 720 a matter of a few milliseconds. */
typedef struct tables {
    double luma[256];
    double of_u[3][256], of_v[3][256];
    double offset[3];
} tables;

static void fill_tables(frame_colour colour, tables *to)
{
    levels of = levels_of(colour);
    double gain = 255 / of.luma_range, scale = 255 / of.chroma_range;
    double blue_of_u = 2 * (1 - of.blue), red_of_v = 2 * (1 - of.red);
    double chroma[3][2] = {{0, red_of_v * scale},
                           {-(of.blue * blue_of_u) / of.green * scale,
                            -(of.red * red_of_v) / of.green * scale},
                           {blue_of_u * scale, 0}};
    for (int value = 0; value < 256; value++)
        to->luma[value] = gain * value;
    for (int channel = 0; channel < 3; channel++) {
        const double *row = chroma[channel];
        for (int value = 0; value < 256; value++) {
            to->of_u[channel][value] = row[0] * value;
            to->of_v[channel][value] = row[1] * value;
        }
        to->offset[channel] = -gain * of.black - 128 * (row[0] + row[1]);
    }
}

void frame_to_rgb(const ei_image *frame, frame_colour colour, uint8_t *rgb)
{
    size_t pixel_bytes = frame->format == EI_NV12 ? 1 : 2;
    size_t stride = frame->stride_bytes ? frame->stride_bytes : (size_t)frame->width * pixel_bytes;
    tables table;
    fill_tables(colour, &table);
    const uint8_t *data = frame->data, *chroma = frame->chroma;
    if (frame->format == EI_NV12 && !chroma)
        chroma = data + stride * (size_t)frame->height;
    for (int32_t y = 0; y < frame->height; y++) {
        const uint8_t *row = data + (size_t)y * stride;
        bool nv12 = frame->format == EI_NV12;
        const uint8_t *pair = nv12 ? chroma + (size_t)(y / 2) * stride : row + 1;
        for (int32_t x = 0; x < frame->width; x++, rgb += 3) {
            /* Of NV12 U and V lie side by side, of YUYV a Y lies between them. */
            size_t at = (size_t)(x / 2) * (nv12 ? 2 : 4);
            uint8_t u = pair[at], v = pair[at + pixel_bytes];
            double luma = table.luma[row[(size_t)x * pixel_bytes]];
            for (int channel = 0; channel < 3; channel++)
                rgb[channel] = to_byte(luma + (table.of_u[channel][u] + table.of_v[channel][v]) +
                                       table.offset[channel]);
        }
    }
}

/* Return U and V of one pixel, not yet rounded. */
static void chroma_of(const uint8_t *rgb, const levels *of, double *u, double *v)
{
    double luma = rgb[0] * of->red + rgb[1] * of->green + rgb[2] * of->blue;
    double scale = of->chroma_range / 255;
    *u = (rgb[2] - luma) / (2 * (1 - of->blue)) * scale + 128;
    *v = (rgb[0] - luma) / (2 * (1 - of->red)) * scale + 128;
}

void frame_from_rgb(const uint8_t *rgb, int32_t width, int32_t height, ei_format format,
                    frame_colour colour, uint8_t *frame)
{
    levels of = levels_of(colour);
    size_t columns = (size_t)width, rows = (size_t)height;
    size_t step = format == EI_NV12 ? 1 : 2, deep = format == EI_NV12 ? 2 : 1;
    for (size_t i = 0; i < rows * columns; i++) {
        const uint8_t *pixel = rgb + 3 * i;
        double luma = pixel[0] * of.red + pixel[1] * of.green + pixel[2] * of.blue;
        frame[i * step] = to_byte(luma * (of.luma_range / 255) + of.black);
    }
    for (size_t y = 0; y < rows; y += deep)
        for (size_t x = 0; x < columns; x += 2) {
            double sums[2] = {0, 0};
            for (size_t share = 0; share < 2 * deep; share++) {
                double u, v;
                chroma_of(rgb + 3 * ((y + share / 2) * columns + x + share % 2), &of, &u, &v);
                sums[0] += u;
                sums[1] += v;
            }
            size_t at = deep == 2 ? (rows + y / 2) * columns + x : 2 * (y * columns + x) + 1;
            frame[at] = to_byte(sums[0] / (double)(2 * deep));
            frame[at + step] = to_byte(sums[1] / (double)(2 * deep));
        }
}
