/* SPDX-License-Identifier: Apache-2.0 */
/* k-means without chance: points -> means. */
#ifndef EIP_CLUSTERING_H
#define EIP_CLUSTERING_H

#include <stddef.h>

#include "errors.h"

/* Room for clusterings of up to so many points and means. */
typedef struct eip_clustering {
    size_t width;    /* of a point */
    double *centres; /* what eip_cluster found: (k, width) */
    double *gaps;
    size_t *owner, *nearest, *members;
} eip_clustering;

/* To be closed. Fails with EI_OUT_OF_MEMORY. */
ei_status eip_clustering_open(size_t points, size_t centres, size_t width,
                              eip_clustering *clustering);
void eip_clustering_close(eip_clustering *clustering);

/* Cluster points: up to k means, at least one; fewer where points coincide.
 *
 * Starts from the point nearest to the mean, then the one farthest from all chosen, and goes on
 * with Lloyd's iteration until no point moves. Ties go to the lowest index. A mean that loses all
 * its points is given up.
 *
 *   points  count of them, at least 1, each of `width` numbers
 *
 * Returns how many means there are. */
size_t eip_cluster(eip_clustering *clustering, const double *const *points, size_t count,
                   size_t k);

#endif
