/* SPDX-License-Identifier: Apache-2.0 */
/* How often memory is allocated per prediction: by the library itself, and by all of the process,
 * beside a bare loop of the same session.
 *
 *   LD_PRELOAD=libcounting_malloc.so allocations MODEL LIBRARY
 *
 * Prints lines `WHAT OURS ALL`: allocations of 1,000 predictions. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "counted_malloc.h"
#include "lane.h"

#define ROUNDS 1000
#define COUNT 4

static long (*all_allocations)(void);

static ei_model *model;
static ei_predictions *found;
static unsigned char *pixels[2];
static ei_image images[2][COUNT];

static ei_status same_image(int round)
{
    (void)round;
    return ei_predict(model, images[0], 1, &found);
}

static ei_status other_image(int round)
{
    return ei_predict(model, images[round % 2], 1, &found);
}

static ei_status some_images(int round)
{
    return ei_predict(model, images[round % 2], COUNT, &found);
}

/* Blue first: copied. */
static ei_status turned_images(int round)
{
    (void)round;
    for (int i = 0; i < COUNT; i++)
        images[0][i].format = EI_BGR8;
    ei_status status = ei_predict(model, images[0], COUNT, &found);
    for (int i = 0; i < COUNT; i++)
        images[0][i].format = EI_RGB8;
    return status;
}

static eip_lane bare;

/* The session's run and nothing else. */
static ei_status bare_loop(int round)
{
    (void)round;
    return eip_run(bare.binding, 1);
}

/* Bind one image, and the outputs that ei_predict asks for. */
static ei_status open_bare(void)
{
    static float scores[65536];
    static int32_t label[1];
    eip_knowledge *known = eip_know(model);
    eip_output outputs[] = {{"scores", EIP_F32, known->classes, scores},
                            {"label", EIP_I32, 0, label}};
    size_t image_bytes;
    int64_t shape[4];
    int dimensions;
    ei_status status = eip_lane_open(&bare, known, outputs, 2, 1, 0);
    if (!status)
        status = eip_intake_check(&model->intake, images[0], 1, &image_bytes, shape, &dimensions);
    return status ? status
                  : eip_lane_run(&bare, &model->intake, images[0], image_bytes, shape, dimensions);
}

static int count_round(const char *what, ei_status (*run)(int))
{
    for (int i = 0; i < 10; i++)
        if (run(i))
            return 1;
    long all_before = all_allocations ? all_allocations() : 0, ours_before = allocations;
    for (int i = 0; i < ROUNDS; i++)
        if (run(i))
            return 1;
    long all_after = all_allocations ? all_allocations() : 0;
    printf("%s %ld %ld\n", what, allocations - ours_before, all_after - all_before);
    return 0;
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    *(void **)&all_allocations = dlsym(RTLD_DEFAULT, "counted_allocations");
    ei_options options = {.size = sizeof options, .threads = 1, .library = arguments[2]};
    ei_description about = {.size = sizeof about};
    if (ei_open(arguments[1], &options, &model) || ei_describe(model, &about)) {
        fprintf(stderr, "%s\n", ei_last_error());
        return 2;
    }
    size_t bytes = (size_t)about.width * (size_t)about.height * 3;
    for (int side = 0; side < 2; side++) {
        pixels[side] = calloc(COUNT, bytes);
        for (size_t i = 0; i < COUNT * bytes; i++)
            pixels[side][i] = (unsigned char)((i * 2654435761u >> 9) + (size_t)side);
        for (size_t i = 0; i < COUNT; i++)
            images[side][i] = (ei_image){.data = pixels[side] + i * bytes,
                                         .width = about.width,
                                         .height = about.height};
    }
    int wrong = open_bare() || count_round("bare_loop", bare_loop) ||
                count_round("same_image", same_image) || count_round("other_image", other_image) ||
                count_round("some_images", some_images) ||
                count_round("turned_images", turned_images);
    if (wrong)
        fprintf(stderr, "%s\n", ei_last_error());
    eip_lane_close(&bare);
    ei_free_predictions(found);
    ei_close(model);
    free(pixels[0]);
    free(pixels[1]);
    return wrong;
}
