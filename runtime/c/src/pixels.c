/* SPDX-License-Identifier: Apache-2.0 */
#include "pixels.h"

#include <string.h>

#include "numbers.h"

/* How an image lies in memory: rows of so many bytes. Of NV12 both planes are rows. */
typedef struct layout {
    size_t row_bytes;
    size_t rows;
    size_t stride_bytes;
} layout;

static const char *const format_names[] = {"EI_RGB8", "EI_BGR8", "EI_NV12", "EI_YUYV",
                                           "EI_FLOAT32"};

eip_intake eip_intake_of(const eip_contract *contract)
{
    const eip_preprocess *p = &contract->preprocess;
    eip_intake intake = {.input = contract->input, .width = p->width, .height = p->height};
    if (intake.input == EIP_INPUT_FRAME) {
        intake.format = contract->frame.format;
        intake.width = contract->frame.width;
        intake.height = contract->frame.height;
    } else if (intake.input == EIP_INPUT_EMBEDDING || !contract->has_backbone) {
        intake.input = EIP_INPUT_EMBEDDING;
        intake.format = EI_FLOAT32;
        intake.width = contract->embedding_size;
        intake.height = 1;
    } else {
        intake.format = intake.input == EIP_INPUT_FLOAT32 ? EI_FLOAT32 : EI_RGB8;
    }
    memcpy(intake.mean, p->mean, sizeof intake.mean);
    memcpy(intake.std, p->std, sizeof intake.std);
    return intake;
}

static bool is_colours(ei_format format)
{
    return format == EI_RGB8 || format == EI_BGR8;
}

static bool takes(const eip_intake *intake, ei_format format)
{
    if (intake->format == format)
        return true;
    return is_colours(format) &&
           (is_colours(intake->format) || intake->input == EIP_INPUT_FLOAT32);
}

/* Return false where the numbers are beyond what memory can hold. */
static bool lay_out(const ei_image *image, bool embedding, layout *found)
{
    size_t width = (size_t)image->width, height = (size_t)image->height, pixel_bytes = 3;
    if (image->format == EI_NV12) {
        pixel_bytes = 1;
        height += height / 2;
    } else if (image->format == EI_YUYV) {
        pixel_bytes = 2;
    } else if (image->format == EI_FLOAT32) {
        pixel_bytes = sizeof(float);
        height *= embedding ? 1 : 3; /* a plane a colour */
    }
    size_t whole;
    found->rows = height;
    if (__builtin_mul_overflow(width, pixel_bytes, &found->row_bytes))
        return false;
    found->stride_bytes = image->stride_bytes ? image->stride_bytes : found->row_bytes;
    return !__builtin_mul_overflow(found->stride_bytes, height, &whole) && whole <= PTRDIFF_MAX;
}

static ei_status wrong_size(const eip_intake *intake, const ei_image *image, size_t index)
{
    if (intake->input == EIP_INPUT_EMBEDDING)
        return eip_fail(EI_INPUT_SIZE,
                        "image %zu is an embedding of width %d and height %d, the model takes "
                        "width %d and height 1",
                        index, image->width, image->height, intake->width);
    return eip_fail(EI_INPUT_SIZE,
                    "image %zu has %d x %d pixels, the model takes %d x %d; see ei_prepare", index,
                    image->width, image->height, intake->width, intake->height);
}

static ei_status check_size(const eip_intake *intake, const ei_image *images, size_t index)
{
    const ei_image *image = images + index;
    if (image->width < 1 || image->height < 1)
        return eip_fail(EI_INPUT_SIZE, "image %zu has %d x %d pixels; both must be 1 or more",
                        index, image->width, image->height);
    if (intake->width) {
        if (image->width != intake->width || image->height != intake->height)
            return wrong_size(intake, image, index);
    } else if (image->width != images->width || image->height != images->height) {
        return eip_fail(EI_INPUT_SIZE,
                        "image %zu has %d x %d pixels and the first %d x %d; the model takes "
                        "frames of any size, but those of one call must have one size",
                        index, image->width, image->height, images->width, images->height);
    }
    return EI_OK;
}

static ei_status check_one(const eip_intake *intake, const ei_image *images, size_t index)
{
    const ei_image *image = images + index;
    if (!image->data)
        return eip_fail(EI_INVALID_ARGUMENT, "image %zu has no data: its pointer is NULL", index);
    if ((unsigned)image->format > EI_FLOAT32 || !takes(intake, image->format))
        return eip_fail(EI_INPUT_FORMAT, "image %zu is of format %s, the model takes %s%s", index,
                        (unsigned)image->format > EI_FLOAT32 ? "unknown"
                                                             : format_names[image->format],
                        format_names[intake->format],
                        intake->input == EIP_INPUT_FLOAT32 ? ", EI_RGB8 or EI_BGR8" : "");
    ei_status status = check_size(intake, images, index);
    if (status)
        return status;
    layout lies;
    bool is_float = image->format == EI_FLOAT32;
    bool holds = lay_out(image, intake->input == EIP_INPUT_EMBEDDING, &lies);
    if (!holds || lies.stride_bytes < lies.row_bytes ||
        (is_float && lies.stride_bytes != lies.row_bytes))
        return eip_fail(EI_INPUT_STRIDE,
                        "image %zu has a stride of %zu bytes, and its rows %zu bytes; %s", index,
                        image->stride_bytes, lies.row_bytes,
                        is_float ? "rows of numbers must follow each other: give 0"
                                 : "give the bytes from a row to the next, or 0");
    if (is_float && !eip_finite(image->data, lies.rows * (size_t)image->width))
        return eip_fail(EI_INPUT_VALUE, "image %zu holds NaN or infinity; check what made it",
                        index);
    return EI_OK;
}

void eip_intake_shape(const eip_intake *intake, const ei_image *image, size_t count,
                      int64_t *shape, int *dimensions)
{
    int64_t height = image->height, width = image->width;
    int64_t of_pixels[4] = {(int64_t)count, height, width, 3};
    *dimensions = 4;
    if (intake->format == EI_NV12) {
        of_pixels[1] = height / 2 * 3;
        *dimensions = 3;
    } else if (intake->format == EI_YUYV) {
        of_pixels[3] = 2;
    } else if (intake->input == EIP_INPUT_EMBEDDING) {
        of_pixels[1] = width;
        *dimensions = 2;
    } else if (intake->format == EI_FLOAT32) {
        of_pixels[1] = 3;
        of_pixels[2] = height;
        of_pixels[3] = width;
    }
    memcpy(shape, of_pixels, (size_t)*dimensions * sizeof *shape);
}

static ei_status too_many(size_t count)
{
    return eip_fail(EI_INVALID_ARGUMENT,
                    "%zu images are more than memory can hold; give fewer at a time", count);
}

ei_status eip_intake_check(const eip_intake *intake, const ei_image *images, size_t count,
                           size_t *image_bytes, int64_t *shape, int *dimensions)
{
    if (!images || !count)
        return eip_fail(EI_INVALID_ARGUMENT, "there must be at least one image");
    if (count > PTRDIFF_MAX / sizeof *images) /* such as -1: there can't be so many to look at */
        return too_many(count);
    for (size_t i = 0; i < count; i++) {
        ei_status status = check_one(intake, images, i);
        if (status)
            return status;
    }
    eip_intake_shape(intake, images, count, shape, dimensions);
    size_t bytes = intake->format == EI_FLOAT32 ? sizeof(float) : 1, all;
    for (int i = 1; i < *dimensions; i++)
        if (__builtin_mul_overflow(bytes, (size_t)shape[i], &bytes))
            bytes = SIZE_MAX;
    if (__builtin_mul_overflow(bytes, count, &all) || all > PTRDIFF_MAX)
        return too_many(count);
    *image_bytes = bytes;
    return EI_OK;
}

bool eip_intake_direct(const eip_intake *intake, const ei_image *images, size_t count,
                       size_t image_bytes)
{
    const unsigned char *first = images->data;
    if (intake->format == EI_FLOAT32 && (uintptr_t)first % _Alignof(float))
        return false;
    for (size_t i = 0; i < count; i++) {
        const ei_image *image = images + i;
        layout lies;
        if (image->format != intake->format || image->data != first + i * image_bytes ||
            !lay_out(image, intake->input == EIP_INPUT_EMBEDDING, &lies) ||
            lies.stride_bytes != lies.row_bytes)
            return false;
        if (image->format == EI_NV12 && image->chroma &&
            image->chroma !=
                first + i * image_bytes + (size_t)image->height * (size_t)image->width)
            return false;
    }
    return true;
}

static void copy_rows(const unsigned char *from, size_t stride_bytes, size_t row_bytes,
                      size_t rows, unsigned char *to)
{
    if (stride_bytes == row_bytes) {
        memcpy(to, from, row_bytes * rows);
        return;
    }
    for (size_t y = 0; y < rows; y++)
        memcpy(to + y * row_bytes, from + y * stride_bytes, row_bytes);
}

static void swap_rows(const unsigned char *from, const layout *lies, unsigned char *to)
{
    for (size_t y = 0; y < lies->rows; y++, from += lies->stride_bytes) {
        for (size_t x = 0; x < lies->row_bytes; x += 3, to += 3) {
            to[0] = from[x + 2];
            to[1] = from[x + 1];
            to[2] = from[x];
        }
    }
}

/* Write (pixel / 255 - mean) / std in float32, one rounding after the other as numpy does. There
 * are but 256 answers a channel. */
static void normalize(const eip_intake *intake, const ei_image *image, const layout *lies,
                      float *to)
{
    float answers[3][256];
    for (int c = 0; c < 3; c++) {
        float mean = (float)intake->mean[c], std = (float)intake->std[c];
        for (int i = 0; i < 256; i++) {
            float scaled = (float)i / 255.0f, shifted = scaled - mean;
            answers[c][i] = shifted / std;
        }
    }
    size_t width = (size_t)image->width, plane = width * lies->rows;
    size_t red = image->format == EI_RGB8 ? 0 : 2;
    for (size_t y = 0; y < lies->rows; y++) {
        const unsigned char *from =
            (const unsigned char *)image->data + y * lies->stride_bytes;
        for (size_t x = 0; x < width; x++, from += 3, to++) {
            to[0] = answers[0][from[red]];
            to[plane] = answers[1][from[1]];
            to[2 * plane] = answers[2][from[2 - red]];
        }
    }
}

void eip_intake_copy(const eip_intake *intake, const ei_image *image, void *to)
{
    layout lies;
    lay_out(image, intake->input == EIP_INPUT_EMBEDDING, &lies);
    const unsigned char *from = image->data;
    if (image->format == intake->format && image->format == EI_NV12) {
        size_t height = (size_t)image->height;
        const unsigned char *chroma = image->chroma;
        if (!chroma)
            chroma = from + height * lies.stride_bytes;
        copy_rows(from, lies.stride_bytes, lies.row_bytes, height, to);
        copy_rows(chroma, lies.stride_bytes, lies.row_bytes, lies.rows - height,
                  (unsigned char *)to + height * lies.row_bytes);
    } else if (image->format == intake->format) {
        copy_rows(from, lies.stride_bytes, lies.row_bytes, lies.rows, to);
    } else if (intake->format == EI_FLOAT32) {
        normalize(intake, image, &lies, to);
    } else {
        swap_rows(from, &lies, to);
    }
}
