/* SPDX-License-Identifier: Apache-2.0 */
#include "head.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "numbers.h"

/* What each array is; in the order of eip_array_name. */
static const struct {
    const char *name;
    int dimensions;
    bool integer;
} kinds[EIP_ARRAYS] = {
    {"proxies", 2, false},   {"class_index", 1, true}, {"center", 1, false},
    {"transform", 2, false}, {"metric", 2, false},     {"threshold", 1, false},
    {"samples", 2, false},   {"sample_class", 1, true}, {"host_proxies", 1, true},
};

/* Take an array where it lies in the file, or aligned where it does not lie well. */
static ei_status take(eip_head *head, const eip_array *arrays, eip_array_name which,
                      const void **taken)
{
    const eip_array *array = &arrays[which];
    *taken = NULL;
    if (!array->data)
        return EI_OK;
    bool two = kinds[which].dimensions == 2;
    if (array->dimensions != kinds[which].dimensions || !array->shape[0] ||
        (two && !array->shape[1]))
        return eip_fail(EI_HEAD_VALUE, "%s must be numbers in %d dimension%s, and not empty",
                        kinds[which].name, kinds[which].dimensions, two ? "s" : "");
    size_t count = (size_t)array->shape[0] * (two ? (size_t)array->shape[1] : 1);
    size_t bytes = kinds[which].integer ? sizeof(int64_t) : sizeof(float);
    const void *data = array->data;
    if ((uintptr_t)data % bytes) {
        head->owned[which] = eip_allocate_array(count, bytes);
        if (!head->owned[which])
            return EI_OUT_OF_MEMORY;
        data = memcpy(head->owned[which], data, count * bytes);
    }
    if (!kinds[which].integer && !eip_finite(data, count))
        return eip_fail(EI_HEAD_VALUE, "%s hold NaN or infinity", kinds[which].name);
    *taken = data;
    return EI_OK;
}

/* Count each class's proxies. Every class must have one, and there is no other. */
static ei_status count_classes(const eip_head *head, const int64_t *index, size_t *counts,
                               bool *ascending)
{
    size_t classes = head->contract.classes;
    int64_t low = index[0], high = index[0];
    *ascending = true;
    for (size_t i = 0; i < head->proxy_count; i++) {
        low = index[i] < low ? index[i] : low;
        *ascending = *ascending && index[i] >= high;
        high = index[i] > high ? index[i] : high;
    }
    if (low < 0 || (uint64_t)high >= classes)
        return eip_fail(EI_LABEL_COUNT,
                        "class_index goes from %" PRId64 " to %" PRId64
                        ", but there are %zu labels",
                        low, high, classes);
    for (size_t i = 0; i < head->proxy_count; i++)
        counts[index[i]]++;
    for (size_t c = 0; c < classes; c++)
        if (!counts[c])
            return eip_fail(EI_LABEL_COUNT,
                            "there are %zu labels, but class %zu has no proxy", classes, c);
    return EI_OK;
}

/* Sort the proxies by class; those of one class stay in their order. `counts` becomes used up. */
static ei_status sort_proxies(eip_head *head, const int64_t *index, size_t *counts)
{
    float *proxies = eip_allocate_array(head->proxy_count * head->width, sizeof(float));
    int64_t *sorted = eip_allocate_array(head->proxy_count, sizeof(int64_t));
    if (!proxies || !sorted) {
        free(proxies);
        free(sorted);
        return EI_OUT_OF_MEMORY;
    }
    size_t next = 0;
    for (size_t c = 0; c < head->contract.classes; c++) {
        size_t first = next;
        next += counts[c];
        counts[c] = first;
    }
    for (size_t i = 0; i < head->proxy_count; i++) {
        size_t to = counts[index[i]]++;
        sorted[to] = index[i];
        memcpy(proxies + to * head->width, head->proxies + i * head->width,
               head->width * sizeof(float));
    }
    free(head->owned[EIP_PROXIES]);
    free(head->owned[EIP_CLASS_INDEX]);
    head->owned[EIP_PROXIES] = proxies;
    head->owned[EIP_CLASS_INDEX] = sorted;
    head->proxies = proxies;
    head->class_index = sorted;
    return EI_OK;
}

static ei_status take_proxies(eip_head *head, const eip_array *arrays)
{
    const void *proxies, *index;
    ei_status status = take(head, arrays, EIP_PROXIES, &proxies);
    if (status)
        return status;
    head->proxies = proxies;
    head->proxy_count = (size_t)arrays[EIP_PROXIES].shape[0];
    head->width = (size_t)arrays[EIP_PROXIES].shape[1];
    status = take(head, arrays, EIP_CLASS_INDEX, &index);
    if (status)
        return status;
    if (arrays[EIP_CLASS_INDEX].shape[0] != head->proxy_count)
        return eip_fail(EI_HEAD_VALUE, "class_index must be %zu integers, one a proxy",
                        head->proxy_count);
    head->class_index = index;
    size_t *counts = eip_allocate(head->contract.classes, sizeof(size_t));
    if (!counts)
        return EI_OUT_OF_MEMORY;
    bool ascending;
    status = count_classes(head, index, counts, &ascending);
    if (!status && !ascending)
        status = sort_proxies(head, index, counts);
    free(counts);
    return status;
}

static ei_status take_others(eip_head *head, const eip_array *arrays)
{
    const void *taken[EIP_ARRAYS];
    for (int which = EIP_CENTER; which < EIP_ARRAYS; which++) {
        ei_status status = take(head, arrays, (eip_array_name)which, &taken[which]);
        if (status)
            return status;
    }
    head->center = taken[EIP_CENTER];
    head->transform = taken[EIP_TRANSFORM];
    head->metric = taken[EIP_METRIC];
    head->threshold = taken[EIP_THRESHOLD];
    head->samples = taken[EIP_SAMPLES];
    head->sample_class = taken[EIP_SAMPLE_CLASS];
    head->host_proxies = taken[EIP_HOST_PROXIES];
    head->metric_width = head->metric ? (size_t)arrays[EIP_METRIC].shape[1] : 0;
    head->sample_count = head->samples ? (size_t)arrays[EIP_SAMPLES].shape[0] : 0;
    return EI_OK;
}

/* The length of the embeddings that the arrays take. */
static uint64_t embedding_size(const eip_head *head, const eip_array *arrays)
{
    if (head->center)
        return arrays[EIP_CENTER].shape[0];
    return head->transform ? arrays[EIP_TRANSFORM].shape[0] : head->width;
}

static ei_status check_map(const eip_head *head, const eip_array *arrays)
{
    uint64_t size = embedding_size(head, arrays);
    uint64_t mapped = head->transform ? arrays[EIP_TRANSFORM].shape[1] : size;
    if (head->transform && arrays[EIP_TRANSFORM].shape[0] != size)
        return eip_fail(EI_HEAD_VALUE,
                        "transform must have %" PRIu64
                        " rows, one an entry of center, got %" PRIu64,
                        size, arrays[EIP_TRANSFORM].shape[0]);
    if (mapped != head->width)
        return eip_fail(EI_HEAD_VALUE, "proxies must have %" PRIu64 " columns, got %zu",
                        mapped, head->width);
    return EI_OK;
}

static ei_status check_rule(const eip_head *head, const eip_array *arrays)
{
    const eip_contract *contract = &head->contract;
    bool wanted = contract->rule.distance == EIP_MAHALANOBIS;
    if (wanted && !head->metric)
        return eip_fail(EI_HEAD_VALUE, "distance='mahalanobis' needs metric, (%zu, F) numbers",
                        head->width);
    if (head->metric && !wanted)
        return eip_fail(EI_HEAD_VALUE, "metric belongs to distance='mahalanobis', the rule has "
                                       "another; leave it out");
    if (head->metric && arrays[EIP_METRIC].shape[0] != head->width)
        return eip_fail(EI_HEAD_VALUE, "metric must have %zu rows, got %" PRIu64, head->width,
                        arrays[EIP_METRIC].shape[0]);
    if ((size_t)contract->rule.neighbors > head->proxy_count)
        return eip_fail(EI_HEAD_VALUE,
                        "neighbors must be at most the %zu proxies of the head, got %d",
                        head->proxy_count, (int)contract->rule.neighbors);
    if ((head->threshold != NULL) != contract->calibrated)
        return eip_fail(EI_HEAD_VALUE,
                        "threshold and temperature belong together: both or neither");
    if (head->threshold && arrays[EIP_THRESHOLD].shape[0] != contract->classes)
        return eip_fail(EI_HEAD_VALUE,
                        "threshold must hold %zu numbers, one a class, got %" PRIu64,
                        contract->classes, arrays[EIP_THRESHOLD].shape[0]);
    return EI_OK;
}

/* Whether they are ascending positions of classes. */
static bool are_classes(const int64_t *index, size_t count, size_t classes)
{
    int64_t last = 0;
    for (size_t i = 0; i < count; i++) {
        if (index[i] < last || (uint64_t)index[i] >= classes)
            return false;
        last = index[i];
    }
    return true;
}

/* Where a class's entries of a sorted index end, given where they begin. */
static size_t end_of(const int64_t *index, size_t count, size_t from, size_t class_)
{
    while (from < count && index[from] == (int64_t)class_)
        from++;
    return from;
}

/* A class has taught proxies and samples of them, or neither. */
static ei_status check_remembered(const eip_head *head)
{
    size_t proxy = 0, sample = 0;
    for (size_t c = 0; c < head->contract.classes; c++) {
        size_t last = end_of(head->class_index, head->proxy_count, proxy, c);
        size_t end = end_of(head->sample_class, head->sample_count, sample, c);
        int64_t taught = (int64_t)(last - proxy) - head->host_proxies[c];
        if (taught < 0 || (taught > 0) != (end > sample))
            return eip_fail(EI_HEAD_VALUE,
                            "class %zu has %" PRId64
                            " taught proxies and %zu samples; both or neither",
                            c, taught, end - sample);
        proxy = last;
        sample = end;
    }
    return EI_OK;
}

static ei_status check_taught(const eip_head *head, const eip_array *arrays)
{
    size_t classes = head->contract.classes;
    int there = !!head->samples + !!head->sample_class + !!head->host_proxies;
    if (!there)
        return EI_OK;
    if (there < 3)
        return eip_fail(EI_HEAD_VALUE, "samples, sample_class and host_proxies belong "
                                       "together: all or none");
    uint64_t size = embedding_size(head, arrays);
    if (arrays[EIP_SAMPLES].shape[1] != size)
        return eip_fail(EI_HEAD_VALUE,
                        "samples must have %" PRIu64 " columns, got %" PRIu64, size,
                        arrays[EIP_SAMPLES].shape[1]);
    if (arrays[EIP_SAMPLE_CLASS].shape[0] != head->sample_count ||
        !are_classes(head->sample_class, head->sample_count, classes))
        return eip_fail(EI_HEAD_VALUE,
                        "sample_class must be %zu integers from 0 to %zu, one a sample, "
                        "ascending",
                        head->sample_count, classes - 1);
    bool counts = arrays[EIP_HOST_PROXIES].shape[0] == classes;
    for (size_t c = 0; counts && c < classes; c++)
        counts = head->host_proxies[c] >= 0;
    if (!counts)
        return eip_fail(EI_HEAD_VALUE,
                        "host_proxies must be %zu integers >= 0, one a class", classes);
    return check_remembered(head);
}

/* Take the arrays into the head, and hold them against each other and the contract. */
static ei_status fill(eip_head *head, const eip_array *arrays)
{
    ei_status status = take_proxies(head, arrays);
    if (!status)
        status = take_others(head, arrays);
    if (!status)
        status = check_map(head, arrays);
    if (!status)
        status = check_rule(head, arrays);
    if (!status)
        status = check_taught(head, arrays);
    if (!status && embedding_size(head, arrays) != (uint64_t)head->contract.embedding_size)
        status = eip_fail(EI_HEAD_VALUE,
                          "embedding_size says %d, its arrays take %" PRIu64,
                          (int)head->contract.embedding_size, embedding_size(head, arrays));
    return status;
}

ei_status eip_head_read(void *data, size_t bytes, const char *where, eip_head **head)
{
    eip_array arrays[EIP_ARRAYS];
    memset(arrays, 0, sizeof arrays);
    *head = NULL;
    eip_head *made = eip_allocate(1, sizeof *made);
    if (!made) {
        free(data);
        return EI_OUT_OF_MEMORY;
    }
    made->owned[EIP_ARRAYS] = data;
    ei_status status =
        eip_where(eip_safetensors_read(data, bytes, arrays, &made->metadata), where);
    if (!status)
        status = eip_contract_read(&made->metadata, false, where, &made->contract);
    if (!status)
        status = eip_where(fill(made, arrays), where);
    if (status) {
        eip_head_free(made);
        return status;
    }
    *head = made;
    return EI_OK;
}

ei_status eip_head_load(const char *path, eip_head **head)
{
    void *data;
    size_t bytes;
    *head = NULL;
    ei_status status = eip_read_file(path, SIZE_MAX / 2, EI_HEAD_FILE, &data, &bytes);
    return status ? status : eip_head_read(data, bytes, path, head);
}

void eip_head_free(eip_head *head)
{
    if (!head)
        return;
    eip_contract_clear(&head->contract);
    eip_metadata_clear(&head->metadata);
    for (int i = 0; i <= EIP_ARRAYS; i++)
        free(head->owned[i]);
    free(head);
}

/* The first position in the sorted index that is not below `class_`. */
static size_t lower_bound(const eip_head *head, int64_t class_)
{
    size_t low = 0, high = head->proxy_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (head->class_index[middle] < class_)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t eip_head_first(const eip_head *head, size_t class_, size_t *count)
{
    size_t first = lower_bound(head, (int64_t)class_);
    *count = lower_bound(head, (int64_t)class_ + 1) - first;
    return first;
}

size_t eip_head_find(const eip_head *head, const char *label)
{
    size_t c = 0;
    while (c < head->contract.classes && strcmp(head->contract.labels[c], label) != 0)
        c++;
    return c;
}
