/* SPDX-License-Identifier: Apache-2.0 */
#include "providers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sha256.h"

#define CUDA "CUDAExecutionProvider"
#define FOLDER_BYTES 4096
#define MAX_KEYS 16
#define DEVICE_BYTES 12

const char *eip_provider_name(ei_provider provider)
{
    static const char *const names[] = {[EI_CPU] = "CPUExecutionProvider",
                                        [EI_CUDA] = CUDA,
                                        [EI_TENSORRT] = "TensorrtExecutionProvider"};
    return (unsigned)provider < sizeof names / sizeof *names ? names[provider] : NULL;
}

/* What a provider is told. */
typedef struct {
    const char *keys[MAX_KEYS];
    const char *values[MAX_KEYS];
    size_t count;
} settings;

static void set(settings *told, const char *key, const char *value)
{
    told->keys[told->count] = key;
    told->values[told->count++] = value;
}

/* ---------------------------------------------------------------------------- available -- */

/* Find out whether this ONNX Runtime was built with the provider asked for, and with CUDA. */
static ei_status check_available(const eip_session *session, bool *has_cuda)
{
    const eip_ort *ort = session->private_->ort;
    char **names = NULL, all[256] = "";
    int count = 0;
    bool found = false;
    OrtStatus *failed = ort->GetAvailableProviders(&names, &count);
    if (failed)
        return eip_session_failed(session, failed, EIP_STARTING, 0);
    for (int i = 0; i < count; i++) {
        size_t length = strlen(all);
        snprintf(all + length, sizeof all - length, "%s%s", i ? ", " : "", names[i]);
        found |= !strcmp(names[i], session->provider);
        *has_cuda |= !strcmp(names[i], CUDA);
    }
    failed = ort->ReleaseAvailableProviders(names, count);
    if (failed)
        return eip_session_failed(session, failed, EIP_STARTING, 0);
    if (found)
        return EI_OK;
    return eip_fail(EI_PROVIDER,
                    "this ONNX Runtime (%s) has no %s (it has %s); run on the CPU, or name a "
                    "libonnxruntime.so that was built with it",
                    session->library, session->provider, all);
}

/* ---------------------------------------------------------------------- TensorRT's cache -- */

static ei_status file_digest(const char *path, char hex[EIP_SHA256_HEX])
{
    uint8_t part[16384];
    ssize_t bytes;
    eip_sha256_state state;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return eip_fail(EI_FILE_MISSING, "cannot read %s: %s", path, strerror(errno));
    eip_sha256_begin(&state);
    while ((bytes = read(file, part, sizeof part)) > 0 || (bytes < 0 && errno == EINTR))
        if (bytes > 0)
            eip_sha256_add(&state, part, (size_t)bytes);
    int reason = errno;
    close(file);
    if (bytes < 0)
        return eip_fail(EI_FILE_MISSING, "cannot read %s: %s", path, strerror(reason));
    eip_sha256_end(&state, hex);
    return EI_OK;
}

/* Make a folder and those above it. */
static ei_status make_folder(char *folder)
{
    for (char *slash = folder + 1;; slash++) {
        if (*slash && *slash != '/')
            continue;
        char kept = *slash;
        *slash = 0;
        bool failed = mkdir(folder, 0777) && errno != EEXIST;
        int reason = errno;
        *slash = kept;
        /* One above may be there and yet not be writable; only the last counts. */
        if (failed && !kept)
            return eip_fail(EI_WRITE_FAILED,
                            "cannot make the folder %s for TensorRT's engines: %s; name another "
                            "cache_folder, or set XDG_CACHE_HOME",
                            folder, strerror(reason));
        if (!kept)
            return EI_OK;
    }
}

/* Make the folder of a model's engines: apart for each model and each ONNX Runtime, since it finds
 * an engine by the graph's form, not by its weights, and would run another model's. */
static ei_status cache_folder(const eip_session *session, const ei_options *wanted,
                              const char *digest, char folder[FOLDER_BYTES])
{
    const char *base = wanted->cache_folder, *below = "";
    if (!base || !*base) {
        base = getenv("XDG_CACHE_HOME");
        below = "/edge-imprint";
    }
    if (!base || !*base) {
        base = getenv("HOME");
        below = "/.cache/edge-imprint";
    }
    if (!base || !*base)
        return eip_fail(EI_WRITE_FAILED, "there is no folder for TensorRT's engines; name a "
                                         "cache_folder, or set XDG_CACHE_HOME");
    int bytes = snprintf(folder, FOLDER_BYTES, "%s%s/tensorrt-provider/%.32s-%s", base, below,
                         digest, session->library);
    if (bytes < 0 || bytes >= FOLDER_BYTES)
        return eip_fail(EI_WRITE_FAILED, "the name of the cache_folder is too long");
    for (char *blank = strrchr(folder, '/'); *blank; blank++)
        *blank = *blank == ' ' ? '-' : *blank;
    return make_folder(folder);
}

/* ---------------------------------------------------------------------------- appending -- */

static ei_status append_cuda(const eip_session *session, OrtSessionOptions *options,
                             const settings *told)
{
    const eip_ort *ort = session->private_->ort;
    OrtCUDAProviderOptionsV2 *cuda = NULL;
    OrtStatus *failed = ort->CreateCUDAProviderOptions(&cuda);
    if (!failed)
        failed = ort->UpdateCUDAProviderOptions(cuda, told->keys, told->values, told->count);
    if (!failed)
        failed = ort->SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda);
    if (cuda)
        ort->ReleaseCUDAProviderOptions(cuda);
    return failed ? eip_session_failed(session, failed, EIP_STARTING, 0) : EI_OK;
}

static ei_status append_tensorrt(const eip_session *session, OrtSessionOptions *options,
                                 const settings *told)
{
    const eip_ort *ort = session->private_->ort;
    OrtTensorRTProviderOptionsV2 *tensorrt = NULL;
    OrtStatus *failed = ort->CreateTensorRTProviderOptions(&tensorrt);
    if (!failed)
        failed = ort->UpdateTensorRTProviderOptions(tensorrt, told->keys, told->values,
                                                    told->count);
    if (!failed)
        failed = ort->SessionOptionsAppendExecutionProvider_TensorRT_V2(options, tensorrt);
    if (tensorrt)
        ort->ReleaseTensorRTProviderOptions(tensorrt);
    return failed ? eip_session_failed(session, failed, EIP_STARTING, 0) : EI_OK;
}

ei_status eip_providers_append(eip_session *session, OrtSessionOptions *options,
                               const ei_options *wanted, const eip_profile *profile,
                               const char *path, const void *data, size_t bytes)
{
    char device[DEVICE_BYTES], digest[EIP_SHA256_HEX], folder[FOLDER_BYTES];
    settings told = {.count = 0};
    bool has_cuda = false;
    ei_status status = check_available(session, &has_cuda);
    if (status)
        return status;
    snprintf(device, sizeof device, "%d", (int)wanted->device);
    set(&told, "device_id", device);
    settings cuda = told;
    if (wanted->provider == EI_CUDA)
        return append_cuda(session, options, &cuda);
    if (path)
        status = file_digest(path, digest);
    else
        eip_sha256(data, bytes, digest);
    if (!status)
        status = cache_folder(session, wanted, digest, folder);
    if (status)
        return status;
    set(&told, "trt_engine_cache_enable", "1");
    set(&told, "trt_engine_cache_path", folder);
    set(&told, "trt_timing_cache_enable", "1");
    set(&told, "trt_timing_cache_path", folder);
    if (profile && profile->minimum) {
        set(&told, "trt_profile_min_shapes", profile->minimum);
        set(&told, "trt_profile_opt_shapes", profile->optimum);
        set(&told, "trt_profile_max_shapes", profile->maximum);
    }
    status = append_tensorrt(session, options, &told);
    /* Behind it, for nodes that TensorRT can't take; the CPU, for shapes, is there anyway. */
    if (!status && has_cuda)
        status = append_cuda(session, options, &cuda);
    return status;
}
