/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of the conformance vectors that are about images. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conform.h"

static ei_format format_of(const char *name)
{
    static const char *const names[] = {"rgb8", "bgr8", "nv12", "yuyv", "float32"};
    for (int i = 0; i < 5; i++)
        if (strcmp(names[i], name) == 0)
            return (ei_format)i;
    wrong("no format %s", name);
    return EI_RGB8;
}

typedef struct {
    ei_image *images;
    size_t count;
    uint8_t *data, *padded, *chroma;
    size_t bytes;
} batch;

static void free_batch(batch *given)
{
    free(given->images);
    free(given->data);
    free(given->padded);
    free(given->chroma);
}

/* Make images of the fields FILE, FORMAT, WIDTH, HEIGHT, COUNT. */
static batch read_images(const field *f)
{
    batch made = {0};
    made.data = read_vector(f[0].text, &made.bytes);
    ei_format format = format_of(f[1].text);
    int32_t width = atoi(f[2].text), height = atoi(f[3].text);
    made.count = (size_t)atoi(f[4].text);
    made.images = must(calloc(made.count, sizeof *made.images));
    size_t pixels = (size_t)width * (size_t)height;
    size_t bytes = made.count ? made.bytes / made.count : 0;
    if (format == EI_RGB8 || format == EI_BGR8)
        bytes = pixels * 3;
    else if (format != EI_FLOAT32)
        bytes = format == EI_NV12 ? pixels * 3 / 2 : pixels * 2;
    for (size_t i = 0; i < made.count; i++)
        made.images[i] = (ei_image){
            .data = made.data + i * bytes, .width = width, .height = height, .format = format};
    return made;
}

/* Lay the same images out with room between the rows, NV12's planes apart. */
static bool pad_rows(batch *given)
{
    const ei_image first = given->images[0];
    if (first.format == EI_FLOAT32)
        return false;
    static const size_t bytes_a_pixel[] = {3, 3, 1, 2};
    size_t row = (size_t)first.width * bytes_a_pixel[first.format], stride = row + 6;
    size_t rows = (size_t)first.height, half = first.format == EI_NV12 ? rows / 2 : 0;
    given->padded = must(malloc(given->count * rows * stride));
    given->chroma = must(malloc(given->count * (half ? half : 1) * stride));
    memset(given->padded, 0xA5, given->count * rows * stride);
    for (size_t i = 0; i < given->count; i++) {
        const uint8_t *from = given->images[i].data;
        uint8_t *to = given->padded + i * rows * stride;
        uint8_t *pairs = given->chroma + i * half * stride;
        for (size_t y = 0; y < rows; y++)
            memcpy(to + y * stride, from + y * row, row);
        for (size_t y = 0; y < half; y++)
            memcpy(pairs + y * stride, from + (rows + y) * row, row);
        given->images[i].data = to;
        given->images[i].stride_bytes = stride;
        given->images[i].chroma = half ? pairs : NULL;
    }
    return true;
}

/* Whether the rest of what an answer says agrees with its scores. */
static void check_answer(size_t image, size_t classes)
{
    const ei_prediction *p = ei_prediction_at(found, image);
    const float *scores = ei_scores_at(found, image);
    const float *probabilities = ei_probabilities_at(found, image);
    if (p->index < 0 || (size_t)p->index >= classes) {
        wrong("index %d", (int)p->index);
        return;
    }
    const char *nearest = ei_predicted_label(found, (size_t)p->index);
    if (strcmp(p->nearest, nearest) != 0 ||
        strcmp(p->label, p->known == 0 ? "unknown" : nearest) != 0)
        wrong("label %s, nearest %s, known %d", p->label, p->nearest, (int)p->known);
    if (p->score != scores[p->index])
        wrong("score %g, not %g", (double)p->score, (double)scores[p->index]);
    if (p->probability != (probabilities ? probabilities[p->index] : -1))
        wrong("probability %g", (double)p->probability);
    ei_ranked best[8];
    size_t ranked = 0;
    if (!expect(ei_top(found, image, best, 8, &ranked), "EI_OK"))
        return;
    if (ranked != (classes < 8 ? classes : 8))
        wrong("%zu classes ranked", ranked);
    for (size_t i = 1; i < ranked; i++)
        if (best[i - 1].score < best[i].score ||
            (best[i - 1].score == best[i].score && best[i - 1].index > best[i].index))
            wrong("rank %zu is out of order", i);
}

static void check_answers(const batch *given, const field *f)
{
    double tolerance = number(f[2].text);
    size_t bytes, classes = ei_predicted_classes(found), count = ei_prediction_count(found);
    char *data = read_vector(f[0].text, &bytes), *at = data;
    if (count != given->count || classes != ei_class_count(model))
        wrong("%zu answers of %zu classes", count, classes);
    char parts[80];
    snprintf(parts, sizeof parts, "%s", f[1].text);
    for (char *part = strtok(parts, ","); part; part = strtok(NULL, ",")) {
        bool wide = strcmp(part, "scores") == 0 || strcmp(part, "probability") == 0;
        for (size_t i = 0; i < count; i++) {
            const ei_prediction *p = ei_prediction_at(found, i);
            const float *row =
                *part == 's' ? ei_scores_at(found, i) : ei_probabilities_at(found, i);
            int32_t value = *part == 'l' ? p->index : *part == 'k' ? p->known : p->proxy;
            int32_t wanted;
            if ((size_t)(data + bytes - at) < (wide ? classes : 1) * 4) {
                wrong("%s holds too little", f[0].text);
                break;
            }
            if (wide && !row) {
                wrong("no %s", part);
            } else if (wide) {
                near(row, (const float *)at, classes, tolerance, part);
            } else {
                memcpy(&wanted, at, sizeof wanted);
                if (value != wanted)
                    wrong("%s of image %zu is %d, not %d", part, i, (int)value, (int)wanted);
            }
            at += (wide ? classes : 1) * 4;
        }
    }
    if (at != data + bytes)
        wrong("%s holds more", f[0].text);
    for (size_t i = 0; i < count; i++)
        check_answer(i, classes);
    free(data);
}

void do_predict(const field *f)
{
    batch given = read_images(f);
    if (expect(ei_predict(model, given.images, given.count, &found), "EI_OK"))
        check_answers(&given, f + 5);
    if (pad_rows(&given) &&
        expect(ei_predict(model, given.images, given.count, &found), "EI_OK"))
        check_answers(&given, f + 5);
    free_batch(&given);
}

void do_refuse(const field *f)
{
    batch given = read_images(f);
    expect(ei_predict(model, given.images, given.count, &found), f[5].text);
    if (ei_prediction_count(found) || ei_prediction_at(found, 0))
        wrong("answers in spite of a failure");
    free_batch(&given);
}

void do_embed(const field *f, size_t fields)
{
    batch given = read_images(f);
    ei_description d = {.size = sizeof d};
    ei_describe(model, &d);
    size_t bytes = 0, floats = given.count * (size_t)d.embedding_size;
    float *rows = must(malloc(floats * sizeof *rows));
    ei_status status = ei_embed(model, given.images, given.count, rows, floats);
    if (fields == 8) {
        expect(status, f[7].text);
    } else if (expect(status, "EI_OK")) {
        float *wanted = read_vector(f[5].text, &bytes);
        if (bytes != floats * sizeof *rows)
            wrong("%zu numbers", floats);
        else
            near(rows, wanted, floats, number(f[6].text), "number");
        free(wanted);
    }
    free(rows);
    free_batch(&given);
}

void do_prepare(const field *f)
{
    size_t bytes, wanted_bytes;
    uint8_t *data = read_vector(f[0].text, &bytes);
    uint8_t *wanted = read_vector(f[3].text, &wanted_bytes);
    uint8_t *pixels = must(malloc(wanted_bytes));
    ei_image photo = {.data = data,
                      .width = atoi(f[1].text),
                      .height = atoi(f[2].text),
                      .format = EI_RGB8};
    if (expect(ei_prepare(model, &photo, pixels, wanted_bytes), "EI_OK"))
        for (size_t i = 0; i < wanted_bytes; i++)
            if (pixels[i] != wanted[i]) {
                wrong("byte %zu is %d, not %d", i, pixels[i], wanted[i]);
                break;
            }
    free(data);
    free(wanted);
    free(pixels);
}
