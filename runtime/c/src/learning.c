/* SPDX-License-Identifier: Apache-2.0 */
/* Teaching an open model, and where its head lies. One at a time; who predicts does not wait. */
#include <stdlib.h>

#include "files.h"
#include "model.h"
#include "teaching.h"

/* A change of a head. */
typedef struct change {
    const char *label;
    const float *embeddings; /* (count, D); NULL: the class is forgotten */
    size_t count;
    int32_t proxies;
} change;

static ei_status check_teachable(const ei_model *model)
{
    if (model->file->contract.teachable == EIP_TEACHABLE_NO)
        return eip_fail(EI_NOT_TEACHABLE,
                        "%s was exported without --teachable, so that its classes can't change; "
                        "export it again with it",
                        model->where);
    return EI_OK;
}

/* Say why a model can't be taught. Whether it has a head never changes back, so that it needs no
 * lock to ask. */
static ei_status check_head(const ei_model *model, const eip_knowledge *known)
{
    ei_status status = check_teachable(model);
    if (status || known->head)
        return status;
    return eip_fail(EI_HEAD_FILE,
                    "teaching starts from the model's head, and none was loaded (%s%s); copy it "
                    "from where the model was exported, or call ei_load_head",
                    model->head_path ? "there is no file " : "the model lies in memory",
                    model->head_path ? model->head_path : "");
}

static ei_status require_head(const ei_model *model)
{
    ei_status status = eip_check_model(model);
    if (status)
        return status;
    eip_knowledge *known = eip_know(model);
    status = check_head(model, known);
    eip_knowledge_release(known);
    return status;
}

static ei_status make_change(const ei_model *model, const eip_head *head, const change *wanted,
                             eip_head **changed)
{
    if (!wanted->embeddings)
        return eip_forget(head, wanted->label, changed);
    ei_status status = eip_teach(head, wanted->label, wanted->embeddings, wanted->count,
                                 wanted->proxies, changed);
    size_t limit = (size_t)model->file->contract.max_classes;
    if (status || (*changed)->contract.classes <= limit)
        return status;
    eip_head_free(*changed);
    return eip_fail(EI_NO_ROOM,
                    "the model holds %zu classes and knows %zu; forget one, or export it again "
                    "with a higher --max-classes",
                    limit, head->contract.classes);
}

static ei_status apply(ei_model *model, const change *wanted)
{
    pthread_mutex_lock(&model->teaching);
    eip_knowledge *known = eip_know(model), *next;
    eip_head *changed;
    ei_status status = make_change(model, known->head, wanted, &changed);
    if (!status)
        status = eip_knowledge_of_head(model, changed, "the head", &next);
    if (!status)
        eip_learn(model, next);
    eip_knowledge_release(known);
    pthread_mutex_unlock(&model->teaching);
    return status;
}

/* Check what teaching needs, before photos are embedded for nothing. */
static ei_status check_change(const ei_model *model, const char *label, const void *rows,
                              size_t count, int32_t *proxies)
{
    ei_status status = require_head(model);
    if (status)
        return status;
    if (!label)
        return eip_fail(EI_INVALID_ARGUMENT, "the class's name is NULL");
    if (!rows || !count)
        return eip_fail(EI_INVALID_ARGUMENT, "there must be at least one photo to teach");
    size_t row_bytes = (size_t)model->file->contract.embedding_size * sizeof(float);
    if (count > PTRDIFF_MAX / sizeof(ei_image) || count > PTRDIFF_MAX / row_bytes)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "%zu photos are more than memory can hold; give fewer", count);
    int32_t room = model->file->contract.taught_proxies;
    if (*proxies < 0)
        return eip_fail(EI_INVALID_ARGUMENT, "proxies must be 0 or more, got %d", *proxies);
    if (*proxies > room)
        return eip_fail(EI_NO_ROOM,
                        "the model has room for %d taught proxies a class, got proxies=%d; give "
                        "fewer, or export it again with a higher --taught-proxies",
                        room, *proxies);
    *proxies = *proxies ? *proxies : room;
    return eip_check_label(label);
}

ei_status ei_teach_embeddings(ei_model *model, const char *label, const float *embeddings,
                              size_t count, int32_t proxies)
{
    ei_status status = check_change(model, label, embeddings, count, &proxies);
    if (status)
        return status;
    return apply(model, &(change){label, embeddings, count, proxies});
}

/* Copy embeddings, which a model without backbone takes as images. */
static ei_status copy_rows(const ei_model *model, const ei_image *images, size_t count,
                           float *rows)
{
    size_t bytes;
    int64_t shape[4];
    int dimensions;
    ei_status status = eip_intake_check(&model->intake, images, count, &bytes, shape, &dimensions);
    for (size_t i = 0; i < count && !status; i++)
        eip_intake_copy(&model->intake, images + i, rows + i * (bytes / sizeof *rows));
    return status;
}

ei_status ei_teach(ei_model *model, const char *label, const ei_image *images, size_t count,
                   int32_t proxies)
{
    ei_status status = check_change(model, label, images, count, &proxies);
    if (status)
        return status;
    size_t size = (size_t)model->file->contract.embedding_size;
    float *rows = eip_allocate_array(count, size * sizeof *rows);
    if (!rows)
        return EI_OUT_OF_MEMORY;
    if (model->intake.input == EIP_INPUT_EMBEDDING)
        status = copy_rows(model, images, count, rows);
    else /* one by one: what is taught does not depend on which photos lie beside each other */
        status = eip_embed_rows(model, images, count, 1, rows);
    if (!status)
        status = apply(model, &(change){label, rows, count, proxies});
    free(rows);
    return status;
}

ei_status ei_forget(ei_model *model, const char *label)
{
    ei_status status = require_head(model);
    if (status)
        return status;
    if (!label)
        return eip_fail(EI_INVALID_ARGUMENT, "the class's name is NULL");
    return apply(model, &(change){.label = label});
}

/* Say which file is meant. */
static ei_status head_file(const ei_model *model, const char **path)
{
    if (!*path)
        *path = model->head_path;
    if (!*path || !**path)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "no file lies beside a model in memory, and no path was given");
    return EI_OK;
}

ei_status ei_save_head(ei_model *model, const char *path)
{
    ei_status status = require_head(model);
    if (!status)
        status = head_file(model, &path);
    if (status)
        return status;
    void *data = NULL;
    size_t bytes;
    pthread_mutex_lock(&model->teaching);
    eip_knowledge *known = eip_know(model);
    status = eip_head_write(known->head, &data, &bytes);
    if (!status)
        status = eip_write_file(path, data, bytes);
    eip_knowledge_release(known);
    pthread_mutex_unlock(&model->teaching);
    free(data);
    return status;
}

ei_status ei_load_head(ei_model *model, const char *path)
{
    ei_status status = eip_check_model(model);
    if (!status)
        status = check_teachable(model);
    if (!status)
        status = head_file(model, &path);
    if (status)
        return status;
    eip_head *head;
    eip_knowledge *next;
    pthread_mutex_lock(&model->teaching);
    status = eip_head_load(path, &head);
    if (!status)
        status = eip_knowledge_of_head(model, head, path, &next);
    if (!status)
        eip_learn(model, next);
    pthread_mutex_unlock(&model->teaching);
    return status;
}
