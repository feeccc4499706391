/* SPDX-License-Identifier: Apache-2.0 */
/* Similarities of embeddings to proxies, as `edge_imprint_runtime.rules.Comparison` computes them:
 * what teaching needs for the threshold of a new class. */
#ifndef EIP_RULES_H
#define EIP_RULES_H

#include <stddef.h>

#include "errors.h"
#include "head.h"

/* A head's rule, map and metric made ready for some proxies, which are all there are. */
typedef struct eip_comparison {
    const eip_head *head;
    size_t count, size; /* proxies; their length, E, or F under mahalanobis */
    bool exact;         /* float64 throughout, where differences cancel */
    double *points;     /* (count, size) */
    double *mean;       /* (E) of the proxies, for what compares about it */
    double *row;        /* room for one embedding on its way, and the next for its map */
    double *mapped;
} eip_comparison;

/* Make room for up to `count` proxies; to be closed. Fails with EI_OUT_OF_MEMORY. */
ei_status eip_comparison_open(const eip_head *head, size_t count, eip_comparison *comparison);
void eip_comparison_close(eip_comparison *comparison);

/* Set the (count, E) proxies. */
void eip_comparison_set(eip_comparison *comparison, const float *proxies, size_t count);

/* Return the similarity of the nearest of them to one (D) embedding. */
float eip_comparison_nearest(eip_comparison *comparison, const float *embedding);

#endif
