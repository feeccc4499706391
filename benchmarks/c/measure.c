/* SPDX-License-Identifier: Apache-2.0 */
/* What benchmarks/c_runtime.py measures, in a process without Python:
 *
 *   measure predict MODEL ROUNDS COUNT   ei_predict and a bare loop of OrtApi.Run, by turns
 *   measure serve MODEL COUNT            ei_predict alone, then the resident memory
 *   measure teach MODEL REPEATS          20 embeddings, 5 proxies
 *   measure load MODEL REPEATS HEAD...   ei_load_head, by turns
 *
 * Prints one line a series: its name, then nanoseconds. ONNX Runtime is the one that
 * $EDGE_IMPRINT_ONNXRUNTIME names; one thread, as two pools that spin disturb each other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "edge_imprint.h"
#include "ort.h"

#define WARM_UP_NS 100000000LL

/* Two functions that the library itself does not use, by their place in ONNX Runtime's table. */
typedef OrtStatus *(*create_env)(unsigned severity, const char *name, OrtEnv **environment);
typedef OrtStatus *(*run)(OrtSession *, const OrtRunOptions *, const char *const *inputs,
                          const OrtValue *const *given, size_t input_count,
                          const char *const *outputs, size_t output_count, OrtValue **found);
#define CREATE_ENV 3
#define RUN 9

typedef struct bare {
    const eip_ort *ort;
    run run;
    OrtSession *session;
    OrtValue *input, *outputs[2];
} bare;

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void need(int fine, const char *what)
{
    if (fine)
        return;
    fprintf(stderr, "%s: %s\n", what, ei_last_error());
    exit(1);
}

/* The least that a C program must do: values made once, one call of Run. */
static void run_bare(bare *loop)
{
    const char *inputs[] = {"images"}, *outputs[] = {"scores", "label"};
    const OrtValue *given[] = {loop->input};
    need(!loop->run(loop->session, NULL, inputs, given, 1, outputs, 2, loop->outputs),
         "OrtApi.Run");
}

static ei_model *open_model(const char *path)
{
    ei_model *model = NULL;
    ei_options options = {.size = sizeof options, .threads = 1};
    need(ei_open(path, &options, &model) == EI_OK, "ei_open");
    return model;
}

static ei_description describe(const ei_model *model)
{
    ei_description found = {.size = sizeof found};
    need(ei_describe(model, &found) == EI_OK, "ei_describe");
    return found;
}

static uint8_t *random_pixels(size_t bytes)
{
    uint8_t *pixels = malloc(bytes);
    need(pixels != NULL, "malloc");
    srand(0);
    for (size_t i = 0; i < bytes; i++)
        pixels[i] = (uint8_t)rand();
    return pixels;
}

static void print_series(const char *name, const long long *taken_ns, size_t count)
{
    fputs(name, stdout);
    for (size_t i = 0; i < count; i++)
        printf(" %lld", taken_ns[i]);
    putchar('\n');
}

static void open_bare(bare *loop, const char *path, uint8_t *pixels, const ei_description *of,
                      size_t classes)
{
    need(eip_ort_open(NULL, &loop->ort) == EI_OK, "eip_ort_open");
    const eip_ort *ort = loop->ort;
    OrtEnv *environment;
    OrtSessionOptions *options;
    OrtMemoryInfo *memory;
    void *library = dlopen(getenv("EDGE_IMPRINT_ONNXRUNTIME"), RTLD_NOW);
    need(library != NULL, "dlopen");
    const eip_ort_base *(*base)(void) = NULL;
    *(void **)&base = dlsym(library, "OrtGetApiBase");
    void *const *table = (void *const *)base()->GetApi(EIP_ORT_TABLE);
    create_env make = NULL;
    memcpy(&make, &table[CREATE_ENV], sizeof make);
    memcpy(&loop->run, &table[RUN], sizeof loop->run);
    need(!make(3, "bare", &environment), "CreateEnv");
    need(!ort->CreateSessionOptions(&options), "CreateSessionOptions");
    need(!ort->SetIntraOpNumThreads(options, 1), "SetIntraOpNumThreads");
    need(!ort->CreateSession(environment, path, options, &loop->session), "CreateSession");
    need(!ort->CreateCpuMemoryInfo(0, 0, &memory), "CreateCpuMemoryInfo");
    int64_t shape[] = {1, of->height, of->width, 3};
    int64_t scores_shape[] = {1, (int64_t)classes}, label_shape[] = {1};
    static float scores[65536];
    static int32_t label[1];
    /* ONNXTensorElementDataType: 1 float, 2 uint8, 6 int32. */
    need(!ort->CreateTensorWithDataAsOrtValue(memory, pixels,
                                              (size_t)of->height * of->width * 3, shape, 4, 2,
                                              &loop->input), "input");
    need(!ort->CreateTensorWithDataAsOrtValue(memory, scores, classes * sizeof(float),
                                              scores_shape, 2, 1, &loop->outputs[0]), "scores");
    need(!ort->CreateTensorWithDataAsOrtValue(memory, label, sizeof label, label_shape, 1, 6,
                                              &loop->outputs[1]), "label");
}

static void predict(const char *path, int rounds, int count)
{
    ei_model *model = open_model(path);
    ei_description of = describe(model);
    uint8_t *pixels = random_pixels((size_t)of.width * of.height * 3);
    bare loop = {0};
    open_bare(&loop, path, pixels, &of, ei_class_count(model));
    ei_image image = {.data = pixels, .width = of.width, .height = of.height};
    ei_predictions *found = NULL;
    long long *taken_ns = malloc((size_t)count * sizeof *taken_ns);
    for (int round = 0; round < rounds; round++) {
        for (int turn = 0; turn < 2; turn++) {
            int ours = turn ^ (round & 1);
            long long end_ns = now_ns() + WARM_UP_NS;
            for (int i = 0; i < count;) {
                long long begin_ns = now_ns();
                if (ours)
                    need(ei_predict(model, &image, 1, &found) == EI_OK, "ei_predict");
                else
                    run_bare(&loop);
                long long after_ns = now_ns();
                if (begin_ns > end_ns)
                    taken_ns[i++] = after_ns - begin_ns;
            }
            print_series(ours ? "ei_predict" : "bare", taken_ns, (size_t)count);
        }
    }
}

static void serve(const char *path, int count)
{
    ei_model *model = open_model(path);
    ei_description of = describe(model);
    uint8_t *pixels = random_pixels((size_t)of.width * of.height * 3);
    ei_image image = {.data = pixels, .width = of.width, .height = of.height};
    ei_predictions *found = NULL;
    long long *taken_ns = malloc((size_t)count * sizeof *taken_ns);
    long long end_ns = now_ns() + WARM_UP_NS;
    for (int i = 0; i < count;) {
        long long begin_ns = now_ns();
        need(ei_predict(model, &image, 1, &found) == EI_OK, "ei_predict");
        if (begin_ns > end_ns)
            taken_ns[i++] = now_ns() - begin_ns;
    }
    print_series("ei_predict", taken_ns, (size_t)count);
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    long kilobytes = 0;
    while (status && fgets(line, sizeof line, status))
        sscanf(line, "VmRSS: %ld", &kilobytes);
    printf("rss_bytes %ld\n", kilobytes * 1024);
}

static void teach(const char *path, int repeats)
{
    ei_model *model = open_model(path);
    size_t size = (size_t)describe(model).embedding_size;
    float *rows = malloc(20 * size * sizeof *rows);
    long long *taken_ns = malloc((size_t)repeats * sizeof *taken_ns);
    srand(1);
    for (int i = 0; i < repeats; i++) {
        for (size_t j = 0; j < 20 * size; j++)
            rows[j] = (float)rand() / (float)RAND_MAX - 0.5F;
        long long begin_ns = now_ns();
        need(ei_teach_embeddings(model, "taught", rows, 20, 5) == EI_OK, "ei_teach_embeddings");
        taken_ns[i] = now_ns() - begin_ns;
        need(ei_forget(model, "taught") == EI_OK, "ei_forget");
    }
    print_series("teach", taken_ns, (size_t)repeats);
}

static void load(const char *path, int repeats, char **heads, int count)
{
    ei_model *model = open_model(path);
    long long *taken_ns = malloc((size_t)repeats * sizeof *taken_ns);
    for (int i = -2; i < repeats; i++) {
        const char *head = heads[(i + count) % count];
        long long begin_ns = now_ns();
        need(ei_load_head(model, head) == EI_OK, "ei_load_head");
        if (i >= 0)
            taken_ns[i] = now_ns() - begin_ns;
    }
    print_series("load", taken_ns, (size_t)repeats);
}

int main(int count, char **words)
{
    const char *what = count > 3 ? words[1] : "";
    if (!strcmp(what, "predict") && count == 5)
        predict(words[2], atoi(words[3]), atoi(words[4]));
    else if (!strcmp(what, "serve"))
        serve(words[2], atoi(words[3]));
    else if (!strcmp(what, "teach"))
        teach(words[2], atoi(words[3]));
    else if (!strcmp(what, "load") && count > 4)
        load(words[2], atoi(words[3]), words + 4, count - 4);
    else
        return fputs("usage: see the head of measure.c\n", stderr), 2;
    return 0;
}
