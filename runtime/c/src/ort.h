/* SPDX-License-Identifier: Apache-2.0 */
/* ONNX Runtime, opened at run time: the functions of its table that are used here, each with its
 * place in that table. The table only ever grows, so that these places hold for each release. */
#ifndef EIP_ORT_H
#define EIP_ORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

/* Types of ONNX Runtime, which nobody looks into. */
typedef struct OrtApi OrtApi;
typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtValue OrtValue;
typedef struct OrtIoBinding OrtIoBinding;
typedef struct OrtCUDAProviderOptionsV2 OrtCUDAProviderOptionsV2;
typedef struct OrtTensorRTProviderOptionsV2 OrtTensorRTProviderOptionsV2;

/* Its enumerations are whole numbers: unsigned where they have no negative value. */
typedef void (*eip_ort_logger)(void *, unsigned, const char *, const char *, const char *,
                               const char *);

/* The release of the table that has all of these (1.11), and the release of the library that is
 * asked for. */
#define EIP_ORT_TABLE 11
#define EIP_ORT_OLDEST 16

/* X(place, name, result, arguments) */
#define EIP_ORT_FUNCTIONS(X)                                                                    \
    X(2, GetErrorMessage, const char *, (const OrtStatus *))                                    \
    X(4, CreateEnvWithCustomLogger, OrtStatus *,                                                \
      (eip_ort_logger, void *, unsigned, const char *, OrtEnv **))                              \
    X(7, CreateSession, OrtStatus *,                                                            \
      (const OrtEnv *, const char *, const OrtSessionOptions *, OrtSession **))                 \
    X(8, CreateSessionFromArray, OrtStatus *,                                                   \
      (const OrtEnv *, const void *, size_t, const OrtSessionOptions *, OrtSession **))         \
    X(10, CreateSessionOptions, OrtStatus *, (OrtSessionOptions **))                            \
    X(14, EnableProfiling, OrtStatus *, (OrtSessionOptions *, const char *))                    \
    X(22, SetSessionLogSeverityLevel, OrtStatus *, (OrtSessionOptions *, int))                  \
    X(23, SetSessionGraphOptimizationLevel, OrtStatus *, (OrtSessionOptions *, unsigned))       \
    X(24, SetIntraOpNumThreads, OrtStatus *, (OrtSessionOptions *, int))                        \
    X(30, SessionGetInputCount, OrtStatus *, (const OrtSession *, size_t *))                    \
    X(31, SessionGetOutputCount, OrtStatus *, (const OrtSession *, size_t *))                   \
    X(32, SessionGetOverridableInitializerCount, OrtStatus *, (const OrtSession *, size_t *))   \
    X(33, SessionGetInputTypeInfo, OrtStatus *, (const OrtSession *, size_t, OrtTypeInfo **))   \
    X(34, SessionGetOutputTypeInfo, OrtStatus *, (const OrtSession *, size_t, OrtTypeInfo **))  \
    X(35, SessionGetOverridableInitializerTypeInfo, OrtStatus *,                                \
      (const OrtSession *, size_t, OrtTypeInfo **))                                             \
    X(36, SessionGetInputName, OrtStatus *,                                                     \
      (const OrtSession *, size_t, OrtAllocator *, char **))                                    \
    X(37, SessionGetOutputName, OrtStatus *,                                                    \
      (const OrtSession *, size_t, OrtAllocator *, char **))                                    \
    X(38, SessionGetOverridableInitializerName, OrtStatus *,                                    \
      (const OrtSession *, size_t, OrtAllocator *, char **))                                    \
    X(39, CreateRunOptions, OrtStatus *, (OrtRunOptions **))                                    \
    X(49, CreateTensorWithDataAsOrtValue, OrtStatus *,                                          \
      (const OrtMemoryInfo *, void *, size_t, const int64_t *, size_t, unsigned, OrtValue **))  \
    X(55, CastTypeInfoToTensorInfo, OrtStatus *,                                                \
      (const OrtTypeInfo *, const OrtTensorTypeAndShapeInfo **))                                \
    X(60, GetTensorElementType, OrtStatus *, (const OrtTensorTypeAndShapeInfo *, unsigned *))   \
    X(61, GetDimensionsCount, OrtStatus *, (const OrtTensorTypeAndShapeInfo *, size_t *))       \
    X(62, GetDimensions, OrtStatus *, (const OrtTensorTypeAndShapeInfo *, int64_t *, size_t))   \
    X(69, CreateCpuMemoryInfo, OrtStatus *, (int, int, OrtMemoryInfo **))                       \
    X(76, AllocatorFree, OrtStatus *, (OrtAllocator *, void *))                                 \
    X(78, GetAllocatorWithDefaultOptions, OrtStatus *, (OrtAllocator **))                       \
    X(92, ReleaseEnv, void, (OrtEnv *))                                                         \
    X(93, ReleaseStatus, void, (OrtStatus *))                                                   \
    X(94, ReleaseMemoryInfo, void, (OrtMemoryInfo *))                                           \
    X(95, ReleaseSession, void, (OrtSession *))                                                 \
    X(96, ReleaseValue, void, (OrtValue *))                                                     \
    X(98, ReleaseTypeInfo, void, (OrtTypeInfo *))                                               \
    X(100, ReleaseSessionOptions, void, (OrtSessionOptions *))                                  \
    X(110, SessionEndProfiling, OrtStatus *, (OrtSession *, OrtAllocator *, char **))           \
    X(125, GetAvailableProviders, OrtStatus *, (char ***, int *))                               \
    X(126, ReleaseAvailableProviders, OrtStatus *, (char **, int))                              \
    X(130, AddSessionConfigEntry, OrtStatus *,                                                  \
      (OrtSessionOptions *, const char *, const char *))                                        \
    X(133, RunWithBinding, OrtStatus *,                                                         \
      (OrtSession *, const OrtRunOptions *, const OrtIoBinding *))                              \
    X(134, CreateIoBinding, OrtStatus *, (OrtSession *, OrtIoBinding **))                       \
    X(135, ReleaseIoBinding, void, (OrtIoBinding *))                                            \
    X(136, BindInput, OrtStatus *, (OrtIoBinding *, const char *, const OrtValue *))            \
    X(137, BindOutput, OrtStatus *, (OrtIoBinding *, const char *, const OrtValue *))           \
    X(138, BindOutputToDevice, OrtStatus *,                                                     \
      (OrtIoBinding *, const char *, const OrtMemoryInfo *))                                    \
    X(170, SessionOptionsAppendExecutionProvider_TensorRT_V2, OrtStatus *,                      \
      (OrtSessionOptions *, const OrtTensorRTProviderOptionsV2 *))                              \
    X(171, CreateTensorRTProviderOptions, OrtStatus *, (OrtTensorRTProviderOptionsV2 **))       \
    X(172, UpdateTensorRTProviderOptions, OrtStatus *,                                          \
      (OrtTensorRTProviderOptionsV2 *, const char *const *, const char *const *, size_t))       \
    X(174, ReleaseTensorRTProviderOptions, void, (OrtTensorRTProviderOptionsV2 *))              \
    X(203, SynchronizeBoundOutputs, OrtStatus *, (OrtIoBinding *))                              \
    X(204, SessionOptionsAppendExecutionProvider_CUDA_V2, OrtStatus *,                          \
      (OrtSessionOptions *, const OrtCUDAProviderOptionsV2 *))                                  \
    X(205, CreateCUDAProviderOptions, OrtStatus *, (OrtCUDAProviderOptionsV2 **))               \
    X(206, UpdateCUDAProviderOptions, OrtStatus *,                                              \
      (OrtCUDAProviderOptionsV2 *, const char *const *, const char *const *, size_t))           \
    X(208, ReleaseCUDAProviderOptions, void, (OrtCUDAProviderOptionsV2 *))

/* Where OrtGetApiBase() points: how a table is asked for. */
typedef struct eip_ort_base {
    const OrtApi *(*GetApi)(uint32_t table);
    const char *(*GetVersionString)(void);
} eip_ort_base;

/* One ONNX Runtime in this process. Never given back: others may use it too, and its own threads
 * and destructors outlive any user. */
typedef struct eip_ort {
#define EIP_ORT_MEMBER(place, name, result, arguments) result(*name) arguments;
    EIP_ORT_FUNCTIONS(EIP_ORT_MEMBER)
#undef EIP_ORT_MEMBER
    OrtEnv *env;
    OrtAllocator *allocator;
    OrtMemoryInfo *cpu;
    OrtRunOptions *run; /* the usual ones */
    char *library; /* "onnxruntime 1.23.2" */
    void *handle;
    struct eip_ort *next;
} eip_ort;

/* Open ONNX Runtime, or find it open.
 *
 *   path  its shared library; NULL: $EDGE_IMPRINT_ONNXRUNTIME, else what the loader finds
 *
 * Fails with EI_LIBRARY_MISSING, EI_LIBRARY_TOO_OLD, EI_OUT_OF_MEMORY. */
ei_status eip_ort_open(const char *path, const eip_ort **ort);

/* What went wrong in ONNX Runtime, in its own words. */
typedef struct eip_words {
    char text[304]; /* without places in its source */
    bool no_memory, device_failed, provider; /* what they speak of */
} eip_words;

/* Read a status, and give it back. */
void eip_ort_take_words(const eip_ort *ort, OrtStatus *status, eip_words *words);

/* ONNX Runtime's log, of errors alone: nothing is printed, but an opening that fails quotes what
 * this thread logged last; "": nothing since it was forgotten. */
void eip_ort_keep_logged(void *unused, unsigned severity, const char *category, const char *id,
                         const char *place, const char *message);
const char *eip_ort_logged(void);
void eip_ort_forget_logged(void);

#endif
