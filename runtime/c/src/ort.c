/* SPDX-License-Identifier: Apache-2.0 */
#include "ort.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define LIBRARY_VARIABLE "EDGE_IMPRINT_ONNXRUNTIME"
#define LOG_ERROR 3   /* ORT_LOGGING_LEVEL_ERROR */
#define ARENA 1       /* OrtArenaAllocator */
#define DEFAULT_MEM 0 /* OrtMemTypeDefault */

/* All that were opened, so that a process has one environment of each. */
static eip_ort *all_opened;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

/* ------------------------------------------------------------------------------- opening -- */

static const char wanted_library[] =
    "install ONNX Runtime 1.16 or newer, or name its libonnxruntime.so in " LIBRARY_VARIABLE;

/* Open the shared library; *path becomes the name that it was found under. */
static ei_status open_library(const char **path, void **handle)
{
    static const char *const usual[] = {"libonnxruntime.so.1", "libonnxruntime.so"};
    if (!*path || !**path)
        *path = getenv(LIBRARY_VARIABLE);
    if (*path && **path) {
        *handle = dlopen(*path, RTLD_NOW | RTLD_LOCAL);
        if (*handle)
            return EI_OK;
    } else {
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
            *path = usual[i];
            *handle = dlopen(*path, RTLD_NOW | RTLD_LOCAL);
            if (*handle)
                return EI_OK;
        }
    }
    const char *why = dlerror();
    return eip_fail(EI_LIBRARY_MISSING, "cannot open ONNX Runtime: %s; %s", why ? why : *path,
                    wanted_library);
}

/* Whether a release such as "1.16.3" has what is needed. */
static bool is_new_enough(const char *version)
{
    char *end;
    long major = strtol(version, &end, 10);
    long minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    return major > 1 || (major == 1 && minor >= EIP_ORT_OLDEST);
}

/* Ask for the table. The version comes first: of a table that it does not have yet, ONNX Runtime
 * complains on stderr. */
static ei_status ask_table(void *handle, const char *path, const OrtApi **table,
                           const char **version)
{
    const eip_ort_base *(*get_base)(void);
    void *symbol = dlsym(handle, "OrtGetApiBase");
    memcpy(&get_base, &symbol, sizeof get_base); /* ISO C converts no object to a function */
    const eip_ort_base *base = get_base ? get_base() : NULL;
    if (!base)
        return eip_fail(EI_LIBRARY_MISSING, "%s is no ONNX Runtime: it has no OrtGetApiBase; %s",
                        path, wanted_library);
    *version = base->GetVersionString();
    *table = is_new_enough(*version) ? base->GetApi(EIP_ORT_TABLE) : NULL;
    if (!*table)
        return eip_fail(EI_LIBRARY_TOO_OLD, "%s is ONNX Runtime %s, and 1.16 is needed; %s", path,
                        *version, wanted_library);
    return EI_OK;
}

static void copy_table(const OrtApi *table, eip_ort *ort)
{
    const char *places = (const char *)table;
#define COPY(place, name, result, arguments) \
    memcpy(&ort->name, places + (size_t)(place) * sizeof(void *), sizeof ort->name);
    EIP_ORT_FUNCTIONS(COPY)
#undef COPY
}

/* Make what all sessions share. */
static ei_status start(eip_ort *ort, const char *path)
{
    OrtStatus *status = ort->CreateEnvWithCustomLogger(eip_ort_keep_logged, NULL, LOG_ERROR,
                                                       "edge-imprint", &ort->env);
    if (!status)
        status = ort->GetAllocatorWithDefaultOptions(&ort->allocator);
    if (!status)
        status = ort->CreateCpuMemoryInfo(ARENA, DEFAULT_MEM, &ort->cpu);
    if (!status)
        status = ort->CreateRunOptions(&ort->run);
    if (!status)
        return EI_OK;
    eip_words words;
    eip_ort_take_words(ort, status, &words);
    if (ort->cpu)
        ort->ReleaseMemoryInfo(ort->cpu);
    if (ort->env)
        ort->ReleaseEnv(ort->env);
    return eip_fail(words.no_memory ? EI_OUT_OF_MEMORY : EI_LIBRARY_MISSING,
                    "%s could not start: %s", path, words.text);
}

static ei_status add(void *handle, const char *path, eip_ort **added)
{
    static const char prefix[] = "onnxruntime ";
    const OrtApi *table = NULL;
    const char *version = "";
    ei_status status = ask_table(handle, path, &table, &version);
    if (status)
        return status;
    /* One piece, the name behind the struct. */
    eip_ort *ort = eip_allocate(1, sizeof *ort + sizeof prefix + strlen(version));
    if (!ort)
        return EI_OUT_OF_MEMORY;
    char *library = (char *)(ort + 1);
    memcpy(library, prefix, sizeof prefix - 1);
    strcpy(library + sizeof prefix - 1, version);
    ort->library = library;
    ort->handle = handle;
    copy_table(table, ort);
    status = start(ort, path);
    if (status) {
        free(ort);
        return status;
    }
    ort->next = all_opened;
    all_opened = *added = ort;
    return EI_OK;
}

ei_status eip_ort_open(const char *path, const eip_ort **ort)
{
    void *handle = NULL;
    eip_ort *found = NULL;
    pthread_mutex_lock(&opening);
    /* Before ONNX Runtime is loaded: its official builds from 1.29 on report sessions. */
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    ei_status status = open_library(&path, &handle);
    if (!status) {
        /* The loader answers with the same handle for the same library. */
        for (found = all_opened; found && found->handle != handle;)
            found = found->next;
        if (!found)
            status = add(handle, path, &found);
    }
    pthread_mutex_unlock(&opening);
    *ort = found;
    return status;
}
