/* SPDX-License-Identifier: Apache-2.0 */
#include "resample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FIXED_BITS 22 /* of 32: 8 for the pixel, 2 for sums above 255 and below 0 */
#define PI 3.14159265358979323846

/* What each pixel of one direction is made of. */
typedef struct taps {
    int32_t count;    /* pixels that are made; 0: this direction stays as it is */
    int32_t most;     /* weights a pixel has room for */
    int32_t *first;   /* (count) the first pixel it is made of */
    int32_t *length;  /* (count) how many these are */
    int32_t *weights; /* (count, most) in 1 / 2^FIXED_BITS */
} taps;

static double sinc(double x)
{
    return x == 0 ? 1 : sin(x * PI) / (x * PI);
}

/* A filter's weight at a distance, and how far it reaches. */
static double weight_at(eip_interpolation filter, double x)
{
    double far = fabs(x);
    switch (filter) {
    case EIP_BOX:
        return x > -0.5 && x <= 0.5;
    case EIP_BILINEAR:
        return far < 1 ? 1 - far : 0;
    case EIP_HAMMING:
        return far < 1 ? sinc(far) * (0.54 + 0.46 * cos(far * PI)) : 0;
    case EIP_BICUBIC: /* a = -0.5 */
        if (far < 1)
            return (1.5 * far - 2.5) * far * far + 1;
        return far < 2 ? -0.5 * (((far - 5) * far + 8) * far - 4) : 0;
    default: /* Lanczos, 3 lobes */
        return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    }
}

static double reach_of(eip_interpolation filter)
{
    switch (filter) {
    case EIP_BOX:
        return 0.5;
    case EIP_BICUBIC:
        return 2;
    case EIP_LANCZOS:
        return 3;
    default:
        return 1;
    }
}

static void free_taps(taps *made)
{
    free(made->first);
    free(made->length);
    free(made->weights);
}

/* Weigh the pixels that one new pixel is made of. */
static void weigh(eip_interpolation filter, double scale, int32_t size, int32_t at,
                  double *exact, int32_t *first, int32_t *length, int32_t *weights)
{
    double wide = scale < 1 ? 1 : scale, reach = reach_of(filter) * wide;
    double center = (at + 0.5) * scale, narrow = 1 / wide, sum = 0;
    double low = center - reach + 0.5, high = center + reach + 0.5;
    *first = low < 0 ? 0 : (int32_t)low;
    *length = (high > size ? size : (int32_t)high) - *first;
    for (int32_t i = 0; i < *length; i++) {
        exact[i] = weight_at(filter, (i + *first - center + 0.5) * narrow);
        sum += exact[i];
    }
    for (int32_t i = 0; i < *length; i++) {
        double share = sum != 0 ? exact[i] / sum : exact[i];
        weights[i] = (int32_t)((share < 0 ? -0.5 : 0.5) + share * (1 << FIXED_BITS));
    }
}

/* Make the taps of pixels `first` to `first + count - 1` of `resized`, of `size` pixels. */
static ei_status make_taps(eip_interpolation filter, int32_t size, int32_t resized,
                           int32_t first, int32_t count, taps *made)
{
    double scale = (double)size / resized, *exact = NULL;
    double most = ceil(reach_of(filter) * (scale < 1 ? 1 : scale)) * 2 + 1;
    ei_status status = EI_OUT_OF_MEMORY;
    made->count = count;
    made->most = most < size ? (int32_t)most : size;
    made->first = eip_allocate((size_t)count, sizeof(int32_t));
    made->length = eip_allocate((size_t)count, sizeof(int32_t));
    size_t row_bytes = (size_t)made->most * sizeof(int32_t);
    made->weights = eip_allocate((size_t)count, row_bytes);
    exact = eip_allocate((size_t)made->most, sizeof(double));
    if (!made->first || !made->length || !made->weights || !exact)
        goto done;
    for (int32_t i = 0; i < count; i++)
        weigh(filter, scale, size, first + i, exact, made->first + i, made->length + i,
              made->weights + (size_t)i * (size_t)made->most);
    status = EI_OK;
done:
    free(exact);
    return status;
}

static uint8_t to_byte(int32_t sum)
{
    sum >>= FIXED_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Make new columns: rows of `across->count` pixels. */
static void resize_rows(const taps *across, const uint8_t *from, size_t from_stride,
                        int32_t rows, uint8_t *to, size_t to_stride)
{
    for (int32_t y = 0; y < rows; y++, from += from_stride, to += to_stride) {
        for (int32_t x = 0; x < across->count; x++) {
            const uint8_t *pixel = from + (size_t)across->first[x] * 3;
            const int32_t *weights = across->weights + (size_t)x * (size_t)across->most;
            int32_t red = 1 << (FIXED_BITS - 1), green = red, blue = red;
            for (int32_t i = 0; i < across->length[x]; i++, pixel += 3) {
                red += pixel[0] * weights[i];
                green += pixel[1] * weights[i];
                blue += pixel[2] * weights[i];
            }
            to[3 * x] = to_byte(red);
            to[3 * x + 1] = to_byte(green);
            to[3 * x + 2] = to_byte(blue);
        }
    }
}

#define LANE 64 /* bytes that go down together: their sums stay in registers or near */

/* Make new rows: `down->count` rows of `bytes` bytes. */
static void resize_columns(const taps *down, const uint8_t *from, size_t from_stride,
                           size_t bytes, uint8_t *to, size_t to_stride)
{
    for (int32_t y = 0; y < down->count; y++, to += to_stride) {
        const int32_t *weights = down->weights + (size_t)y * (size_t)down->most;
        const uint8_t *first = from + (size_t)down->first[y] * from_stride;
        for (size_t x = 0; x < bytes; x += LANE) {
            size_t some = bytes - x < LANE ? bytes - x : LANE;
            int32_t sums[LANE];
            for (size_t i = 0; i < LANE; i++)
                sums[i] = 1 << (FIXED_BITS - 1);
            const uint8_t *row = first + x;
            for (int32_t k = 0; k < down->length[y]; k++, row += from_stride) {
                if (some == LANE)
                    for (size_t i = 0; i < LANE; i++)
                        sums[i] += row[i] * weights[k];
                else
                    for (size_t i = 0; i < some; i++)
                        sums[i] += row[i] * weights[k];
            }
            for (size_t i = 0; i < some; i++)
                to[x + i] = to_byte(sums[i]);
        }
    }
}

/* The first pixel that taps need, and behind the last. */
static void needed(const taps *made, int32_t *begin, int32_t *end)
{
    int32_t last = made->count - 1;
    *begin = made->first[0];
    *end = made->first[last] + made->length[last];
}

/* Resize in both directions, one after the other, with 8 bits in between. */
static ei_status resize_both(const eip_picture *photo, const taps *across, const taps *down,
                             bool down_first, uint8_t *to, size_t stride_bytes)
{
    int32_t begin, end;
    needed(down_first ? across : down, &begin, &end);
    size_t between_pixels = (size_t)(down_first ? end - begin : across->count);
    size_t between_rows = (size_t)(down_first ? down->count : end - begin);
    size_t row_bytes = between_pixels * 3;
    uint8_t *between = eip_allocate_array(between_rows, row_bytes);
    if (!between)
        return EI_OUT_OF_MEMORY;
    if (down_first) {
        resize_columns(down, photo->data + (size_t)begin * 3, photo->stride_bytes, row_bytes,
                       between, row_bytes);
        for (int32_t x = 0; x < across->count; x++)
            across->first[x] -= begin;
        resize_rows(across, between, row_bytes, down->count, to, stride_bytes);
    } else {
        resize_rows(across, photo->data + (size_t)begin * photo->stride_bytes,
                    photo->stride_bytes, end - begin, between, row_bytes);
        for (int32_t y = 0; y < down->count; y++)
            down->first[y] -= begin;
        resize_columns(down, between, row_bytes, row_bytes, to, stride_bytes);
    }
    free(between);
    return EI_OK;
}

/* Step as Pillow does, one addition a pixel, since a product would round otherwise; and stay within
 * the photo where a million of these roundings add up. */
static double walk(double at, double step, int32_t steps)
{
    for (int32_t i = 0; i < steps; i++)
        at += step;
    return at;
}

static size_t within(double at, int32_t size)
{
    return at < size ? (size_t)at : (size_t)size - 1;
}

static void take_nearest(const eip_picture *photo, const eip_window *window, uint8_t *to,
                         size_t stride_bytes)
{
    double across = (double)photo->width / window->resized_width;
    double down = (double)photo->height / window->resized_height;
    double row = walk(down * 0.5, down, window->top);
    double first = walk(across * 0.5, across, window->left);
    for (int32_t y = 0; y < window->height; y++, row += down, to += stride_bytes) {
        const uint8_t *from = photo->data + within(row, photo->height) * photo->stride_bytes;
        double column = first;
        for (int32_t x = 0; x < window->width; x++, column += across)
            memcpy(to + 3 * x, from + within(column, photo->width) * 3, 3);
    }
}

ei_status eip_resample(const eip_picture *photo, const eip_window *window,
                       eip_interpolation filter, uint8_t *to, size_t stride_bytes)
{
    bool wider = window->resized_width != photo->width;
    bool higher = window->resized_height != photo->height;
    if (filter == EIP_NEAREST && (wider || higher)) {
        take_nearest(photo, window, to, stride_bytes);
        return EI_OK;
    }
    taps across = {0}, down = {0};
    ei_status status = EI_OK;
    if (wider)
        status = make_taps(filter, photo->width, window->resized_width, window->left,
                           window->width, &across);
    if (higher && !status)
        status = make_taps(filter, photo->height, window->resized_height, window->top,
                           window->height, &down);
    if (status)
        goto done;
    const uint8_t *from = photo->data + (wider ? 0 : (size_t)window->left * 3) +
                          (higher ? 0 : (size_t)window->top * photo->stride_bytes);
    size_t row_bytes = (size_t)window->width * 3;
    /* As Pillow from 13 on: what shrinks by far more rows than columns loses them first. */
    int64_t lost_rows = (int64_t)photo->height - window->resized_height;
    int64_t lost_columns = (int64_t)photo->width - window->resized_width;
    bool down_first = lost_rows > (lost_columns > 0 ? 2 * lost_columns : 0);
    if (wider && higher)
        status = resize_both(photo, &across, &down, down_first, to, stride_bytes);
    else if (wider)
        resize_rows(&across, from, photo->stride_bytes, window->height, to, stride_bytes);
    else if (higher)
        resize_columns(&down, from, photo->stride_bytes, row_bytes, to, stride_bytes);
    else
        for (int32_t y = 0; y < window->height; y++)
            memcpy(to + (size_t)y * stride_bytes, from + (size_t)y * photo->stride_bytes,
                   row_bytes);
done:
    free_taps(&across);
    free_taps(&down);
    return status;
}
