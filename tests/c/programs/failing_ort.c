/* SPDX-License-Identifier: Apache-2.0 */
/* kind: shared library
 *
 * An ONNX Runtime between the library and the real one ($EI_REAL_ORT), of which each call can be
 * made to fail, and which claims to have GPU providers.
 *
 *   EI_FAIL_AT      the number of the call that fails, from 1; also failing_ort_at()
 *   EI_FAIL_WORDS   what it says then
 *   EI_FAKE_LOG     what it logs then
 *   EI_FAKE_VERSION the version it claims
 *   EI_FAKE_NO_TABLE, EI_FAKE_NO_BASE  set: it gives none
 *   EI_FAKE_TOOK    the provider that it claims ran all nodes; "": there is no trace of the run
 *   EI_FAKE_TOLD    a file that takes what providers are told, KEY=VALUE a line
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ort.h"

#define PLACES 300 /* more than are used */
#define CREATE_STATUS 0

typedef uintptr_t word;
/* Each of its functions takes whole numbers and pointers only, seven at most, so that one kind of
 * function can stand in for all: those that are not there are passed on unread. */
typedef word function(word, word, word, word, word, word, word);

#define PARAMETERS word a, word b, word c, word d, word e, word f, word g
#define ARGUMENTS a, b, c, d, e, f, g

static void *places[PLACES];
static function *const *real;
static atomic_long calls, fail_at;
static eip_ort_logger logger;

void failing_ort_at(long number);
long failing_ort_calls(void);
const eip_ort_base *OrtGetApiBase(void);

/* Let the call of that number, counted from now, fail; 0: none. */
void failing_ort_at(long number)
{
    atomic_store(&calls, 0);
    atomic_store(&fail_at, number);
}

/* Return how many calls there were since. */
long failing_ort_calls(void)
{
    return atomic_load(&calls);
}

static word new_status(void)
{
    const char *words = getenv("EI_FAIL_WORDS"), *log = getenv("EI_FAKE_LOG");
    static const char usual[] = "/build/onnxruntime/core/x.cc:12 void onnxruntime::f(int, bool) "
                                "const  it failed\n on purpose";
    if (log && logger) {
        logger(NULL, 2, "category", "id", "place", "a warning");
        logger(NULL, 3, "category", "id", "place", log);
    }
    return real[CREATE_STATUS](1, (word)(words ? words : usual), 0, 0, 0, 0, 0);
}

/* Count a call; a status where it is to fail. */
static word count(void)
{
    long number = atomic_fetch_add(&calls, 1) + 1;
    return number == atomic_load(&fail_at) ? new_status() : 0;
}

/* A call that gives something back does so, and then fails. */
static int gives_back(const char *name)
{
    return !strcmp(name, "AllocatorFree") || !strcmp(name, "ReleaseAvailableProviders");
}

#define WRAP(place, name, result, arguments)                                \
    static word wrap_##name(PARAMETERS)                                     \
    {                                                                       \
        word failed = count();                                              \
        if (failed && !gives_back(#name))                                   \
            return failed;                                                  \
        function *stand_in = stands_in(#name);                              \
        word found = (stand_in ? stand_in : real[place])(ARGUMENTS);        \
        return failed ? failed : found;                                     \
    }

/* ------------------------------------------------------------------- what a GPU would do -- */

#define UNUSED (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g

static word fake_providers(PARAMETERS)
{
    static const char *const names[] = {"TensorrtExecutionProvider", "CUDAExecutionProvider",
                                        "CPUExecutionProvider"};
    UNUSED;
    *(const char *const **)a = names;
    *(int *)b = 3;
    return 0;
}

static word keep_logger(PARAMETERS)
{
    memcpy(&logger, &a, sizeof logger);
    return real[4](ARGUMENTS);
}

static word fake_nothing(PARAMETERS)
{
    UNUSED;
    return 0;
}

static word fake_create(PARAMETERS)
{
    static int options;
    UNUSED;
    *(void **)a = &options;
    return 0;
}

static word fake_update(PARAMETERS)
{
    const char *const *keys = (const char *const *)b, *const *values = (const char *const *)c;
    const char *path = getenv("EI_FAKE_TOLD");
    FILE *file = path ? fopen(path, "a") : NULL;
    UNUSED;
    for (size_t i = 0; file && i < d; i++)
        fprintf(file, "%s=%s\n", keys[i], values[i]);
    if (file)
        fclose(file);
    return 0;
}

/* The real trace, with another provider in it. */
static word fake_trace(PARAMETERS)
{
    static const char cpu[] = "\"CPUExecutionProvider\"";
    const char *took = getenv("EI_FAKE_TOOK");
    word failed = real[110](ARGUMENTS);
    if (failed || !took)
        return failed;
    const char *path = *(char **)c;
    static char text[1 << 22];
    if (!*took) {
        remove(path);
        return 0;
    }
    FILE *file = fopen(path, "r");
    size_t bytes = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[bytes] = 0;
    file = fopen(path, "w");
    if (!file)
        return 0;
    const char *from = text;
    for (const char *at; (at = strstr(from, cpu)); from = at + sizeof cpu - 1) {
        fwrite(from, 1, (size_t)(at - from), file);
        fprintf(file, "\"%s\"", took);
    }
    fputs(from, file);
    fclose(file);
    return 0;
}

static function *stands_in(const char *name)
{
    static const struct {
        const char *part;
        function *made;
    } fakes[] = {{"CreateEnvWithCustomLogger", keep_logger},
                 {"GetAvailableProviders", fake_providers},
                 {"ReleaseAvailableProviders", fake_nothing},
                 {"SessionEndProfiling", fake_trace},
                 {"AppendExecutionProvider", fake_nothing},
                 {"CreateCUDA", fake_create},
                 {"CreateTensorRT", fake_create},
                 {"UpdateCUDA", fake_update},
                 {"UpdateTensorRT", fake_update}};
    for (size_t i = 0; i < sizeof fakes / sizeof *fakes; i++)
        if (strstr(name, fakes[i].part))
            return fakes[i].made;
    return NULL;
}

EIP_ORT_FUNCTIONS(WRAP)

/* --------------------------------------------------------------------------------- table -- */

static const eip_ort_base *real_base(void)
{
    const char *path = getenv("EI_REAL_ORT");
    void *handle = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    const eip_ort_base *(*get)(void) = NULL;
    void *symbol = handle ? dlsym(handle, "OrtGetApiBase") : NULL;
    memcpy(&get, &symbol, sizeof get);
    return get ? get() : NULL;
}

static const OrtApi *get_table(uint32_t version)
{
    const eip_ort_base *base = real_base();
    const char *at = getenv("EI_FAIL_AT");
    if (!base || getenv("EI_FAKE_NO_TABLE"))
        return NULL;
    real = (function *const *)base->GetApi(version);
    if (at)
        atomic_store(&fail_at, atol(at));
#define PUT(place, name, result, arguments)                                                    \
    if (__builtin_types_compatible_p(result, OrtStatus *)) {                                    \
        function *wrapped = wrap_##name;                                                        \
        memcpy(&places[place], &wrapped, sizeof wrapped);                                       \
    } else if (stands_in_release(#name)) {                                                      \
        function *nothing = fake_nothing;                                                       \
        memcpy(&places[place], &nothing, sizeof nothing);                                       \
    } else {                                                                                    \
        memcpy(&places[place], (const char *)real + (place) * sizeof(void *), sizeof(void *));  \
    }
#define stands_in_release(name) (strstr(name, "ProviderOptions") != NULL)
    EIP_ORT_FUNCTIONS(PUT)
    return (const OrtApi *)places;
}

static const char *get_version(void)
{
    const char *claimed = getenv("EI_FAKE_VERSION");
    const eip_ort_base *base = claimed ? NULL : real_base();
    return claimed ? claimed : base ? base->GetVersionString() : "0.0.0";
}

const eip_ort_base *OrtGetApiBase(void)
{
    static const eip_ort_base base = {get_table, get_version};
    return getenv("EI_FAKE_NO_BASE") ? NULL : &base;
}
