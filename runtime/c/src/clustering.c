/* SPDX-License-Identifier: Apache-2.0 */
#include "clustering.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

#define MAX_ITERATIONS 300 /* it ends far sooner; rounding might let two states alternate */
/* Squared distances that differ by less of themselves tie: two points are as far from their mean,
 * and rounding, which no two processors share, must not choose between what is equal. */
#define TIE 1e-9

ei_status eip_clustering_open(size_t points, size_t centres, size_t width,
                              eip_clustering *clustering)
{
    *clustering = (eip_clustering){.width = width};
    clustering->centres = eip_allocate_array(centres * width, sizeof(double));
    clustering->gaps = eip_allocate(points > centres ? points : centres, sizeof(double));
    clustering->owner = eip_allocate(2 * points + centres, sizeof(size_t));
    if (!clustering->centres || !clustering->gaps || !clustering->owner) {
        eip_clustering_close(clustering);
        return EI_OUT_OF_MEMORY;
    }
    clustering->nearest = clustering->owner + points;
    clustering->members = clustering->nearest + points;
    return EI_OK;
}

void eip_clustering_close(eip_clustering *clustering)
{
    free(clustering->centres);
    free(clustering->gaps);
    free(clustering->owner);
    memset(clustering, 0, sizeof *clustering);
}

/* Put the mean of each group where its centre is. */
static void put_means(eip_clustering *clustering, const double *const *points, size_t count,
                      size_t groups)
{
    size_t width = clustering->width;
    memset(clustering->centres, 0, groups * width * sizeof(double));
    memset(clustering->members, 0, groups * sizeof(size_t));
    for (size_t i = 0; i < count; i++) {
        size_t group = clustering->owner[i];
        eip_add_row(clustering->centres + group * width, points[i], width);
        clustering->members[group]++;
    }
    for (size_t group = 0; group < groups; group++)
        for (size_t e = 0; e < width; e++)
            clustering->centres[group * width + e] /= (double)clustering->members[group];
}

/* Return the first of the numbers that is the least, or nearly so; likewise the greatest. */
static size_t first_least(const double *values, size_t count)
{
    double least = INFINITY;
    for (size_t i = 0; i < count; i++)
        least = values[i] < least ? values[i] : least;
    size_t i = 0;
    while (i + 1 < count && !(values[i] <= least * (1 + TIE)))
        i++;
    return i;
}

static size_t first_greatest(const double *values, size_t count)
{
    double greatest = 0;
    for (size_t i = 0; i < count; i++)
        greatest = values[i] > greatest ? values[i] : greatest;
    size_t i = 0;
    while (i + 1 < count && !(values[i] >= greatest * (1 - TIE)))
        i++;
    return i;
}

/* Choose up to k points to start from, as centres. The first centre is the mean of all. */
static size_t choose(eip_clustering *clustering, const double *const *points, size_t count,
                     size_t k)
{
    size_t width = clustering->width, found = 0;
    double *gaps = clustering->gaps;
    for (size_t i = 0; i < count; i++)
        gaps[i] = eip_square_gap(points[i], clustering->centres, width);
    size_t next = first_least(gaps, count);
    for (size_t i = 0; i < count; i++)
        gaps[i] = INFINITY;
    for (;;) {
        const double *chosen = points[next];
        memcpy(clustering->centres + found++ * width, chosen, width * sizeof(double));
        for (size_t i = 0; i < count; i++) {
            double gap = eip_square_gap(points[i], chosen, width);
            gaps[i] = gap < gaps[i] ? gap : gaps[i];
        }
        next = first_greatest(gaps, count);
        if (found == k || gaps[next] == 0)
            return found;
    }
}

/* Give each point to its nearest centre; returns how many centres have points, which are numbered
 * anew. *moved: whether any point changed, or a centre was lost. */
static size_t assign(eip_clustering *clustering, const double *const *points, size_t count,
                     size_t centres, bool *moved)
{
    size_t *members = clustering->members, kept = 0;
    memset(members, 0, centres * sizeof(size_t));
    for (size_t i = 0; i < count; i++) {
        for (size_t c = 0; c < centres; c++)
            clustering->gaps[c] = eip_square_gap(
                points[i], clustering->centres + c * clustering->width, clustering->width);
        size_t nearest = first_least(clustering->gaps, centres);
        clustering->nearest[i] = nearest;
        members[nearest]++;
    }
    for (size_t c = 0; c < centres; c++)
        members[c] = members[c] ? kept++ : SIZE_MAX; /* its new number */
    *moved = kept != centres;
    for (size_t i = 0; i < count; i++) {
        size_t owner = members[clustering->nearest[i]];
        *moved = *moved || owner != clustering->owner[i];
        clustering->owner[i] = owner;
    }
    return kept;
}

size_t eip_cluster(eip_clustering *clustering, const double *const *points, size_t count,
                   size_t k)
{
    memset(clustering->owner, 0, count * sizeof(size_t));
    put_means(clustering, points, count, 1);
    if (k == 1)
        return 1;
    size_t centres = choose(clustering, points, count, k < count ? k : count);
    memset(clustering->owner, 0xff, count * sizeof(size_t)); /* nobody's */
    for (int i = 0; i < MAX_ITERATIONS; i++) {
        bool moved;
        centres = assign(clustering, points, count, centres, &moved);
        if (!moved)
            break;
        put_means(clustering, points, count, centres);
    }
    return centres;
}
