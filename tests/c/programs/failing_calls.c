/* SPDX-License-Identifier: Apache-2.0 */
/* Each call to ONNX Runtime fails in turn, over a model's whole life: the status says so, what the
 * model knows stays, and what failed works when it is done again.
 *
 *   failing_calls MODEL PROVIDER FOLDER
 *
 * MODEL is teachable, of pixels, its head beside it; $EI_FAILING is libfailing_ort.so. Prints a
 * line for each step: its name, how many calls it has, and the statuses of their failures. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "life.h"

#define STATUSES (EI_WRITE_FAILED + 1)

static void (*fail_at)(long number);
static long (*calls)(void);

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
        const char *harmed = harm(had, before);
        if (harmed) {
            printf("%s: call %ld failed, and %s\n", taken->name, k, harmed);
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
    void *library = dlopen(options.library, RTLD_NOW | RTLD_LOCAL);
    void *set = library ? dlsym(library, "failing_ort_at") : NULL;
    void *get = library ? dlsym(library, "failing_ort_calls") : NULL;
    memcpy(&fail_at, &set, sizeof set);
    memcpy(&calls, &get, sizeof get);
    return set && get && begin_life(arguments[1], arguments[3]);
}

int main(int count, char **arguments)
{
    static const step steps[] = {
        {"open", open_file, nothing},
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
    return live(steps, sizeof steps / sizeof *steps, try_step);
}
