/* SPDX-License-Identifier: Apache-2.0 */
#include "lane.h"

#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES 4

/* How many images a run must have; 0: any number. */
static size_t fixed_images(const eip_session *session)
{
    const eip_port *images = session->inputs;
    return images->dimensions && images->shape[0] > 0 ? (size_t)images->shape[0] : 0;
}

size_t eip_most_images(const eip_session *session)
{
    size_t fixed = fixed_images(session);
    return fixed ? fixed : (size_t)session->max_batch;
}

static size_t numbers_of(const eip_output *output)
{
    return output->width ? output->width : 1;
}

static void free_inputs(eip_lane *lane)
{
    for (size_t i = 0; i < lane->part_count; i++) {
        eip_value_free(lane->known->session, lane->parts[i].input);
        lane->parts[i].input = NULL;
    }
    lane->dimensions = 0;
}

static void free_parts(eip_lane *lane)
{
    if (!lane->parts)
        return;
    free_inputs(lane);
    for (size_t i = 0; i < lane->part_count; i++)
        for (size_t k = 0; k < lane->output_count; k++)
            eip_value_free(lane->known->session, lane->parts[i].outputs[k]);
    free(lane->parts);
    free(lane->spill);
    lane->parts = NULL;
    lane->spill = NULL;
    lane->part_count = 0;
}

void eip_lane_close(eip_lane *lane)
{
    free_parts(lane);
    eip_binding_close(lane->binding);
    eip_knowledge_release(lane->known);
    free(lane->staging);
    *lane = (eip_lane){0};
}

/* Wrap rows of an output. */
static ei_status wrap_output(const eip_lane *lane, const eip_output *output, void *data,
                             size_t rows, eip_value **value)
{
    int64_t shape[2] = {(int64_t)rows, (int64_t)output->width};
    return eip_value_wrap(lane->known->session, output->type, data, shape,
                          output->width ? 2 : 1, value);
}

static ei_status make_spill(eip_lane *lane, size_t rows)
{
    size_t numbers = 0;
    for (size_t k = 0; k < lane->output_count; k++)
        numbers += numbers_of(lane->outputs + k);
    lane->spill = eip_allocate_array(rows, numbers * NUMBER_BYTES);
    return lane->spill ? EI_OK : EI_OUT_OF_MEMORY;
}

static ei_status wrap_outputs(eip_lane *lane, eip_part *part)
{
    float *spill = lane->spill;
    for (size_t k = 0; k < lane->output_count; k++) {
        const eip_output *output = lane->outputs + k;
        size_t row_bytes = numbers_of(output) * NUMBER_BYTES;
        void *data = (unsigned char *)output->data + part->first * row_bytes;
        if (part->rows > part->images) {
            data = spill;
            spill += part->rows * numbers_of(output);
        }
        ei_status status = wrap_output(lane, output, data, part->rows, part->outputs + k);
        if (status)
            return status;
    }
    return EI_OK;
}

/* Split images into parts: as equal as can be, so that none is slow for being small; full ones,
 * but the last, where a run has a fixed number. */
static ei_status make_parts(eip_lane *lane, size_t batch)
{
    const eip_session *session = lane->known->session;
    size_t fixed = fixed_images(session), most = eip_most_images(session);
    if (batch && (!most || batch < most))
        most = batch;
    size_t count = lane->count, parts = most ? (count - 1) / most + 1 : 1, first = 0;
    lane->parts = eip_allocate(parts, sizeof *lane->parts);
    if (!lane->parts)
        return EI_OUT_OF_MEMORY;
    lane->part_count = parts;
    for (size_t i = 0; i < parts; i++) {
        eip_part *part = lane->parts + i;
        size_t images = count / parts + (i < count % parts);
        if (fixed)
            images = count - first < most ? count - first : most;
        *part = (eip_part){first, images, fixed ? fixed : images, NULL, {NULL}};
        first += images;
        ei_status status = EI_OK;
        if (part->rows > images && !lane->spill)
            status = make_spill(lane, part->rows);
        if (!status)
            status = wrap_outputs(lane, part);
        if (status)
            return status;
    }
    lane->bound = parts;
    return EI_OK;
}

static ei_status bind_knowledge(eip_lane *lane)
{
    const eip_knowledge *known = lane->known;
    for (size_t i = 0; i < known->tensors.count; i++) {
        ei_status status =
            eip_bind_input(lane->binding, known->tensors.tensors[i].name, known->values[i]);
        if (status)
            return status;
    }
    return EI_OK;
}

ei_status eip_lane_open(eip_lane *lane, eip_knowledge *known, const eip_output *outputs,
                        size_t output_count, size_t count, size_t batch)
{
    free_parts(lane);
    /* A binding replaces inputs by name, and can't take one away. */
    if (lane->known && (lane->known->session != known->session ||
                        lane->known->tensors.count > known->tensors.count)) {
        eip_binding_close(lane->binding);
        lane->binding = NULL;
    }
    bool is_new = lane->known != known;
    eip_knowledge_release(lane->known);
    lane->known = known;
    memcpy(lane->outputs, outputs, output_count * sizeof *outputs);
    lane->output_count = output_count;
    lane->count = count;
    ei_status status = EI_OK;
    if (!lane->binding) {
        is_new = true;
        status = eip_binding_open(known->session, &lane->binding);
    }
    if (!status && is_new)
        status = bind_knowledge(lane);
    if (!status)
        status = make_parts(lane, batch);
    if (status)
        eip_lane_close(lane);
    return status;
}

static bool is_staged(const eip_lane *lane, const eip_part *part)
{
    return !lane->source || part->rows > part->images;
}

static ei_status make_staging(eip_lane *lane, size_t image_bytes)
{
    size_t rows = 0, bytes;
    for (size_t i = 0; i < lane->part_count; i++)
        if (is_staged(lane, lane->parts + i) && lane->parts[i].rows > rows)
            rows = lane->parts[i].rows;
    if (__builtin_mul_overflow(rows, image_bytes, &bytes))
        bytes = SIZE_MAX; /* eip_allocate_array refuses it */
    if (bytes <= lane->staging_bytes)
        return EI_OK;
    free(lane->staging);
    lane->staging_bytes = 0;
    lane->staging = eip_allocate_array(bytes, 1);
    if (!lane->staging)
        return EI_OUT_OF_MEMORY;
    lane->staging_bytes = bytes;
    return EI_OK;
}

/* Let the parts' inputs lie where the images do, or where they are copied to. */
static ei_status wrap_inputs(eip_lane *lane, const eip_intake *intake, const void *source,
                             size_t image_bytes, const int64_t *shape, int dimensions)
{
    if (lane->dimensions == dimensions && lane->source == source &&
        !memcmp(lane->shape, shape, (size_t)dimensions * sizeof *shape))
        return EI_OK;
    free_inputs(lane);
    lane->bound = lane->part_count;
    lane->source = source;
    ei_status status = make_staging(lane, image_bytes);
    int64_t sides[4];
    memcpy(sides, shape, (size_t)dimensions * sizeof *shape);
    for (size_t i = 0; i < lane->part_count && !status; i++) {
        eip_part *part = lane->parts + i;
        const unsigned char *data = is_staged(lane, part)
                                        ? lane->staging
                                        : (const unsigned char *)source +
                                              part->first * image_bytes;
        sides[0] = (int64_t)part->rows;
        status = eip_value_wrap(lane->known->session,
                                intake->format == EI_FLOAT32 ? EIP_F32 : EIP_U8, data, sides,
                                dimensions, &part->input);
    }
    if (status) {
        free_inputs(lane);
        return status;
    }
    memcpy(lane->shape, shape, (size_t)dimensions * sizeof *shape);
    lane->dimensions = dimensions;
    return EI_OK;
}

static void stage(const eip_lane *lane, const eip_part *part, const eip_intake *intake,
                  const ei_image *images, size_t image_bytes)
{
    unsigned char *to = lane->staging;
    for (size_t i = 0; i < part->images; i++, to += image_bytes)
        eip_intake_copy(intake, images + part->first + i, to);
    memset(to, 0, (part->rows - part->images) * image_bytes);
}

/* Bind what differs from the last run. On a device an input's numbers are copied when it is
 * bound, so that each run binds it. */
static ei_status bind(eip_lane *lane, size_t index)
{
    const eip_session *session = lane->known->session;
    eip_part *part = lane->parts + index;
    if (lane->bound == index && session->on_cpu)
        return EI_OK;
    bool bound = lane->bound == index;
    lane->bound = lane->part_count;
    ei_status status = eip_bind_input(lane->binding, session->inputs->name, part->input);
    for (size_t k = 0; k < lane->output_count && !bound && !status; k++)
        status = eip_bind_output(lane->binding, lane->outputs[k].name, part->outputs[k]);
    if (!status)
        lane->bound = index;
    return status;
}

/* Copy the rows of a padded run that are answers to where they belong. */
static void unpad(const eip_lane *lane, const eip_part *part)
{
    const float *from = lane->spill;
    for (size_t k = 0; k < lane->output_count; k++) {
        size_t numbers = numbers_of(lane->outputs + k), row_bytes = numbers * NUMBER_BYTES;
        memcpy((unsigned char *)lane->outputs[k].data + part->first * row_bytes, from,
               part->images * row_bytes);
        from += part->rows * numbers;
    }
}

ei_status eip_lane_run(eip_lane *lane, const eip_intake *intake, const ei_image *images,
                       size_t image_bytes, const int64_t *shape, int dimensions)
{
    bool direct = eip_intake_direct(intake, images, lane->count, image_bytes);
    ei_status status = wrap_inputs(lane, intake, direct ? images->data : NULL, image_bytes,
                                   shape, dimensions);
    for (size_t i = 0; i < lane->part_count && !status; i++) {
        const eip_part *part = lane->parts + i;
        if (is_staged(lane, part))
            stage(lane, part, intake, images, image_bytes);
        status = bind(lane, i);
        if (!status)
            status = eip_run(lane->binding, part->images);
        if (!status && part->rows > part->images)
            unpad(lane, part);
    }
    return status;
}
