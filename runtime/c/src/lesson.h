/* SPDX-License-Identifier: Apache-2.0 */
/* What one class is taught: its samples, the proxies made of them, and how well they hold. */
#ifndef EIP_LESSON_H
#define EIP_LESSON_H

#include <stdbool.h>
#include <stddef.h>

#include "clustering.h"
#include "errors.h"
#include "head.h"

typedef struct eip_lesson {
    const eip_head *head;
    size_t proxies;       /* at most */
    size_t count;         /* samples */
    float *samples;       /* (count, D) distinct, sorted */
    bool unit;            /* proxies are made of length 1, as the host's are */
    double *points;       /* (count, E) the samples on their way to being compared */
    const double **chosen; /* room for pointers to points */
    eip_clustering clustering;
    float *made; /* (2 * proxies, E): those of all samples, and of some */
} eip_lesson;

/* Check what is to be taught: EI_INVALID_ARGUMENT (nothing), EI_INPUT_VALUE, EI_ZERO_EMBEDDING,
 * EI_OUT_OF_MEMORY. */
ei_status eip_lesson_check(const eip_head *head, const float *embeddings, size_t count);

/* Merge what was taught before with what is taught now. `head` and `proxies` are set. */
ei_status eip_lesson_sort(eip_lesson *lesson, const float *before, size_t before_count,
                          const float *now, size_t now_count);

/* Make the samples ready. */
ei_status eip_lesson_begin(eip_lesson *lesson);

/* Make proxies of all samples; they stay in the lesson. EI_HEAD_VALUE: they are beyond float32. */
ei_status eip_lesson_proxies(eip_lesson *lesson, const float **made, size_t *count);

/* Compare each sample with proxies made without it (without its 20th part, where there are more
 * than 20).
 *
 *   found  takes their similarities; none of a single sample */
ei_status eip_lesson_held_out(eip_lesson *lesson, float *found, size_t *count);

/* Free what it holds. */
void eip_lesson_end(eip_lesson *lesson);

#endif
