/* SPDX-License-Identifier: Apache-2.0 */
/* Eight threads predict while one teaches, forgets, saves and loads: each answer is that of what
 * the model knew at one time, number by number.
 *
 *   concurrency MODEL LIBRARY FOLDER ROUNDS
 *
 * MODEL is teachable, of pixels, its head beside it. Prints how many answers were of each of the
 * states; ends with 1 where one was of none. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge_imprint.h"

#define THREADS 8
#define STATES 4
#define MOST_CLASSES 16

/* What the model answers to one thread's image in one state. */
typedef struct answer {
    size_t classes;
    float scores[MOST_CLASSES];
    char label[64];
} answer;

typedef struct worker {
    pthread_t thread;
    ei_image image;
    answer answers[STATES];
    long seen[STATES];
    long wrong;
} worker;

static ei_model *model;
static char head_path[4096];
static atomic_int teaching_ended;
static worker workers[THREADS];
static ei_image lessons[2][3];
static atomic_long failed;

/* The states in turn: as opened, with A, with A and B, with B. */
static ei_status step(int state)
{
    switch (state) {
    case 0:
        return ei_teach(model, "A", lessons[0], 3, 2);
    case 1:
        return ei_teach(model, "B", lessons[1], 3, 0);
    case 2:
        return ei_forget(model, "A");
    default:
        return ei_forget(model, "B");
    }
}

static ei_status read_answer(const ei_predictions *found, answer *into)
{
    memset(into, 0, sizeof *into);
    into->classes = ei_predicted_classes(found);
    if (into->classes > MOST_CLASSES)
        return EI_NO_ROOM;
    memcpy(into->scores, ei_scores_at(found, 0), into->classes * sizeof(float));
    snprintf(into->label, sizeof into->label, "%s %s", ei_prediction_at(found, 0)->nearest,
             ei_predicted_label(found, into->classes - 1));
    return EI_OK;
}

static ei_status record(void)
{
    for (int state = 0; state < STATES; state++) {
        for (int i = 0; i < THREADS; i++) {
            ei_predictions *found = NULL;
            ei_status status = ei_predict(model, &workers[i].image, 1, &found);
            if (!status)
                status = read_answer(found, &workers[i].answers[state]);
            ei_free_predictions(found);
            if (status)
                return status;
        }
        ei_status status = step(state);
        if (status)
            return status;
    }
    return EI_OK;
}

static void judge(worker *self, const ei_predictions *found)
{
    answer got;
    if (read_answer(found, &got)) {
        self->wrong++;
        return;
    }
    for (int state = 0; state < STATES; state++) {
        if (!memcmp(&got, &self->answers[state], sizeof got)) {
            self->seen[state]++;
            return;
        }
    }
    self->wrong++;
}

static void *predict(void *given)
{
    worker *self = given;
    ei_predictions *found = NULL;
    char name[64];
    for (long turn = 0; !atomic_load(&teaching_ended); turn++) {
        if (ei_predict(model, &self->image, 1, &found)) {
            atomic_fetch_add(&failed, 1);
            break;
        }
        judge(self, found);
        /* Now and then new ones, and what else may be asked meanwhile. */
        if (turn % 16 == 15) {
            ei_free_predictions(found);
            found = NULL;
            size_t classes = ei_class_count(model);
            if (!classes || ei_class_name(model, 0, name, sizeof name))
                atomic_fetch_add(&failed, 1);
        }
        if (turn % 64 == 63) {
            float row[4096];
            if (ei_embed(model, &self->image, 1, row, 4096))
                atomic_fetch_add(&failed, 1);
        }
    }
    ei_free_predictions(found);
    return NULL;
}

static ei_status teach(long rounds)
{
    for (long round = 0; round < rounds; round++) {
        for (int state = 0; state < STATES; state++) {
            ei_status status = step(state);
            if (!status)
                status = ei_save_head(model, head_path);
            if (!status && round % 4 == state)
                status = ei_load_head(model, head_path);
            if (status)
                return status;
        }
    }
    return EI_OK;
}

static unsigned char *make_image(const ei_description *about, unsigned seed, ei_image *image)
{
    size_t bytes = (size_t)about->width * (size_t)about->height * 3;
    unsigned char *pixels = malloc(bytes);
    unsigned value = seed * 2654435761u + 1;
    for (size_t i = 0; pixels && i < bytes; i++) {
        value = value * 1664525u + 1013904223u;
        pixels[i] = (unsigned char)(value >> 24);
    }
    *image = (ei_image){.data = pixels, .width = about->width, .height = about->height};
    return pixels;
}

int main(int count, char **arguments)
{
    if (count != 5)
        return 2;
    snprintf(head_path, sizeof head_path, "%s/kept.head", arguments[3]);
    ei_options options = {.size = sizeof options, .threads = 1, .library = arguments[2]};
    ei_description about = {.size = sizeof about};
    unsigned char *kept[THREADS + 6];
    if (ei_open(arguments[1], &options, &model) || ei_describe(model, &about))
        goto failed;
    for (unsigned i = 0; i < THREADS; i++)
        kept[i] = make_image(&about, i + 1, &workers[i].image);
    for (unsigned i = 0; i < 6; i++)
        kept[THREADS + i] = make_image(&about, 100 + i, &lessons[i / 3][i % 3]);
    if (record())
        goto failed;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&workers[i].thread, NULL, predict, workers + i);
    ei_status status = teach(atol(arguments[4]));
    if (status)
        fprintf(stderr, "%s\n", ei_last_error());
    atomic_store(&teaching_ended, 1);
    long seen[STATES] = {0}, wrong = atomic_load(&failed) + (status != EI_OK);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        wrong += workers[i].wrong;
        for (int state = 0; state < STATES; state++)
            seen[state] += workers[i].seen[state];
    }
    printf("%ld %ld %ld %ld wrong %ld\n", seen[0], seen[1], seen[2], seen[3],
           wrong + atomic_load(&failed));
    ei_close(model);
    for (int i = 0; i < THREADS + 6; i++)
        free(kept[i]);
    return wrong != 0;
failed:
    fprintf(stderr, "%s\n", ei_last_error());
    ei_close(model);
    return 2;
}
