/* SPDX-License-Identifier: Apache-2.0 */
#include "head_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "head.h"

static const char *const norms[] = {"none", "l2"};
static const char *const aggregations[] = {"max", "mnn"};
static const char *const distances[] = {"inner_product", "cosine", "euclidean", "manhattan",
                                        "mahalanobis"};
static const char *const weightings[] = {"uniform", "distance"};
static const char *const resizes[] = {"crop", "stretch", "pad"};
static const char *const interpolations[] = {"nearest", "bilinear", "bicubic", "lanczos",
                                             "box",     "hamming",  "linear"};

/* Whether a text is this number; in the locale that wrote it. */
static bool is_number(const char *text, double value)
{
    return strtod(text, NULL) == value;
}

/* Put a number's digits into `digits`, and return its exponent of ten. */
static int shortest(double value, char digits[24])
{
    char text[48];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (is_number(text, value))
            break;
        /* Above a power of two there is more room than below: the next may do. */
        char *last = strrchr(text, 'e') - 1;
        if (*last != '9') {
            ++*last;
            if (is_number(text, value))
                break;
        }
    }
    /* The digits alone: what stands between them is the locale's decimal point. */
    const char *exponent = strrchr(text, 'e');
    size_t count = 0;
    for (const char *at = text; at < exponent; at++)
        if (*at >= '0' && *at <= '9')
            digits[count++] = *at;
    digits[count] = 0;
    return atoi(exponent + 1);
}

void eip_write_number(double value, char text[EIP_NUMBER_BYTES])
{
    const size_t room = EIP_NUMBER_BYTES - 1; /* less the sign */
    char digits[24];
    if (__builtin_signbit(value)) {
        *text++ = '-';
        value = -value;
    }
    int exponent = shortest(value, digits), count = (int)strlen(digits);
    if (exponent < -4 || exponent >= 16) {
        const char *point = count > 1 ? "." : "";
        snprintf(text, room, "%c%s%se%+03d", digits[0], point, digits + 1, exponent);
    } else if (exponent < 0) {
        snprintf(text, room, "0.%.*s%s", -exponent - 1, "000", digits);
    } else if (count <= exponent + 1) {
        snprintf(text, room, "%s%.*s.0", digits, exponent + 1 - count, "000000000000000");
    } else {
        snprintf(text, room, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
    }
}

static ei_status put(eip_metadata *metadata, const char *name, const char *value)
{
    char key[64];
    int bytes = snprintf(key, sizeof key, EIP_PREFIX "%s", name);
    return eip_metadata_add(metadata, key, (size_t)bytes, value, strlen(value));
}

static ei_status put_rule(eip_metadata *metadata, const eip_rule *rule)
{
    char text[160];
    snprintf(text, sizeof text,
             "embedding_norm=%s aggregation=%s distance=%s neighbors=%d weighting=%s",
             norms[rule->embedding_norm], aggregations[rule->aggregation],
             distances[rule->distance], (int)rule->neighbors, weightings[rule->weighting]);
    return put(metadata, "rule", text);
}

static ei_status put_preprocess(eip_metadata *metadata, const eip_preprocess *preprocess)
{
    char text[512], mean[3][EIP_NUMBER_BYTES], std[3][EIP_NUMBER_BYTES];
    for (int i = 0; i < 3; i++) {
        eip_write_number(preprocess->mean[i], mean[i]);
        eip_write_number(preprocess->std[i], std[i]);
    }
    snprintf(text, sizeof text,
             "resize=%s:%dx%d interpolation=%s size=%dx%d mean=%s,%s,%s std=%s,%s,%s",
             resizes[preprocess->resize], (int)preprocess->resize_height,
             (int)preprocess->resize_width, interpolations[preprocess->interpolation],
             (int)preprocess->height, (int)preprocess->width, mean[0], mean[1], mean[2],
             std[0], std[1], std[2]);
    return put(metadata, "preprocess", text);
}

static ei_status put_backbone(eip_metadata *metadata, const eip_head *head)
{
    const eip_contract *contract = &head->contract;
    if (!contract->has_backbone)
        return EI_OK;
    ei_status status = put(metadata, "backbone", contract->backbone);
    if (!status)
        status = put(metadata, "backbone_weights",
                     eip_metadata_get(&head->metadata, "backbone_weights"));
    if (!status)
        status = put(metadata, "backbone_digest", contract->backbone_digest);
    return status ? status : put_preprocess(metadata, &contract->preprocess);
}

static ei_status put_labels(eip_metadata *metadata, char *const *labels, size_t count)
{
    char *text = eip_write_labels(labels, count);
    if (!text)
        return EI_OUT_OF_MEMORY;
    ei_status status = put(metadata, "labels", text);
    free(text);
    return status;
}

/* What is merely informative is handed on as it is. */
static ei_status put_notes(eip_metadata *metadata, const eip_metadata *from)
{
    for (size_t i = 0; i < from->count; i++) {
        const eip_entry *entry = &from->entries[i];
        if (strncmp(entry->key, EIP_NOTE_PREFIX, strlen(EIP_NOTE_PREFIX)) != 0)
            continue;
        ei_status status = eip_metadata_add(metadata, entry->key, strlen(entry->key),
                                            entry->value, strlen(entry->value));
        if (status)
            return status;
    }
    return EI_OK;
}

ei_status eip_head_encode(const eip_head *head, char *const *labels, size_t count,
                          eip_metadata *metadata)
{
    const eip_contract *contract = &head->contract;
    char size[16], temperature[EIP_NUMBER_BYTES];
    snprintf(size, sizeof size, "%d", (int)contract->embedding_size);
    ei_status status = put(metadata, "version", "1");
    if (!status)
        status = put_labels(metadata, labels, count);
    if (!status)
        status = put_rule(metadata, &contract->rule);
    if (!status)
        status = put(metadata, "recipe", contract->recipe);
    if (!status)
        status = put(metadata, "embedding_size", size);
    if (!status)
        status = put_backbone(metadata, head);
    if (!status && contract->calibrated) {
        eip_write_number(contract->temperature, temperature);
        status = put(metadata, "temperature", temperature);
    }
    return status ? status : put_notes(metadata, &head->metadata);
}

static eip_array array_of(const void *data, size_t rows, size_t columns)
{
    eip_array array = {.data = data, .dimensions = columns ? 2 : 1};
    array.shape[0] = rows;
    array.shape[1] = columns;
    return array;
}

ei_status eip_head_write(const eip_head *head, void **written, size_t *bytes)
{
    size_t classes = head->contract.classes, size = (size_t)head->contract.embedding_size;
    const eip_array arrays[EIP_ARRAYS] = {
        [EIP_PROXIES] = array_of(head->proxies, head->proxy_count, head->width),
        [EIP_CLASS_INDEX] = array_of(head->class_index, head->proxy_count, 0),
        [EIP_CENTER] = array_of(head->center, size, 0),
        [EIP_TRANSFORM] = array_of(head->transform, size, head->width),
        [EIP_METRIC] = array_of(head->metric, head->width, head->metric_width),
        [EIP_THRESHOLD] = array_of(head->threshold, classes, 0),
        [EIP_SAMPLES] = array_of(head->samples, head->sample_count, size),
        [EIP_SAMPLE_CLASS] = array_of(head->sample_class, head->sample_count, 0),
        [EIP_HOST_PROXIES] = array_of(head->host_proxies, classes, 0),
    };
    eip_metadata metadata = {0};
    *written = NULL;
    ei_status status =
        eip_head_encode(head, head->contract.labels, head->contract.classes, &metadata);
    if (!status)
        status = eip_safetensors_write(arrays, &metadata, written, bytes);
    eip_metadata_clear(&metadata);
    return status;
}
