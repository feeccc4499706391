/* SPDX-License-Identifier: Apache-2.0 */
#include "rules.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

static bool about_mean(const eip_comparison *comparison)
{
    eip_distance distance = comparison->head->contract.rule.distance;
    return distance == EIP_EUCLIDEAN || distance == EIP_MAHALANOBIS;
}

/* What the reference computes in float32 is rounded to it at each step. */
static void settle(const eip_comparison *comparison, double *row, size_t count)
{
    if (comparison->exact)
        return;
    for (size_t i = 0; i < count; i++)
        row[i] = (float)row[i];
}

ei_status eip_comparison_open(const eip_head *head, size_t count, eip_comparison *comparison)
{
    const eip_rule *rule = &head->contract.rule;
    size_t size = (size_t)head->contract.embedding_size;
    size_t widest = head->width > size ? head->width : size;
    if (head->metric_width > widest)
        widest = head->metric_width;
    *comparison = (eip_comparison){.head = head};
    comparison->size = head->metric ? head->metric_width : head->width;
    comparison->exact = about_mean(comparison) || (rule->distance == EIP_COSINE &&
                                                   rule->weighting == EIP_BY_DISTANCE);
    comparison->points = eip_allocate_array(count * comparison->size, sizeof(double));
    comparison->mean = eip_allocate_array(head->width + 2 * widest, sizeof(double));
    if (!comparison->points || !comparison->mean) {
        eip_comparison_close(comparison);
        return EI_OUT_OF_MEMORY;
    }
    comparison->row = comparison->mean + head->width;
    comparison->mapped = comparison->row + widest;
    return EI_OK;
}

void eip_comparison_close(eip_comparison *comparison)
{
    free(comparison->points);
    free(comparison->mean);
    memset(comparison, 0, sizeof *comparison);
}

/* Put a row of E numbers into the form in which rows are compared, at `point`. */
static void bring(eip_comparison *comparison, double *row, double *point)
{
    const eip_head *head = comparison->head;
    size_t width = head->width;
    if (head->contract.rule.distance == EIP_COSINE)
        eip_make_unit(row, width);
    if (about_mean(comparison))
        for (size_t e = 0; e < width; e++)
            row[e] -= comparison->mean[e];
    if (head->metric)
        eip_multiply(row, 1, width, head->metric, head->metric_width, point);
    else
        memmove(point, row, width * sizeof(double));
    settle(comparison, point, comparison->size);
}

void eip_comparison_set(eip_comparison *comparison, const float *proxies, size_t count)
{
    size_t width = comparison->head->width;
    comparison->count = count;
    memset(comparison->mean, 0, width * sizeof(double));
    for (size_t i = 0; i < count; i++) {
        eip_widen(proxies + i * width, width, comparison->row);
        eip_add_row(comparison->mean, comparison->row, width);
    }
    for (size_t e = 0; e < width; e++)
        comparison->mean[e] /= (double)count;
    for (size_t i = 0; i < count; i++) {
        eip_widen(proxies + i * width, width, comparison->row);
        bring(comparison, comparison->row, comparison->points + i * comparison->size);
    }
}

/* Bring an embedding to where proxies are; returns where it lies. */
static double *norm(eip_comparison *comparison, const float *embedding)
{
    const eip_head *head = comparison->head;
    size_t size = (size_t)head->contract.embedding_size;
    double *row = comparison->row;
    eip_widen(embedding, size, row);
    if (head->center)
        for (size_t d = 0; d < size; d++)
            row[d] -= head->center[d];
    settle(comparison, row, size);
    if (head->transform) {
        eip_multiply(row, 1, size, head->transform, head->width, comparison->mapped);
        row = comparison->mapped;
        settle(comparison, row, head->width);
    }
    if (head->contract.rule.embedding_norm == EIP_NORM_L2) {
        eip_make_unit(row, head->width);
        settle(comparison, row, head->width);
    }
    return row;
}

float eip_comparison_nearest(eip_comparison *comparison, const float *embedding)
{
    double *row = norm(comparison, embedding);
    double *point = row == comparison->row ? comparison->mapped : comparison->row;
    bring(comparison, row, point);
    double best = -INFINITY;
    for (size_t i = 0; i < comparison->count; i++) {
        const double *other = comparison->points + i * comparison->size;
        double found;
        switch (comparison->head->contract.rule.distance) {
        case EIP_EUCLIDEAN:
        case EIP_MAHALANOBIS:
            found = -eip_square_gap(point, other, comparison->size);
            break;
        case EIP_MANHATTAN:
            found = -eip_absolute_gap(point, other, comparison->size);
            break;
        default:
            found = eip_dot(point, other, comparison->size);
        }
        if (!(found <= best)) /* NaN too: it is not hidden */
            best = found;
    }
    return (float)best;
}
