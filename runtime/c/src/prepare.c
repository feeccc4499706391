/* SPDX-License-Identifier: Apache-2.0 */
/* From a photo to the network's pixels: which of them, then how they are resized. The roundings
 * are those of `edge_imprint_runtime.geometry`. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pixels.h"
#include "resample.h"

#define MAX_IMAGE_PIXELS 178956970

/* How one side of a photo becomes one side of the network's input. */
typedef struct span {
    int64_t start, length; /* the photo's pixels that are resized */
    int64_t resized;       /* what these become */
    int64_t offset;        /* which of those comes first; below 0: so many of padding before */
} span;

/* Where linear interpolation looks: two neighbours, and the share of the second. */
typedef struct between {
    int64_t low, high;
    double share;
} between;

static int64_t offset_of(int64_t resized, int64_t size)
{
    if (resized < size)
        return -((size - resized) / 2);
    return (int64_t)rint((double)(resized - size) / 2); /* a half goes to the even one */
}

static int64_t one_or_more(double side)
{
    double rounded = rint(side);
    return rounded < 1 ? 1 : (int64_t)rounded;
}

static void resized_sides(const eip_preprocess *p, int64_t height, int64_t width, span *rows,
                          span *columns)
{
    int64_t box_height = p->resize_height, box_width = p->resize_width;
    if (p->resize == EIP_STRETCH) {
        rows->resized = box_height;
        columns->resized = box_width;
    } else if (p->resize == EIP_CROP && box_height == box_width) {
        bool upright = height > width;
        int64_t shorter = upright ? width : height, longer = upright ? height : width;
        int64_t cut = (int64_t)((double)(box_height * longer) / (double)shorter);
        rows->resized = upright ? cut : box_height;
        columns->resized = upright ? box_height : cut;
    } else {
        double down = (double)height / (double)box_height;
        double across = (double)width / (double)box_width;
        bool cover = p->resize == EIP_CROP;
        double ratio = (down < across) == cover ? down : across;
        rows->resized = one_or_more((double)height / ratio);
        columns->resized = one_or_more((double)width / ratio);
    }
}

/* Cut first, then resize, in whole numbers: a side of the box stands for numerator / denominator
 * times as many pixels of the photo. */
static span linear_span(int64_t side, int64_t size, int64_t numerator, int64_t denominator)
{
    int64_t length = (size * numerator + denominator - 1) / denominator;
    if (length <= side)
        return (span){(side - length) / 2, length, size, 0};
    int64_t resized = (2 * side * denominator + numerator) / (2 * numerator);
    resized = resized < 1 ? 1 : resized > size ? size : resized;
    return (span){0, side, resized, -((size - resized) / 2)};
}

static void linear_spans(const eip_preprocess *p, int64_t height, int64_t width, span *rows,
                         span *columns)
{
    int64_t down[2] = {height, p->resize_height}, across[2] = {width, p->resize_width};
    if (p->resize != EIP_STRETCH) {
        bool rows_less = down[0] * across[1] <= across[0] * down[1];
        if (rows_less == (p->resize == EIP_CROP))
            memcpy(across, down, sizeof across);
        else
            memcpy(down, across, sizeof down);
    }
    *rows = linear_span(height, p->height, down[0], down[1]);
    *columns = linear_span(width, p->width, across[0], across[1]);
}

static void spans_of(const eip_preprocess *p, int64_t height, int64_t width, span *rows,
                     span *columns)
{
    if (p->interpolation == EIP_LINEAR) {
        linear_spans(p, height, width, rows, columns);
        return;
    }
    *rows = (span){.length = height};
    *columns = (span){.length = width};
    resized_sides(p, height, width, rows, columns);
    rows->offset = offset_of(rows->resized, p->height);
    columns->offset = offset_of(columns->resized, p->width);
}

static between look(const span *along, int64_t at)
{
    double scale = (double)along->length / (double)along->resized;
    double place = ((double)at + 0.5) * scale, last = (double)(along->length - 1);
    place -= 0.5;
    place = place < 0 ? 0 : place > last ? last : place;
    between found = {.low = (int64_t)floor(place)};
    found.high = found.low + 1 < along->length ? found.low + 1 : along->length - 1;
    found.share = place - (double)found.low;
    found.low += along->start;
    found.high += along->start;
    return found;
}

static double mix(double share, double a, double b)
{
    double left = (1 - share) * a, right = share * b;
    return left + right;
}

static ei_status interpolate(const eip_picture *photo, const span *rows, const span *columns,
                             const eip_window *window, uint8_t *to, size_t stride_bytes)
{
    between *across = eip_allocate((size_t)window->width, sizeof *across);
    if (!across)
        return EI_OUT_OF_MEMORY;
    for (int32_t x = 0; x < window->width; x++)
        across[x] = look(columns, window->left + x);
    for (int32_t y = 0; y < window->height; y++, to += stride_bytes) {
        between down = look(rows, window->top + y);
        const uint8_t *upper = photo->data + (size_t)down.low * photo->stride_bytes;
        const uint8_t *lower = photo->data + (size_t)down.high * photo->stride_bytes;
        for (int32_t i = 0; i < 3 * window->width; i++) {
            const between *here = across + i / 3;
            size_t left = (size_t)here->low * 3 + (size_t)(i % 3);
            size_t right = (size_t)here->high * 3 + (size_t)(i % 3);
            double above = mix(here->share, upper[left], upper[right]);
            double below = mix(here->share, lower[left], lower[right]);
            to[i] = (uint8_t)floor(mix(down.share, above, below) + 0.5);
        }
    }
    free(across);
    return EI_OK;
}

/* Fill what a photo does not cover: the mean colour under `pad`, else black. */
static void fill(const eip_preprocess *p, bool is_bgr, uint8_t *pixels)
{
    uint8_t color[3] = {0, 0, 0};
    for (int c = 0; c < 3 && p->resize == EIP_PAD; c++) {
        double value = rint(255 * p->mean[c]);
        color[is_bgr ? 2 - c : c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
    size_t bytes = (size_t)p->width * (size_t)p->height * 3;
    for (size_t i = 0; i < bytes; i += 3)
        memcpy(pixels + i, color, 3);
}

static void swap_in_place(uint8_t *pixels, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 3) {
        uint8_t first = pixels[i];
        pixels[i] = pixels[i + 2];
        pixels[i + 2] = first;
    }
}

ei_status eip_prepare(const eip_preprocess *p, const ei_image *photo, uint8_t *pixels)
{
    span rows, columns;
    spans_of(p, photo->height, photo->width, &rows, &columns);
    int64_t box_pixels = (int64_t)p->resize_height * p->resize_width;
    if (rows.resized * columns.resized >
        (box_pixels > MAX_IMAGE_PIXELS ? box_pixels : MAX_IMAGE_PIXELS))
        return eip_fail(EI_INPUT_SIZE,
                        "the photo of %d x %d pixels is too thin: resized, it would have %lld x "
                        "%lld pixels; cut it or take it out",
                        photo->width, photo->height, (long long)columns.resized,
                        (long long)rows.resized);
    /* Where the photo begins among the network's pixels, and which of its own that is. */
    int64_t y = rows.offset < 0 ? -rows.offset : 0, top = rows.offset < 0 ? 0 : rows.offset;
    int64_t x = columns.offset < 0 ? -columns.offset : 0;
    int64_t left = columns.offset < 0 ? 0 : columns.offset;
    int64_t height = rows.resized - top, width = columns.resized - left;
    height = height < p->height - y ? height : p->height - y;
    width = width < p->width - x ? width : p->width - x;
    eip_window window = {.resized_width = (int32_t)columns.resized,
                         .resized_height = (int32_t)rows.resized,
                         .left = (int32_t)left,
                         .top = (int32_t)top,
                         .width = (int32_t)width,
                         .height = (int32_t)height};
    size_t row_bytes = (size_t)p->width * 3, bytes = row_bytes * (size_t)p->height;
    eip_picture picture = {photo->data,
                           photo->stride_bytes ? photo->stride_bytes : (size_t)photo->width * 3,
                           photo->width, photo->height};
    bool is_bgr = photo->format == EI_BGR8;
    if (height < p->height || width < p->width)
        fill(p, is_bgr, pixels);
    uint8_t *to = pixels + (size_t)y * row_bytes + (size_t)x * 3;
    ei_status status =
        p->interpolation == EIP_LINEAR
            ? interpolate(&picture, &rows, &columns, &window, to, row_bytes)
            : eip_resample(&picture, &window, p->interpolation, to, row_bytes);
    if (!status && is_bgr)
        swap_in_place(pixels, bytes);
    return status;
}
