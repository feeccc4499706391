/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing: the file is checked, then ONNX Runtime gets it, then what its graph declares
 * is held against what its metadata say. */
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "model.h"
#include "onnx_scan.h"
#include "profile.h"

#define EIP_OPEN 0x65696f70u
#define EIP_CLOSED 0x6569636cu
#define MOST_THREADS 1024
#define LARGEST_STRUCT 4096 /* more is no size of a later release, but memory never written */

/* What is opened: a file, or bytes. */
typedef struct source {
    const char *path; /* NULL: the bytes */
    const void *data;
    size_t bytes;
} source;

/* Copy what the caller knows of the options; what only a later release knows must be zero. */
static ei_status read_options(const ei_options *given, ei_options *options)
{
    *options = (ei_options){.size = sizeof *options};
    if (!given)
        return EI_OK;
    if (given->size < sizeof given->size || given->size > LARGEST_STRUCT)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "ei_options.size is %zu; set it to sizeof(ei_options), and the rest to "
                        "zero",
                        given->size);
    const unsigned char *bytes = (const unsigned char *)given;
    for (size_t i = sizeof *options; i < given->size; i++)
        if (bytes[i])
            return eip_fail(EI_INVALID_ARGUMENT,
                            "ei_options holds an option that release %s does not know; update "
                            "the library, or leave it zero",
                            EI_VERSION_TEXT);
    memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
    options->size = sizeof *options;
    if ((unsigned)options->provider > EI_TENSORRT)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "ei_options.provider must be EI_CPU, EI_CUDA or EI_TENSORRT, got %d",
                        (int)options->provider);
    if (options->threads < 0 || options->threads > MOST_THREADS)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_options.threads must be from 0 to %d, got %d",
                        MOST_THREADS, options->threads);
    if (options->device < 0)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_options.device must be 0 or more, got %d",
                        options->device);
    return EI_OK;
}

static void free_model(ei_model *model)
{
    if (!model)
        return;
    eip_knowledge_release(model->known);
    eip_session_release(model->session);
    eip_file_release(model->file);
    free(model->head_path);
    free(model->where);
    pthread_mutex_destroy(&model->swapping);
    pthread_mutex_destroy(&model->teaching);
    free(model);
}

static ei_status make_model(const source *from, ei_model **made)
{
    ei_model *model = eip_allocate(1, sizeof *model);
    *made = model;
    if (!model)
        return EI_OUT_OF_MEMORY;
    /* Mutexes of the default kind hold no memory: this can't fail. */
    pthread_mutex_init(&model->swapping, NULL);
    pthread_mutex_init(&model->teaching, NULL);
    model->magic = EIP_OPEN;
    model->where = eip_copy_text(from->path ? from->path : "the model");
    model->file = eip_allocate(1, sizeof *model->file);
    if (!model->where || !model->file)
        return EI_OUT_OF_MEMORY;
    atomic_init(&model->file->holders, 1);
    if (!from->path)
        return EI_OK;
    size_t length = strlen(from->path);
    model->head_path = eip_allocate(length + sizeof ".head", 1);
    if (!model->head_path)
        return EI_OUT_OF_MEMORY;
    memcpy(model->head_path, from->path, length);
    memcpy(model->head_path + length, ".head", sizeof ".head");
    return EI_OK;
}

static const char *type_name(eip_type type)
{
    static const char *const names[] = {"float32", "uint8", "int32", "another type"};
    return names[type];
}

/* Hold one output against what it must be: its type and dimensions. */
static ei_status check_output(const ei_model *model, const char *name, int dimensions,
                              eip_type type)
{
    const eip_port *port = eip_session_output(model->session, name);
    if (!port)
        return eip_fail(EI_MODEL_FILE, "%s: the graph has no output '%s'", model->where, name);
    if (port->type != type || port->dimensions != dimensions)
        return eip_fail(EI_MODEL_FILE,
                        "%s: the graph's output '%s' is %s in %d dimensions, not %s in %d; "
                        "export the model again",
                        model->where, name, type_name(port->type), port->dimensions,
                        type_name(type), dimensions);
    return EI_OK;
}

static ei_status check_outputs(ei_model *model)
{
    const eip_contract *contract = &model->file->contract;
    bool has_embedding = eip_session_output(model->session, "embedding") != NULL;
    model->has_proxy = eip_session_output(model->session, "proxy") != NULL;
    model->can_embed = has_embedding && model->intake.input != EIP_INPUT_EMBEDDING;
    const struct {
        const char *name;
        int dimensions;
        eip_type type;
        bool wanted;
    } outputs[] = {{"scores", 2, EIP_F32, true},
                   {"label", 1, EIP_I32, true},
                   {"known", 1, EIP_I32, contract->calibrated},
                   {"probability", 2, EIP_F32, contract->calibrated},
                   {"proxy", 1, EIP_I32, model->has_proxy},
                   {"embedding", 2, EIP_F32, model->can_embed}};
    ei_status status = EI_OK;
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs && !status; i++)
        if (outputs[i].wanted)
            status = check_output(model, outputs[i].name, outputs[i].dimensions,
                                  outputs[i].type);
    return status;
}

/* Hold the first input against what the metadata say of it. */
static ei_status check_input(const ei_model *model)
{
    const eip_intake *intake = &model->intake;
    const eip_port *port = model->session->inputs;
    ei_image image = {.width = intake->width, .height = intake->height};
    int64_t want[4];
    int dimensions;
    eip_intake_shape(intake, &image, 1, want, &dimensions);
    bool same = port->type == (intake->format == EI_FLOAT32 ? EIP_F32 : EIP_U8) &&
                port->dimensions == dimensions;
    for (int i = 1; same && i < dimensions; i++)
        same = want[i] ? port->shape[i] == want[i] : port->shape[i] < 0;
    if (!same)
        return eip_fail(EI_MODEL_FILE,
                        "%s: the graph's input '%s' is not of the type and size that its "
                        "metadata say; export the model again",
                        model->where, port->name);
    return EI_OK;
}

static ei_status check_graph(ei_model *model)
{
    const eip_contract *contract = &model->file->contract;
    ei_status status = check_outputs(model);
    if (status)
        return status;
    size_t inputs = model->session->input_count;
    if (!inputs || (inputs > 1 && contract->teachable != EIP_TEACHABLE_INPUT))
        return eip_fail(EI_MODEL_FILE, "%s: the graph must have one input", model->where);
    if (contract->teachable == EIP_TEACHABLE_NO) {
        int64_t classes = eip_session_output(model->session, "scores")->shape[1];
        if (classes != (int64_t)contract->classes)
            return eip_fail(EI_LABEL_COUNT,
                            "%s: there are %zu labels, but the matrix has %lld classes; export "
                            "the model again",
                            model->where, contract->classes, (long long)classes);
    }
    return check_input(model);
}

/* Learn what the model is to know at first: a head's classes, or its own. */
static ei_status learn_first(ei_model *model, const char *named)
{
    eip_teachable teachable = model->file->contract.teachable;
    const char *path = named;
    if (!named && teachable && model->head_path && eip_exists(model->head_path))
        path = model->head_path;
    if (path && *path) {
        eip_head *head;
        if (!teachable)
            return eip_fail(EI_NOT_TEACHABLE,
                            "%s was exported without --teachable, and takes no head; open it "
                            "without, or export it again",
                            model->where);
        ei_status status = eip_head_load(path, &head);
        return status ? status : eip_knowledge_of_head(model, head, path, &model->known);
    }
    if (teachable == EIP_TEACHABLE_INPUT)
        return eip_fail(EI_HEAD_FILE,
                        "%s takes its classes from a head, and there is no file %s; copy it from "
                        "where the model was exported, or name one in ei_options.head",
                        model->where, model->head_path ? model->head_path : "beside it");
    return eip_knowledge_own(model, &model->known);
}

static ei_status open_session(ei_model *model, const source *from, const ei_options *options)
{
    eip_profile profile;
    bool has_profile = false;
    if (options->provider == EI_TENSORRT) {
        ei_status status = eip_profile_make(&model->file->metadata, &model->file->contract,
                                            model->where, &profile, &has_profile);
        if (status)
            return status;
    }
    ei_status status =
        eip_session_open(from->path, from->data, from->bytes, model->where, options,
                         has_profile ? &profile : NULL, &model->session);
    if (has_profile)
        eip_profile_clear(&profile);
    return status;
}

static ei_status open_model(const source *from, const ei_options *given, ei_model **opened)
{
    ei_options options;
    ei_model *model = NULL;
    ei_status status = read_options(given, &options);
    if (!status)
        status = make_model(from, &model);
    if (status)
        goto done;
    eip_file *file = model->file;
    eip_stamp before = {0}, after = {0};
    if (from->path)
        before = eip_stamp_of(from->path);
    status = from->path
                 ? eip_onnx_scan_file(from->path, &file->metadata)
                 : eip_onnx_scan(from->data, from->bytes, model->where, &file->metadata);
    if (!status)
        status = eip_contract_read(&file->metadata, true, model->where, &file->contract);
    if (status)
        goto done;
    model->intake = eip_intake_of(&file->contract);
    status = open_session(model, from, &options);
    if (from->path)
        after = eip_stamp_of(from->path);
    /* It is read twice: the labels of one file must not go with the graph of another. */
    if (memcmp(&before, &after, sizeof before) != 0)
        status = eip_fail(EI_FILE_MISSING,
                          "cannot read %s: another program replaced it meanwhile; open it again",
                          model->where);
    if (!status)
        status = check_graph(model);
    if (!status)
        status = learn_first(model, options.head);
done:
    if (status)
        free_model(model);
    else
        *opened = model;
    return status;
}

ei_status ei_open(const char *path, const ei_options *options, ei_model **model)
{
    if (!model)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_open was given NULL for the model");
    *model = NULL;
    if (!path || !*path)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_open was given no path");
    return open_model(&(source){.path = path}, options, model);
}

ei_status ei_open_buffer(const void *data, size_t bytes, const ei_options *options,
                         ei_model **model)
{
    if (!model)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_open_buffer was given NULL for the model");
    *model = NULL;
    if (!data || !bytes)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_open_buffer was given no bytes");
    return open_model(&(source){.data = data, .bytes = bytes}, options, model);
}

ei_status eip_check_model(const ei_model *model)
{
    if (!model)
        return eip_fail(EI_INVALID_ARGUMENT, "the model is NULL; open it with ei_open");
    if (model->magic != EIP_OPEN)
        return eip_fail(EI_CLOSED_MODEL, "the model was closed; open it again");
    return EI_OK;
}

#ifdef EI_DEBUG

/* The shells of closed models, kept so that a later use is found out rather than undefined. */
static pthread_mutex_t closing = PTHREAD_MUTEX_INITIALIZER;
static ei_model *closed_models;

void ei_close(ei_model *model)
{
    if (!model)
        return;
    pthread_mutex_lock(&closing);
    if (model->magic != EIP_OPEN) {
        pthread_mutex_unlock(&closing);
        return;
    }
    model->magic = EIP_CLOSED;
    model->next_closed = closed_models;
    closed_models = model;
    pthread_mutex_unlock(&closing);
    eip_knowledge_release(model->known);
    eip_session_release(model->session);
    eip_file_release(model->file);
    free(model->head_path);
    free(model->where);
}

#else

void ei_close(ei_model *model)
{
    free_model(model);
}

#endif
