/* SPDX-License-Identifier: Apache-2.0 */
#include "teaching.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "contract_values.h"
#include "head_write.h"
#include "lesson.h"

/* A class of a head. The arrays are somebody else's. */
typedef struct {
    const char *label;
    const float *host, *taught; /* (., E) proxies made on the host, and of what was taught */
    const float *samples;       /* (., D) embeddings of what was taught, distinct, sorted */
    size_t hosts, taughts, remembered;
    float threshold; /* 0 where nothing is calibrated */
} part;

/* Take a head apart, class by class; with room for one more. NULL sets the error. */
static part *split(const eip_head *head)
{
    size_t classes = head->contract.classes, proxy = 0, sample = 0;
    size_t size = (size_t)head->contract.embedding_size;
    part *parts = eip_allocate(classes + 1, sizeof *parts);
    for (size_t c = 0; parts && c < classes; c++) {
        size_t count;
        part *own = &parts[c];
        own->label = head->contract.labels[c];
        eip_head_first(head, c, &count);
        own->host = head->proxies + proxy * head->width;
        own->hosts = head->host_proxies ? (size_t)head->host_proxies[c] : count;
        own->taught = own->host + own->hosts * head->width;
        own->taughts = count - own->hosts;
        proxy += count;
        own->samples = head->samples ? head->samples + sample * size : NULL;
        while (sample < head->sample_count && head->sample_class[sample] == (int64_t)c) {
            sample++;
            own->remembered++;
        }
        own->threshold = head->threshold ? head->threshold[c] : 0;
    }
    return parts;
}

static ei_status copy_array(eip_head *head, eip_array_name which, const float *values,
                            size_t count, const float **copy)
{
    if (!values)
        return EI_OK;
    float *data = eip_allocate_array(count, sizeof(float));
    head->owned[which] = data;
    if (!data)
        return EI_OUT_OF_MEMORY;
    *copy = memcpy(data, values, count * sizeof(float));
    return EI_OK;
}

/* Copy what teaching does not change. */
static ei_status copy_map(eip_head *made, const eip_head *head)
{
    size_t size = (size_t)head->contract.embedding_size;
    made->width = head->width;
    made->metric_width = head->metric_width;
    ei_status status = copy_array(made, EIP_CENTER, head->center, size, &made->center);
    if (!status)
        status = copy_array(made, EIP_TRANSFORM, head->transform, size * head->width,
                            &made->transform);
    if (!status)
        status = copy_array(made, EIP_METRIC, head->metric, head->width * head->metric_width,
                            &made->metric);
    return status;
}

static void append(float *to, size_t *at, const float *rows, size_t count, size_t width)
{
    if (count)
        memcpy(to + *at * width, rows, count * width * sizeof(float));
    *at += count;
}

static ei_status join_proxies(eip_head *made, const part *parts, size_t classes)
{
    for (size_t c = 0; c < classes; c++)
        made->proxy_count += parts[c].hosts + parts[c].taughts;
    float *proxies = eip_allocate_array(made->proxy_count * made->width, sizeof(float));
    int64_t *index = eip_allocate_array(made->proxy_count, sizeof(int64_t));
    made->owned[EIP_PROXIES] = proxies;
    made->owned[EIP_CLASS_INDEX] = index;
    if (!proxies || !index)
        return EI_OUT_OF_MEMORY;
    size_t at = 0;
    for (size_t c = 0; c < classes; c++) {
        size_t first = at;
        append(proxies, &at, parts[c].host, parts[c].hosts, made->width);
        append(proxies, &at, parts[c].taught, parts[c].taughts, made->width);
        for (; first < at; first++)
            index[first] = (int64_t)c;
    }
    made->proxies = proxies;
    made->class_index = index;
    return EI_OK;
}

/* What was never taught leaves no trace. */
static ei_status join_samples(eip_head *made, const part *parts, size_t classes, size_t size)
{
    for (size_t c = 0; c < classes; c++)
        made->sample_count += parts[c].remembered;
    if (!made->sample_count)
        return EI_OK;
    float *samples = eip_allocate_array(made->sample_count * size, sizeof(float));
    int64_t *owner = eip_allocate_array(made->sample_count, sizeof(int64_t));
    int64_t *hosts = eip_allocate_array(classes, sizeof(int64_t));
    made->owned[EIP_SAMPLES] = samples;
    made->owned[EIP_SAMPLE_CLASS] = owner;
    made->owned[EIP_HOST_PROXIES] = hosts;
    if (!samples || !owner || !hosts)
        return EI_OUT_OF_MEMORY;
    size_t at = 0;
    for (size_t c = 0; c < classes; c++) {
        size_t first = at;
        append(samples, &at, parts[c].samples, parts[c].remembered, size);
        for (; first < at; first++)
            owner[first] = (int64_t)c;
        hosts[c] = (int64_t)parts[c].hosts;
    }
    made->samples = samples;
    made->sample_class = owner;
    made->host_proxies = hosts;
    return EI_OK;
}

static ei_status join_thresholds(eip_head *made, const part *parts, size_t classes)
{
    float *threshold = eip_allocate_array(classes, sizeof(float));
    made->owned[EIP_THRESHOLD] = threshold;
    if (!threshold)
        return EI_OUT_OF_MEMORY;
    for (size_t c = 0; c < classes; c++)
        threshold[c] = parts[c].threshold;
    made->threshold = threshold;
    return EI_OK;
}

/* Write the metadata anew, and read them: so the labels are checked as any. */
static ei_status join_contract(eip_head *made, const eip_head *head, const part *parts,
                               size_t classes)
{
    char **labels = eip_allocate(classes, sizeof *labels);
    if (!labels)
        return EI_OUT_OF_MEMORY;
    for (size_t c = 0; c < classes; c++)
        labels[c] = (char *)parts[c].label;
    ei_status status = eip_head_encode(head, labels, classes, &made->metadata);
    free(labels);
    if (!status)
        status = eip_contract_read(&made->metadata, false, "the head", &made->contract);
    return status;
}

/* Put a head together again. */
static ei_status join(const eip_head *head, const part *parts, size_t classes, eip_head **joined)
{
    eip_head *made = eip_allocate(1, sizeof *made);
    if (!made)
        return EI_OUT_OF_MEMORY;
    ei_status status = join_contract(made, head, parts, classes);
    if (!status)
        status = copy_map(made, head);
    if (!status)
        status = join_proxies(made, parts, classes);
    if (!status)
        status = join_samples(made, parts, classes, (size_t)head->contract.embedding_size);
    if (!status && head->threshold)
        status = join_thresholds(made, parts, classes);
    if (status) {
        eip_head_free(made);
        return status;
    }
    *joined = made;
    return EI_OK;
}

/* Refuse a head of whose classes none can be made alone. */
static ei_status check_teachable(const eip_head *head)
{
    const char *recipe = head->contract.recipe, *words[5];
    size_t lengths[5], count = 0;
    for (const char *at = recipe + strspn(recipe, " \t\n\v\f\r"); *at;) {
        size_t length = strcspn(at, " \t\n\v\f\r");
        if (count == 5)
            return EI_OK; /* more words than a recipe of ours */
        words[count] = at;
        lengths[count++] = length;
        at += length;
        at += strspn(at, " \t\n\v\f\r");
    }
    if (count < 5)
        return EI_OK;
    bool squares = strncmp(words[1], "least_squares", strlen("least_squares")) == 0;
    bool quantile = lengths[2] == strlen("quantile") &&
                    strncmp(words[2], "quantile", strlen("quantile")) == 0;
    if (!squares && !quantile)
        return EI_OK;
    char quoted[EIP_QUOTED];
    return eip_fail(EI_NOT_TEACHABLE,
                    "the head's recipe %s makes the proxies of all classes from one another, so "
                    "that none can be taught alone; build the head with another recipe",
                    eip_quote(recipe, strlen(recipe), quoted));
}

static ei_status check_new_label(const eip_head *head, const char *label)
{
    ei_status status = eip_check_label(label);
    if (status)
        return status;
    if (head->contract.calibrated && strcmp(label, EIP_UNKNOWN) == 0)
        return eip_fail(EI_CONTRACT_VALUE,
                        "no class of a calibrated head may be named '%s', its answer where it "
                        "knows none; rename the class",
                        EIP_UNKNOWN);
    return EI_OK;
}

static ei_status check_room(const part *parts, size_t classes, size_t position, size_t samples)
{
    size_t total = samples;
    for (size_t c = 0; c < classes; c++)
        total += c == position ? 0 : parts[c].remembered;
    if (total > EIP_MAX_SAMPLES)
        return eip_fail(EI_NO_ROOM,
                        "the head would remember %zu taught photos, the limit is %d; teach "
                        "fewer, or forget a class",
                        total, EIP_MAX_SAMPLES);
    return EI_OK;
}

static int compare_numbers(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The median threshold of the classes that the host made, else of all others; false: none. */
static ei_status median(const part *parts, size_t classes, size_t position, float *middle,
                        bool *there)
{
    float *known = eip_allocate(2 * classes, sizeof(float));
    if (!known)
        return EI_OUT_OF_MEMORY;
    float *all = known + classes;
    size_t hosts = 0, others = 0;
    for (size_t c = 0; c < classes; c++) {
        if (c == position)
            continue;
        all[others++] = parts[c].threshold;
        if (parts[c].hosts)
            known[hosts++] = parts[c].threshold;
    }
    const float *chosen = hosts ? known : all;
    size_t count = hosts ? hosts : others;
    qsort(hosts ? known : all, count, sizeof(float), compare_numbers);
    *there = count > 0;
    if (count)
        *middle = count % 2 ? chosen[count / 2]
                            : (chosen[count / 2 - 1] + chosen[count / 2]) / 2;
    free(known);
    return EI_OK;
}

/* Choose from which similarity on a class that was only taught is known: so that one photo of 20
 * falls below; of fewer than 19 photos the smallest, or the median of other classes where that is
 * lower. It stays as it is where there is neither another photo nor another class. */
static ei_status choose_threshold(eip_lesson *lesson, const part *parts, size_t classes,
                                  size_t position, float *threshold)
{
    float *found = eip_allocate(lesson->count, sizeof(float));
    if (!found)
        return EI_OUT_OF_MEMORY;
    size_t count = 0;
    bool there = false;
    float least = 0;
    ei_status status = eip_lesson_held_out(lesson, found, &count);
    size_t rank = (count + 1) / 20;
    if (status)
        goto done;
    if (rank) {
        qsort(found, count, sizeof(float), compare_numbers);
        *threshold = found[rank - 1];
        goto done;
    }
    status = median(parts, classes, position, &least, &there);
    for (size_t i = 0; !status && i < count; i++)
        if ((!there && !i) || found[i] < least)
            least = found[i];
    if (!status && (there || count))
        *threshold = least;
done:
    free(found);
    return status;
}

/* Make the class's proxies and threshold of its samples. */
static ei_status learn(eip_lesson *lesson, part *parts, size_t classes, size_t position)
{
    part *own = &parts[position];
    ei_status status = eip_lesson_proxies(lesson, &own->taught, &own->taughts);
    if (!status && lesson->head->threshold && !own->hosts)
        status = choose_threshold(lesson, parts, classes, position, &own->threshold);
    if (!status && !isfinite(own->threshold))
        status = eip_fail(EI_HEAD_VALUE, "the threshold of the class would be NaN or infinity; "
                                         "these embeddings are too large for the head");
    return status;
}

ei_status eip_teach(const eip_head *head, const char *label, const float *embeddings,
                    size_t count, int32_t proxies, eip_head **taught)
{
    *taught = NULL;
    if (proxies < 1)
        return eip_fail(EI_INVALID_ARGUMENT, "proxies must be an integer >= 1, got %d",
                        (int)proxies);
    size_t classes = head->contract.classes, position = eip_head_find(head, label);
    ei_status status = check_teachable(head);
    if (!status)
        status = eip_lesson_check(head, embeddings, count);
    if (!status && position == classes)
        status = check_new_label(head, label);
    if (status)
        return status;
    eip_lesson lesson = {.head = head, .proxies = (size_t)proxies};
    part *parts = split(head);
    if (!parts)
        return EI_OUT_OF_MEMORY;
    if (position == classes)
        parts[classes++].label = label;
    part *own = &parts[position];
    status = eip_lesson_sort(&lesson, own->samples, own->remembered, embeddings, count);
    if (!status)
        status = check_room(parts, classes, position, lesson.count);
    if (!status)
        status = eip_lesson_begin(&lesson);
    if (!status) {
        own->samples = lesson.samples;
        own->remembered = lesson.count;
        status = learn(&lesson, parts, classes, position);
    }
    if (!status)
        status = join(head, parts, classes, taught);
    eip_lesson_end(&lesson);
    free(parts);
    if (!status && (*taught)->proxy_count < (size_t)head->contract.rule.neighbors) {
        status = eip_fail(EI_INVALID_ARGUMENT,
                          "%d proxies vote, and with %d of this class %zu would be left; teach "
                          "it with more",
                          (int)head->contract.rule.neighbors, (int)proxies,
                          (*taught)->proxy_count);
        eip_head_free(*taught);
        *taught = NULL;
    }
    return status;
}

ei_status eip_forget(const eip_head *head, const char *label, eip_head **left)
{
    *left = NULL;
    size_t classes = head->contract.classes, position = eip_head_find(head, label), count;
    char quoted[EIP_QUOTED];
    eip_quote(label, strlen(label), quoted);
    if (position == classes)
        return eip_fail(EI_NO_SUCH_CLASS, "there is no class %s to forget", quoted);
    if (classes == 1)
        return eip_fail(EI_NO_SUCH_CLASS,
                        "%s is the only class; teach another before forgetting it", quoted);
    eip_head_first(head, position, &count);
    if (head->proxy_count - count < (size_t)head->contract.rule.neighbors)
        return eip_fail(EI_NO_SUCH_CLASS,
                        "%d proxies vote, and without %s %zu are left; teach another class "
                        "before forgetting it",
                        (int)head->contract.rule.neighbors, quoted, head->proxy_count - count);
    part *parts = split(head);
    if (!parts)
        return EI_OUT_OF_MEMORY;
    memmove(parts + position, parts + position + 1, (classes - position - 1) * sizeof *parts);
    ei_status status = join(head, parts, classes - 1, left);
    free(parts);
    return status;
}
