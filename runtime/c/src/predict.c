/* SPDX-License-Identifier: Apache-2.0 */
/* Predicting and embedding. */
#include <stdlib.h>

#include "lane.h"
#include "model.h"
#include "numbers.h"

struct ei_predictions {
    eip_lane lane; /* holds what the labels lie in */
    size_t count;  /* images there are answers for; 0 after a failure */
    size_t classes;
    void *numbers; /* of all the outputs */
    size_t numbers_bytes;
    const float *scores, *probability;             /* (count, classes); NULL: there are none */
    const int32_t *label, *known, *proxy;          /* (count), likewise */
    ei_prediction *answers;
    size_t answers_count; /* that there is room for */
};

/* Answers -------------------------------------------------------------------------------- */

/* Say which outputs a model has, and where in `numbers` they go; return how many numbers. */
static size_t lay_out(const ei_model *model, size_t classes, size_t count, float *numbers,
                      eip_output *outputs, size_t *output_count)
{
    bool calibrated = model->file->contract.calibrated;
    const struct {
        const char *name;
        eip_type type;
        size_t width;
        bool wanted;
    } all[EIP_MAX_OUTPUTS] = {{"scores", EIP_F32, classes, true},
                              {"label", EIP_I32, 0, true},
                              {"known", EIP_I32, 0, calibrated},
                              {"probability", EIP_F32, classes, calibrated},
                              {"proxy", EIP_I32, 0, model->has_proxy}};
    size_t used = 0, there = 0;
    for (size_t i = 0; i < EIP_MAX_OUTPUTS; i++) {
        if (!all[i].wanted)
            continue;
        void *data = numbers ? numbers + used : NULL;
        outputs[there++] = (eip_output){all[i].name, all[i].type, all[i].width, data};
        used += count * (all[i].width ? all[i].width : 1);
    }
    *output_count = there;
    return used;
}

static ei_status make_room(ei_predictions *found, size_t bytes, size_t count)
{
    if (bytes > found->numbers_bytes) {
        free(found->numbers);
        found->numbers_bytes = 0;
        found->numbers = eip_allocate_array(bytes, 1);
        if (!found->numbers)
            return EI_OUT_OF_MEMORY;
        found->numbers_bytes = bytes;
    }
    if (count > found->answers_count) {
        free(found->answers);
        found->answers_count = 0;
        found->answers = eip_allocate(count, sizeof *found->answers);
        if (!found->answers)
            return EI_OUT_OF_MEMORY;
        found->answers_count = count;
    }
    return EI_OK;
}

/* Make room for the answers of `count` images, and let the runs write into it; takes `known`
 * over. */
static ei_status arrange(ei_predictions *found, const ei_model *model, eip_knowledge *known,
                         size_t count)
{
    eip_output outputs[EIP_MAX_OUTPUTS];
    size_t output_count, classes = known->classes, all;
    size_t numbers = lay_out(model, classes, 1, NULL, outputs, &output_count);
    ei_status status;
    if (__builtin_mul_overflow(numbers * sizeof(float), count, &all))
        all = SIZE_MAX; /* eip_allocate_array refuses it */
    /* The lane's outputs lie in the numbers: it goes first. */
    if (all > found->numbers_bytes)
        eip_lane_close(&found->lane);
    status = make_room(found, all, count);
    if (status) {
        eip_lane_close(&found->lane);
        eip_knowledge_release(known);
        return status;
    }
    lay_out(model, classes, count, found->numbers, outputs, &output_count);
    found->classes = classes;
    found->scores = outputs[0].data;
    found->label = outputs[1].data;
    bool calibrated = model->file->contract.calibrated;
    found->known = calibrated ? outputs[2].data : NULL;
    found->probability = calibrated ? outputs[3].data : NULL;
    found->proxy = model->has_proxy ? outputs[output_count - 1].data : NULL;
    return eip_lane_open(&found->lane, known, outputs, output_count, count, 0);
}

static ei_status read_answers(ei_predictions *found, size_t count)
{
    size_t classes = found->classes;
    char *const *labels = found->lane.known->labels;
    if (!eip_finite(found->scores, count * classes))
        return eip_fail(EI_NON_FINITE, "the model answered NaN or infinity; check its input, or "
                                       "export it again");
    for (size_t i = 0; i < count; i++) {
        int32_t index = found->label[i];
        if (index < 0 || (size_t)index >= classes)
            return eip_fail(EI_RUN_FAILED,
                            "the model answered class %d, and there are %zu; export it again",
                            index, classes);
        size_t at = i * classes + (size_t)index;
        int32_t known = found->known ? found->known[i] != 0 : -1;
        found->answers[i] = (ei_prediction){
            .label = known ? labels[index] : EIP_UNKNOWN,
            .nearest = labels[index],
            .index = index,
            .score = found->scores[at],
            .known = known,
            .probability = found->probability ? found->probability[at] : -1.0f,
            .proxy = found->proxy ? found->proxy[i] : -1,
        };
    }
    found->count = count;
    return EI_OK;
}

static ei_status predict(ei_model *model, const ei_image *images, size_t count,
                         ei_predictions *found)
{
    size_t image_bytes;
    int64_t shape[4];
    int dimensions;
    ei_status status =
        eip_intake_check(&model->intake, images, count, &image_bytes, shape, &dimensions);
    if (status)
        return status;
    eip_knowledge *known = eip_know(model);
    if (known == found->lane.known && count == found->lane.count)
        eip_knowledge_release(known);
    else
        status = arrange(found, model, known, count);
    if (!status)
        status = eip_lane_run(&found->lane, &model->intake, images, image_bytes, shape,
                              dimensions);
    return status ? status : read_answers(found, count);
}

ei_status ei_predict(ei_model *model, const ei_image *images, size_t count,
                     ei_predictions **found)
{
    ei_predictions *made = found ? *found : NULL;
    if (made)
        made->count = 0;
    ei_status status = eip_check_model(model);
    if (status)
        return status;
    if (!found)
        return eip_fail(EI_INVALID_ARGUMENT, "ei_predict was given NULL for the predictions");
    if (!made) {
        made = eip_allocate(1, sizeof *made);
        if (!made)
            return EI_OUT_OF_MEMORY;
    }
    status = predict(model, images, count, made);
    if (status && made != *found)
        ei_free_predictions(made);
    else
        *found = made;
    return status;
}

void ei_free_predictions(ei_predictions *found)
{
    if (!found)
        return;
    eip_lane_close(&found->lane);
    free(found->numbers);
    free(found->answers);
    free(found);
}

size_t ei_prediction_count(const ei_predictions *found)
{
    return found ? found->count : 0;
}

const ei_prediction *ei_prediction_at(const ei_predictions *found, size_t image)
{
    return found && image < found->count ? found->answers + image : NULL;
}

const float *ei_scores_at(const ei_predictions *found, size_t image)
{
    return found && image < found->count ? found->scores + image * found->classes : NULL;
}

const float *ei_probabilities_at(const ei_predictions *found, size_t image)
{
    return found && image < found->count && found->probability
               ? found->probability + image * found->classes
               : NULL;
}

size_t ei_predicted_classes(const ei_predictions *found)
{
    return found && found->count ? found->classes : 0;
}

const char *ei_predicted_label(const ei_predictions *found, size_t index)
{
    return index < ei_predicted_classes(found) ? found->lane.known->labels[index] : NULL;
}

/* Ranking -------------------------------------------------------------------------------- */

static bool is_better(const ei_ranked *one, const ei_ranked *other)
{
    return one->score > other->score ||
           (one->score == other->score && one->index < other->index);
}

/* Put `one` into a heap whose root is its worst, where the hole at `hole` is. */
static void sink(ei_ranked *heap, size_t count, size_t hole, ei_ranked one)
{
    for (;;) {
        size_t child = 2 * hole + 1;
        if (child >= count)
            break;
        if (child + 1 < count && is_better(heap + child, heap + child + 1))
            child++;
        if (!is_better(&one, heap + child))
            break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = one;
}

ei_status ei_top(const ei_predictions *found, size_t image, ei_ranked *best, size_t k,
                 size_t *ranked)
{
    if (!found || image >= found->count)
        return eip_fail(EI_INVALID_ARGUMENT, "there is no answer for image %zu, but for %zu",
                        image, ei_prediction_count(found));
    if (!best || !k || !ranked)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "ei_top needs room for one class at least, and a place for how many");
    const float *scores = ei_scores_at(found, image);
    const float *probability = ei_probabilities_at(found, image);
    size_t count = k < found->classes ? k : found->classes;
    for (size_t i = 0; i < found->classes; i++) {
        ei_ranked one = {found->lane.known->labels[i], (int32_t)i, scores[i],
                         probability ? probability[i] : -1.0f};
        if (i < count) {
            best[i] = one;
            for (size_t hole = i + 1 == count ? count / 2 : 0; hole-- > 0;)
                sink(best, count, hole, best[hole]);
        } else if (is_better(&one, best)) {
            sink(best, count, 0, one);
        }
    }
    for (size_t left = count; left-- > 1;) {
        ei_ranked worst = best[0];
        sink(best, left, 0, best[left]);
        best[left] = worst;
    }
    *ranked = count;
    return EI_OK;
}

/* Embedding ------------------------------------------------------------------------------ */

ei_status eip_embed_rows(ei_model *model, const ei_image *images, size_t count, size_t batch,
                         float *rows)
{
    size_t image_bytes;
    int64_t shape[4];
    int dimensions;
    if (model->intake.input == EIP_INPUT_EMBEDDING)
        return eip_fail(EI_OUTPUT_MISSING,
                        "the model has no backbone: it takes embeddings, and makes none");
    if (!model->can_embed)
        return eip_fail(EI_OUTPUT_MISSING,
                        "the model has no output 'embedding'; export it with: edge-imprint "
                        "export HEAD --out MODEL.onnx --embedding");
    ei_status status =
        eip_intake_check(&model->intake, images, count, &image_bytes, shape, &dimensions);
    if (status)
        return status;
    eip_lane lane = {0};
    eip_output output = {"embedding", EIP_F32, (size_t)model->file->contract.embedding_size,
                         rows};
    status = eip_lane_open(&lane, eip_know(model), &output, 1, count, batch);
    if (!status)
        status = eip_lane_run(&lane, &model->intake, images, image_bytes, shape, dimensions);
    eip_lane_close(&lane);
    return status;
}

ei_status ei_embed(ei_model *model, const ei_image *images, size_t count, float *embeddings,
                   size_t floats)
{
    ei_status status = eip_check_model(model);
    if (status)
        return status;
    size_t needed;
    size_t size = (size_t)model->file->contract.embedding_size;
    if (__builtin_mul_overflow(count, size, &needed))
        needed = SIZE_MAX;
    if (!embeddings || floats < needed)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "%zu embeddings are %zu floats, and there is room for %zu", count, needed,
                        embeddings ? floats : 0);
    return eip_embed_rows(model, images, count, 0, embeddings);
}
