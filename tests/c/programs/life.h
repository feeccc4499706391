/* SPDX-License-Identifier: Apache-2.0 */
/* A model's whole life in steps, each of which a program lets fail in its own way. */
#ifndef LIFE_H
#define LIFE_H

#include <stdbool.h>
#include <stdio.h>

#include "edge_imprint.h"

#define COUNT 5
#define MOST_SIDE 64

static char model_path[4096], head_path[4096];
static ei_options options;
static ei_model *model;
static ei_predictions *found;
static ei_image images[COUNT];
static unsigned char pixels[COUNT][MOST_SIDE * (MOST_SIDE + 1) * 3]; /* room for padded rows */

typedef struct step {
    const char *name;
    ei_status (*run)(void);
    void (*undo)(void); /* after a failure; a step that does nothing else has no `run` */
} step;

static ei_status open_file(void)
{
    return ei_open(model_path, &options, &model);
}

static void close_model(void)
{
    ei_close(model);
    model = NULL;
}

static ei_status predict_one(void)
{
    return ei_predict(model, images, 1, &found);
}

static ei_status predict_some(void)
{
    return ei_predict(model, images, COUNT, &found);
}

static void free_found(void)
{
    ei_free_predictions(found);
    found = NULL;
}

static ei_status embed(void)
{
    static float rows[COUNT * 4096];
    return ei_embed(model, images, COUNT, rows, sizeof rows / sizeof *rows);
}

static ei_status teach(void)
{
    return ei_teach(model, "a new one", images, COUNT, 0);
}

static ei_status forget(void)
{
    return ei_forget(model, "a new one");
}

static ei_status save(void)
{
    return ei_save_head(model, head_path);
}

static ei_status load(void)
{
    return ei_load_head(model, head_path);
}

static void nothing(void)
{
}

/* Make the images of a model at `path`, for which `options` are there. It is closed again: what
 * is done once in a process is done. */
static bool begin_life(const char *path, const char *folder)
{
    snprintf(model_path, sizeof model_path, "%s", path);
    snprintf(head_path, sizeof head_path, "%s/saved.head", folder);
    ei_description about = {.size = sizeof about};
    if (open_file() || ei_describe(model, &about)) {
        fprintf(stderr, "%s\n", ei_last_error());
        return false;
    }
    if (about.width > MOST_SIDE || about.height > MOST_SIDE) {
        fprintf(stderr, "%d x %d pixels are too many\n", about.width, about.height);
        return false;
    }
    for (int i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < sizeof pixels[i]; k++)
            pixels[i][k] = (unsigned char)((k * 2654435761u >> 7) + (unsigned)i * 50);
        images[i] = (ei_image){.data = pixels[i], .width = about.width, .height = about.height};
    }
    close_model();
    return true;
}

/* What the model answers: the sum of scores weighted by place, and how many classes there are. */
static double fingerprint(void)
{
    ei_predictions *answers = NULL;
    double sum = (double)ei_class_count(model);
    if (ei_predict(model, images, COUNT, &answers))
        return -1;
    for (size_t i = 0; i < COUNT; i++)
        for (size_t c = 0; c < ei_predicted_classes(answers); c++)
            sum += ei_scores_at(answers, i)[c] * (double)(i + 2 * c + 1);
    ei_free_predictions(answers);
    return sum;
}

/* What a step that failed has left wrongly, in words, or NULL. There `had` been a model, or
 * not; its fingerprint was `before`. */
static const char *harm(bool had, double before)
{
    if (!had && model)
        return "there is a model";
    if (ei_prediction_count(found))
        return "there are answers";
    if (had && fingerprint() != before)
        return "the model answers otherwise";
    return NULL;
}

/* Take one step after the other, up to the first that `try_step` finds wrong. */
static int live(const step *steps, size_t count, int (*try_step)(const step *))
{
    int wrong = 0;
    for (size_t i = 0; i < count && !wrong; i++) {
        if (steps[i].run)
            wrong = try_step(steps + i);
        else
            steps[i].undo();
    }
    return wrong;
}

#endif
