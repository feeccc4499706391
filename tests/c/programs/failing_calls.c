/* SPDX-License-Identifier: Apache-2.0 */
/* Each call to ONNX Runtime fails in turn, over a model's whole life: the status says so, what the
 * model knows stays, and what failed works when it is done again.
 *
 *   failing_calls MODEL PROVIDER FOLDER
 *
 * MODEL is teachable, of pixels, its head beside it; $EI_FAILING is libfailing_ort.so. Prints a
 * line for each step: its name, how many calls it has, and the statuses of their failures. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge_imprint.h"

#define COUNT 3
#define MOST_PIXELS (64 * 64)
#define STATUSES (EI_WRITE_FAILED + 1)

static void (*fail_at)(long number);
static long (*calls)(void);

static const char *model_path;
static char head_path[4096];
static ei_options options;
static ei_model *model;
static ei_predictions *found;
static ei_image images[COUNT];
static unsigned char pixels[COUNT][MOST_PIXELS * 3];

static ei_status open_model(void)
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

static void show(const char *name, long count, const bool *seen)
{
    printf("%s: %ld", name, count);
    for (int status = 0; status < STATUSES; status++)
        if (seen[status])
            printf(" %s", ei_status_name((ei_status)status));
    putchar('\n');
}

/* Fail each call of a step in turn, until none fails any more. */
static int try_step(const step *taken)
{
    bool had = model != NULL, seen[STATUSES] = {false};
    double before = had ? fingerprint() : 0;
    for (long k = 1;; k++) {
        fail_at(k);
        ei_status status = taken->run();
        bool failed = calls() >= k;
        fail_at(0);
        if (!failed && !status) {
            show(taken->name, k - 1, seen);
            return 0;
        }
        if (!failed || !status || !strstr(ei_last_error(), "it failed on purpose")) {
            printf("%s: call %ld: the status is %s (%s)\n", taken->name, k,
                   ei_status_name(status), ei_last_error());
            return 1;
        }
        seen[status] = true;
        if ((!had && model) || ei_prediction_count(found)) {
            printf("%s: call %ld failed, and there is a model or an answer\n", taken->name, k);
            return 1;
        }
        if (had && fingerprint() != before) {
            printf("%s: call %ld failed, and the model answers otherwise\n", taken->name, k);
            return 1;
        }
        taken->undo();
    }
}

static bool prepare(char **arguments)
{
    options = (ei_options){.size = sizeof options,
                           .threads = 1,
                           .library = getenv("EI_FAILING"),
                           .provider = (ei_provider)atoi(arguments[2]),
                           .cache_folder = arguments[3]};
    model_path = arguments[1];
    snprintf(head_path, sizeof head_path, "%s/saved.head", arguments[3]);
    void *library = dlopen(options.library, RTLD_NOW | RTLD_LOCAL);
    void *set = library ? dlsym(library, "failing_ort_at") : NULL;
    void *get = library ? dlsym(library, "failing_ort_calls") : NULL;
    memcpy(&fail_at, &set, sizeof set);
    memcpy(&calls, &get, sizeof get);
    ei_description about = {.size = sizeof about};
    if (!set || !get || open_model() || ei_describe(model, &about) || about.width > 64) {
        fprintf(stderr, "%s\n", ei_last_error());
        return false;
    }
    for (int i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < sizeof pixels[i]; k++)
            pixels[i][k] = (unsigned char)((k * 2654435761u >> 7) + (unsigned)i * 50);
        images[i] = (ei_image){.data = pixels[i], .width = about.width, .height = about.height};
    }
    close_model(); /* what is done once in a process is done */
    return true;
}

int main(int count, char **arguments)
{
    static const step steps[] = {
        {"open", open_model, nothing},
        {"predict one", predict_one, free_found},
        {"predict some", predict_some, nothing},
        {"predict again", predict_some, nothing},
        {"free", NULL, free_found},
        {"embed", embed, nothing},
        {"teach", teach, nothing},
        {"predict what was taught", predict_some, free_found},
        {"free", NULL, free_found},
        {"save", save, nothing},
        {"forget", forget, nothing},
        {"load", load, nothing},
        {"predict what was loaded", predict_one, nothing},
        {"free", NULL, free_found},
        {"close", NULL, close_model},
    };
    if (count != 4 || !prepare(arguments))
        return 2;
    int wrong = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps && !wrong; i++) {
        if (steps[i].run)
            wrong = try_step(steps + i);
        else
            steps[i].undo();
    }
    return wrong;
}
