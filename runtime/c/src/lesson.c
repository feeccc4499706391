/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* qsort_r */
#include "lesson.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"
#include "rules.h"

#define UNIT 1e-3 /* proxies whose norms are this near to 1 were normalised */
#define FOLDS 20

/* Return (count, E) `(rows - center) @ transform`, to be freed; NULL sets the error. */
static double *linear(const eip_head *head, const float *rows, size_t count)
{
    size_t size = (size_t)head->contract.embedding_size;
    double *points = eip_allocate_array(count * size, sizeof(double));
    if (!points)
        return NULL;
    eip_widen(rows, count * size, points);
    if (head->center)
        for (size_t i = 0; i < count; i++)
            for (size_t d = 0; d < size; d++)
                points[i * size + d] -= head->center[d];
    if (!head->transform)
        return points;
    double *mapped = eip_allocate_array(count * head->width, sizeof(double));
    if (mapped)
        eip_multiply(points, count, size, head->transform, head->width, mapped);
    free(points);
    return mapped;
}

ei_status eip_lesson_check(const eip_head *head, const float *embeddings, size_t count)
{
    size_t size = (size_t)head->contract.embedding_size;
    if (!count)
        return eip_fail(EI_INVALID_ARGUMENT,
                        "there is nothing to teach; give at least one photo");
    for (size_t i = 0; i < count; i++)
        if (!eip_finite(embeddings + i * size, size))
            return eip_fail(EI_INPUT_VALUE, "embedding %zu holds NaN or infinity", i);
    const eip_rule *rule = &head->contract.rule;
    if (rule->embedding_norm != EIP_NORM_L2 && rule->distance != EIP_COSINE)
        return EI_OK;
    double *points = linear(head, embeddings, count);
    if (!points)
        return EI_OUT_OF_MEMORY;
    double least = INFINITY;
    size_t where = 0;
    for (size_t i = 0; i < count; i++) {
        double norm = sqrt(eip_sum_squares(points + i * head->width, head->width));
        if (norm < least) {
            least = norm;
            where = i;
        }
    }
    free(points);
    if (least <= EIP_EPSILON)
        return eip_fail(EI_ZERO_EMBEDDING,
                        "embedding %zu is zero, so that it points nowhere; leave that photo out",
                        where);
    return EI_OK;
}

static int compare_rows(const void *a, const void *b, void *width)
{
    const float *x = *(const float *const *)a, *y = *(const float *const *)b;
    for (size_t d = 0; d < *(size_t *)width; d++)
        if (x[d] != y[d])
            return x[d] < y[d] ? -1 : 1;
    return 0;
}

ei_status eip_lesson_sort(eip_lesson *lesson, const float *before, size_t before_count,
                          const float *now, size_t now_count)
{
    size_t size = (size_t)lesson->head->contract.embedding_size;
    size_t count = before_count + now_count, distinct = 0;
    const float **rows = eip_allocate(count, sizeof *rows);
    if (rows)
        lesson->samples = eip_allocate_array(count * size, sizeof(float));
    if (!lesson->samples) {
        free(rows);
        return EI_OUT_OF_MEMORY;
    }
    for (size_t i = 0; i < count; i++)
        rows[i] = i < before_count ? before + i * size : now + (i - before_count) * size;
    qsort_r(rows, count, sizeof *rows, compare_rows, &size);
    for (size_t i = 0; i < count; i++) {
        if (i && !compare_rows(&rows[i - 1], &rows[i], &size))
            continue;
        float *sample = lesson->samples + distinct++ * size;
        for (size_t d = 0; d < size; d++)
            sample[d] = rows[i][d] + 0.0f; /* what is -0 here and 0 there would be two */
    }
    lesson->count = distinct;
    free(rows);
    return EI_OK;
}

/* Whether the host made its proxies of length 1. */
static bool are_unit(const eip_head *head, double *row)
{
    for (size_t p = 0; p < head->proxy_count; p++) {
        eip_widen(head->proxies + p * head->width, head->width, row);
        if (!(fabs(sqrt(eip_sum_squares(row, head->width)) - 1) < UNIT))
            return false;
    }
    return true;
}

ei_status eip_lesson_begin(eip_lesson *lesson)
{
    const eip_head *head = lesson->head;
    size_t width = head->width;
    if (lesson->proxies > lesson->count)
        lesson->proxies = lesson->count;
    lesson->points = linear(head, lesson->samples, lesson->count);
    if (!lesson->points)
        return EI_OUT_OF_MEMORY;
    if (head->contract.rule.embedding_norm == EIP_NORM_L2)
        for (size_t i = 0; i < lesson->count; i++)
            eip_make_unit(lesson->points + i * width, width);
    lesson->chosen = eip_allocate(lesson->count, sizeof *lesson->chosen);
    lesson->made = eip_allocate_array(2 * lesson->proxies * width, sizeof(float));
    if (!lesson->chosen || !lesson->made)
        return EI_OUT_OF_MEMORY;
    ei_status status =
        eip_clustering_open(lesson->count, lesson->proxies, width, &lesson->clustering);
    if (!status)
        lesson->unit = are_unit(head, lesson->clustering.centres);
    return status;
}

/* Make proxies of the first `count` of the chosen points; returns how many. */
static size_t make(eip_lesson *lesson, size_t count, float *made)
{
    size_t width = lesson->head->width;
    double *centres = lesson->clustering.centres;
    size_t k = eip_cluster(&lesson->clustering, lesson->chosen, count, lesson->proxies);
    for (size_t c = 0; lesson->unit && c < k; c++)
        eip_make_unit(centres + c * width, width);
    eip_narrow(centres, k * width, made);
    return k;
}

ei_status eip_lesson_proxies(eip_lesson *lesson, const float **made, size_t *count)
{
    size_t width = lesson->head->width;
    for (size_t i = 0; i < lesson->count; i++)
        lesson->chosen[i] = lesson->points + i * width;
    *count = make(lesson, lesson->count, lesson->made);
    *made = lesson->made;
    if (!eip_finite(lesson->made, *count * width))
        return eip_fail(EI_HEAD_VALUE, "the proxies would hold NaN or infinity; these "
                                       "embeddings are too large for the head");
    return EI_OK;
}

ei_status eip_lesson_held_out(eip_lesson *lesson, float *found, size_t *count)
{
    size_t width = lesson->head->width, size = (size_t)lesson->head->contract.embedding_size;
    size_t folds = lesson->count < FOLDS ? lesson->count : FOLDS;
    float *made = lesson->made + lesson->proxies * width;
    *count = 0;
    if (lesson->count < 2)
        return EI_OK;
    eip_comparison comparison;
    ei_status status = eip_comparison_open(lesson->head, lesson->proxies, &comparison);
    if (status)
        return status;
    for (size_t fold = 0; fold < folds; fold++) {
        size_t inside = 0;
        for (size_t i = 0; i < lesson->count; i++)
            if (i % folds != fold)
                lesson->chosen[inside++] = lesson->points + i * width;
        eip_comparison_set(&comparison, made, make(lesson, inside, made));
        for (size_t i = fold; i < lesson->count; i += folds)
            found[i] = eip_comparison_nearest(&comparison, lesson->samples + i * size);
    }
    eip_comparison_close(&comparison);
    *count = lesson->count;
    return EI_OK;
}

void eip_lesson_end(eip_lesson *lesson)
{
    free(lesson->samples);
    free(lesson->points);
    free(lesson->chosen);
    free(lesson->made);
    eip_clustering_close(&lesson->clustering);
    memset(lesson, 0, sizeof *lesson);
}
