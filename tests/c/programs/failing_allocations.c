/* SPDX-License-Identifier: Apache-2.0 */
/* Each allocation of the library fails in turn, over a model's whole life: the status is
 * EI_OUT_OF_MEMORY, nothing leaks, and what failed works when it is done again.
 *
 *   failing_allocations MODEL LIBRARY FOLDER
 *
 * MODEL is teachable, of pixels, its head beside it. Prints a line for each step: its name and how
 * many allocations it has. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge_imprint.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
int __real_posix_memalign(void **memory, size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes);

static long made, failing; /* allocations so far; which one fails, 0: none */

static bool fails(void)
{
    made++;
    if (made != failing)
        return false;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    return fails() ? NULL : __real_realloc(memory, bytes);
}

int __wrap_posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    return fails() ? ENOMEM : __real_posix_memalign(memory, alignment, bytes);
}

#define COUNT 5
#define MOST_PIXELS (64 * 64)

static char model_path[4096], head_path[4096];
static const char *library;
static ei_options options;
static void *model_bytes;
static size_t model_size;
static ei_model *model;
static ei_predictions *found;
static ei_image images[COUNT];
static unsigned char pixels[COUNT][(MOST_PIXELS + 1) * 3];
static int32_t side;

static ei_status open_file(void)
{
    return ei_open(model_path, &options, &model);
}

static ei_status open_bytes(void)
{
    return ei_open_buffer(model_bytes, model_size, &options, &model);
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

/* Padded rows, so that they are copied. */
static ei_status predict_some(void)
{
    for (int i = 0; i < COUNT; i++)
        images[i].stride_bytes = (size_t)side * 3 + 3;
    ei_status status = ei_predict(model, images, COUNT, &found);
    for (int i = 0; i < COUNT; i++)
        images[i].stride_bytes = 0;
    return status;
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

static ei_status prepare(void)
{
    static unsigned char prepared[MOST_PIXELS * 3];
    static unsigned char photo[50 * 90 * 3];
    ei_image given = {.data = photo, .width = 90, .height = 50};
    return ei_prepare(model, &given, prepared, sizeof prepared);
}

static ei_status teach(void)
{
    return ei_teach(model, "a new one", images, COUNT, 0);
}

static ei_status teach_more(void)
{
    return ei_teach(model, "a new one", images, 2, 1);
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

typedef struct step {
    const char *name;
    ei_status (*run)(void);
    void (*undo)(void); /* after a failure; a step that does nothing else has no `run` */
} step;

/* Fail each allocation of a step in turn, until none fails any more. */
static int try_step(const step *taken)
{
    bool had = model != NULL;
    double before = had ? fingerprint() : 0;
    for (long k = 1;; k++) {
        made = 0;
        failing = k;
        ei_status status = taken->run();
        failing = 0;
        if (made < k) {
            if (status) {
                printf("%s: %s\n", taken->name, ei_last_error());
                return 1;
            }
            printf("%s %ld\n", taken->name, k - 1);
            return 0;
        }
        if (status != EI_OUT_OF_MEMORY || !strstr(ei_last_error(), "memory")) {
            printf("%s: allocation %ld failed, and the status is %s (%s)\n", taken->name, k,
                   ei_status_name(status), ei_last_error());
            return 1;
        }
        if (!had && model) {
            printf("%s: it failed, and there is a model\n", taken->name);
            return 1;
        }
        if (ei_prediction_count(found)) {
            printf("%s: it failed, and there are answers\n", taken->name);
            return 1;
        }
        if (had && fingerprint() != before) {
            printf("%s: it failed at %ld, and the model answers otherwise\n", taken->name, k);
            return 1;
        }
        taken->undo();
    }
}

static int read_model(void)
{
    FILE *file = fopen(model_path, "rb");
    if (!file)
        return 1;
    fseek(file, 0, SEEK_END);
    model_size = (size_t)ftell(file);
    rewind(file);
    model_bytes = __real_malloc(model_size);
    size_t read = fread(model_bytes, 1, model_size, file);
    fclose(file);
    return read != model_size;
}

static void make_images(void)
{
    for (int i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < sizeof pixels[i]; k++)
            pixels[i][k] = (unsigned char)((k * 2654435761u >> 7) + (unsigned)i * 50);
        images[i] = (ei_image){.data = pixels[i], .width = side, .height = side};
    }
}

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    snprintf(model_path, sizeof model_path, "%s", arguments[1]);
    library = arguments[2];
    snprintf(head_path, sizeof head_path, "%s/saved.head", arguments[3]);
    options = (ei_options){.size = sizeof options, .threads = 1, .library = library};
    ei_description about = {.size = sizeof about};
    if (read_model() || open_file() || ei_describe(model, &about) || about.width > 64)
        return 2;
    side = about.width;
    make_images();
    close_model();
    static const step steps[] = {
        {"open", open_file, nothing},
        {"predict one", predict_one, free_found},
        {"predict some", predict_some, free_found},
        {"predict again", predict_one, nothing},
        {"free", NULL, free_found},
        {"embed", embed, nothing},
        {"prepare", prepare, nothing},
        {"teach", teach, nothing},
        {"teach more", teach_more, nothing},
        {"save", save, nothing},
        {"forget", forget, nothing},
        {"load", load, nothing},
        {"close", NULL, close_model},
        {"open bytes", open_bytes, nothing},
        {"close", NULL, close_model},
    };
    int wrong = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps && !wrong; i++) {
        if (steps[i].run)
            wrong = try_step(steps + i);
        else
            steps[i].undo();
    }
    free(model_bytes);
    return wrong;
}
