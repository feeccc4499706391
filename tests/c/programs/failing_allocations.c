/* SPDX-License-Identifier: Apache-2.0 */
/* Each allocation of the library fails in turn, over a model's whole life: the status is
 * EI_OUT_OF_MEMORY, nothing leaks, and what failed works when it is done again.
 *
 *   failing_allocations MODEL LIBRARY FOLDER
 *
 * MODEL is teachable, of pixels, its head beside it. Prints a line for each step: its name and how
 * many allocations it has. */
#include <stdlib.h>
#include <string.h>

#include "counted_malloc.h"
#include "life.h"

static void *model_bytes;
static size_t model_size;

static ei_status open_bytes(void)
{
    return ei_open_buffer(model_bytes, model_size, &options, &model);
}

/* Padded rows, so that they are copied. */
static ei_status predict_padded(void)
{
    for (int i = 0; i < COUNT; i++)
        images[i].stride_bytes = (size_t)images[i].width * 3 + 3;
    ei_status status = predict_some();
    for (int i = 0; i < COUNT; i++)
        images[i].stride_bytes = 0;
    return status;
}

static ei_status prepare(void)
{
    static unsigned char prepared[MOST_SIDE * MOST_SIDE * 3];
    static unsigned char photo[50 * 90 * 3];
    ei_image given = {.data = photo, .width = 90, .height = 50};
    return ei_prepare(model, &given, prepared, sizeof prepared);
}

static ei_status teach_more(void)
{
    return ei_teach(model, "a new one", images, 2, 1);
}

/* Fail each allocation of a step in turn, until none fails any more. */
static int try_step(const step *taken)
{
    bool had = model != NULL;
    double before = had ? fingerprint() : 0;
    for (long k = 1;; k++) {
        allocations = 0;
        failing = k;
        ei_status status = taken->run();
        failing = 0;
        if (allocations < k) {
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
        const char *harmed = harm(had, before);
        if (harmed) {
            printf("%s: allocation %ld failed, and %s\n", taken->name, k, harmed);
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

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    options = (ei_options){.size = sizeof options, .threads = 1, .library = arguments[2]};
    if (!begin_life(arguments[1], arguments[3]) || read_model())
        return 2;
    static const step steps[] = {
        {"open", open_file, nothing},
        {"predict one", predict_one, free_found},
        {"predict some", predict_padded, free_found},
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
    int wrong = live(steps, sizeof steps / sizeof *steps, try_step);
    free(model_bytes);
    return wrong;
}
