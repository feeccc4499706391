/* SPDX-License-Identifier: Apache-2.0 */
/* What a model is, and what it takes. */
#include "model.h"

#include <string.h>

static void fill(const ei_model *model, ei_description *found)
{
    const eip_contract *contract = &model->file->contract;
    const eip_session *session = model->session;
    found->format = model->intake.format;
    found->width = model->intake.width;
    found->height = model->intake.height;
    found->embedding_size = contract->embedding_size;
    found->max_batch = session->max_batch; /* also where their number is fixed */
    found->can_embed = model->can_embed;
    found->calibrated = contract->calibrated;
    found->teachable = contract->teachable != EIP_TEACHABLE_NO;
    found->max_classes = found->teachable ? contract->max_classes : 0;
    found->taught_proxies = found->teachable ? contract->taught_proxies : 0;
    found->recipe = contract->recipe;
    found->backbone = contract->has_backbone ? contract->backbone : "";
    found->precision = contract->precision;
    found->target = contract->target;
    found->provider = session->provider;
    found->library = session->library;
}

ei_status ei_describe(const ei_model *model, ei_description *description)
{
    ei_status status = eip_check_model(model);
    if (status)
        return status;
    if (!description || description->size < sizeof description->size)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "ei_describe needs a description whose size is set to "
                        "sizeof(ei_description)");
    ei_description found = {.size = description->size};
    fill(model, &found);
    size_t known_bytes = description->size < sizeof found ? description->size : sizeof found;
    memcpy(description, &found, known_bytes);
    return EI_OK;
}

size_t ei_class_count(const ei_model *model)
{
    if (eip_check_model(model))
        return 0;
    eip_knowledge *known = eip_know(model);
    size_t classes = known->classes;
    eip_knowledge_release(known);
    return classes;
}

/* Copy text and its NUL, cut between two characters where it is too long. */
static void copy_cut(const char *from, char *text, size_t bytes)
{
    size_t length = strlen(from);
    if (length >= bytes) {
        length = bytes - 1;
        while (length && ((unsigned char)from[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(text, from, length);
    text[length] = 0;
}

ei_status ei_class_name(const ei_model *model, size_t index, char *text, size_t bytes)
{
    ei_status status = eip_check_model(model);
    if (status)
        return status;
    if (!text || !bytes)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_class_name needs room for the name");
    eip_knowledge *known = eip_know(model);
    if (index < known->classes)
        copy_cut(known->labels[index], text, bytes);
    else
        status = eip_fail(EI_NO_SUCH_CLASS, "there is no class %zu; the model knows %zu", index,
                          known->classes);
    eip_knowledge_release(known);
    return status;
}

static ei_status check_photo(const ei_image *photo)
{
    if (!photo || !photo->data)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_prepare needs a photo, and its pixels");
    if (photo->format != EI_RGB8 && photo->format != EI_BGR8)
        return eip_fail(EI_INPUT_FORMAT, "a photo must be EI_RGB8 or EI_BGR8, got format %d",
                        (int)photo->format);
    if (photo->width < 1 || photo->height < 1)
        return eip_fail(EI_INPUT_SIZE,
                        "the photo has %d x %d pixels; both must be 1 or more", photo->width,
                        photo->height);
    size_t row_bytes = (size_t)photo->width * 3, all;
    size_t stride_bytes = photo->stride_bytes ? photo->stride_bytes : row_bytes;
    if (row_bytes / 3 != (size_t)photo->width || stride_bytes < row_bytes ||
        __builtin_mul_overflow(stride_bytes, (size_t)photo->height, &all) || all > PTRDIFF_MAX)
        return eip_fail(EI_INPUT_STRIDE,
                        "the photo has a stride of %zu bytes, and its rows %zu bytes; give the "
                        "bytes from a row to the next, or 0",
                        photo->stride_bytes, row_bytes);
    return EI_OK;
}

ei_status ei_prepare(const ei_model *model, const ei_image *photo, uint8_t *pixels,
                     size_t bytes)
{
    ei_status status = eip_check_model(model);
    if (!status)
        status = check_photo(photo);
    if (status)
        return status;
    const eip_intake *intake = &model->intake;
    if (intake->input == EIP_INPUT_FRAME || intake->input == EIP_INPUT_EMBEDDING)
        return eip_fail(EI_INPUT_FORMAT,
                        "the model takes %s, not photos; give it these as they are",
                        intake->input == EIP_INPUT_FRAME ? "a camera's frames" : "embeddings");
    size_t needed = (size_t)intake->width * (size_t)intake->height * 3;
    if (!pixels || bytes < needed)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "the pixels of a prepared photo are %zu bytes, and there is room for %zu",
                        needed, pixels ? bytes : 0);
    return eip_prepare(&model->file->contract.preprocess, photo, pixels);
}
