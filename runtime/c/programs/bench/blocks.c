/* SPDX-License-Identifier: Apache-2.0 */
/* The block bootstrap of percentiles: samples that follow one another are not independent.
 *
 * Stretches of neighbours are drawn (Kuensch 1989; circular: Politis and Romano 1992), as long as
 * the rule of Politis and White asks for. A percentile of a resample only depends on how many of
 * its samples lie at or below each threshold: each block is counted once, and a resample adds up
 * the counts of its blocks at those few thresholds that a search by halves looks at. */
#include "blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "statistics.h"

/* Blocks start at every quarter of a block: nearly as good as at every sample. */
#define PARTS_A_BLOCK 4
/* More blocks than this make no difference to the bootstrap's own error; it bounds memory. */
#define MOST_BLOCKS 1000
/* Below this many blocks a resample has too few pieces to differ from the others. */
#define FEWEST_BLOCKS 8
#define SPREAD 5.0

/* What is said of "this sample lies at or below the percentile". */
typedef struct share {
    double percent;
    double length; /* how long blocks should be */
    double factor; /* how many times more its mean scatters */
    double seen;   /* how many times more the blocks' counts do */
} share;

/* Return the percentile with five times the tail, the median at most: far out there are too few
 * samples to see how they depend on each other; their dependence is taken to be no less than that
 * of the samples a little further in. */
static double inner(double percent)
{
    double tail = fmin(50.0, 5 * fmin(percent, 100 - percent));
    return percent < 50 ? tail : 100 - tail;
}

static size_t part_of(const bootstrap *one, size_t sample)
{
    return sample * one->parts / one->count;
}

/* Cut a series so that blocks are at least so long, and neither too few nor too many. */
static void cut(bootstrap *one, double length)
{
    double count = (double)one->count;
    size_t blocks = (size_t)(count / fmax(length, count / MOST_BLOCKS));
    blocks = blocks < FEWEST_BLOCKS ? FEWEST_BLOCKS : blocks;
    blocks = blocks < one->count ? blocks : one->count;
    one->width = one->count >= PARTS_A_BLOCK * blocks ? PARTS_A_BLOCK : 1;
    one->parts = blocks * one->width;
    one->blocks = blocks;
}

/* Replace counts by part with counts by block, one from each part on. `room`: width - 1 more. */
static void add_neighbours(const bootstrap *one, uint32_t *counts, uint32_t *room)
{
    memcpy(room, counts, one->parts * sizeof *room);
    for (size_t step = 1; step < one->width; step++)
        for (size_t part = 0; part < one->parts; part++)
            counts[part] += room[part + step < one->parts ? part + step : part + step - one->parts];
}

/* Say how many times more blocks' counts scatter than those of independent samples, from 1 up. */
static bool scatter(const bootstrap *one, int64_t limit, double *seen)
{
    uint32_t *below = eip_allocate(3 * one->parts, sizeof *below);
    double *squares = eip_allocate(one->parts, sizeof *squares);
    if (!below || !squares) {
        free(below);
        free(squares);
        return false;
    }
    uint32_t *all = below + one->parts, *room = all + one->parts;
    size_t hits = 0;
    for (size_t i = 0; i < one->count; i++) {
        size_t part = part_of(one, i);
        bool hit = one->samples[i] <= limit;
        all[part]++;
        below[part] += hit;
        hits += hit;
    }
    add_neighbours(one, below, room);
    add_neighbours(one, all, room);
    double count = (double)one->count, parts = (double)one->parts;
    double mean = (double)hits / count;
    for (size_t part = 0; part < one->parts; part++) {
        double off = below[part] - mean * all[part];
        squares[part] = off * off;
    }
    double size = count * (double)one->width / parts;
    *seen = 1;
    if (hits && hits < one->count)
        *seen = fmax(1, pairwise_sum(squares, one->parts) / parts / (size * mean * (1 - mean)));
    free(below);
    free(squares);
    return true;
}

/* Look at the dependence of "at or below" for each share. */
static bool look(const bootstrap *one, share *shares, size_t count)
{
    double *hits = eip_allocate_array(one->count, sizeof *hits);
    bool well = hits;
    for (size_t s = 0; well && s < count; s++) {
        int64_t limit = one->ordered[bench_nearest_rank(one->count, shares[s].percent) - 1];
        for (size_t i = 0; i < one->count; i++)
            hits[i] = one->samples[i] <= limit;
        well = bench_dependence(hits, one->count, &shares[s].length, &shares[s].factor);
    }
    free(hits);
    return well;
}

/* Return the number of a percentile among the shares; it is added where it is not there. */
static size_t listed(share *shares, size_t *count, double percent)
{
    size_t at = 0;
    while (at < *count && shares[at].percent != percent)
        at++;
    if (at == *count)
        shares[(*count)++].percent = percent;
    return at;
}

bool bootstrap_begin(bootstrap *one, const int64_t *samples, size_t count, const double *percents,
                     size_t percent_count)
{
    share shares[2 * MOST_PERCENTS];
    size_t outer_of[MOST_PERCENTS], inner_of[MOST_PERCENTS], share_count = 0;
    double length = 1;
    *one = (bootstrap){.samples = samples, .count = count, .percent_count = percent_count};
    if (!(one->ordered = eip_allocate_array(count, sizeof *samples)))
        return false;
    memcpy(one->ordered, samples, count * sizeof *samples);
    bench_sort(one->ordered, count);
    for (size_t p = 0; p < percent_count; p++) {
        one->percents[p] = percents[p];
        outer_of[p] = listed(shares, &share_count, percents[p]);
        inner_of[p] = listed(shares, &share_count, inner(percents[p]));
    }
    if (!look(one, shares, share_count))
        return false;
    for (size_t p = 0; p < percent_count; p++)
        length = fmax(length, shares[outer_of[p]].length);
    cut(one, length);
    for (size_t s = 0; s < share_count; s++)
        if (!scatter(one, one->ordered[bench_nearest_rank(count, shares[s].percent) - 1],
                     &shares[s].seen))
            return false;
    for (size_t p = 0; p < percent_count; p++) {
        const share *at = &shares[outer_of[p]], *in = &shares[inner_of[p]];
        one->design[p] = fmax(fmax(at->seen, at->factor), fmax(in->seen, in->factor));
        one->widen[p] = sqrt(one->design[p] / at->seen);
    }
    return true;
}

void bootstrap_end(bootstrap *one)
{
    free(one->ordered);
    one->ordered = NULL;
}

size_t bootstrap_thresholds(const bootstrap *one, size_t percent, size_t places[MOST_THRESHOLDS])
{
    double count = (double)one->count, part = one->percents[percent] / 100;
    double deviation = sqrt(count * part * (1 - part) * one->design[percent]);
    double centre = (double)bench_nearest_rank(one->count, one->percents[percent]) - 1;
    double low = fmax(0, floor(centre - SPREAD * deviation - 2));
    double high = fmin(count - 1, ceil(centre + SPREAD * deviation + 2));
    size_t tried = high - low + 1 < MOST_THRESHOLDS ? (size_t)(high - low + 1) : MOST_THRESHOLDS;
    size_t found = 0;
    double step = tried > 1 ? (high - low) / (double)(tried - 1) : 0;
    for (size_t i = 0; i < tried; i++) {
        size_t place = (size_t)rint(i && i + 1 == tried ? high : (double)i * step + low);
        if (!found || places[found - 1] != place)
            places[found++] = place;
    }
    return found;
}

/* Counts of each block at or below each threshold of any percentile. --------------------------- */

typedef struct table {
    size_t *grid; /* the thresholds' places, rising */
    int64_t *limits; /* samples up to these lie at or below each */
    size_t columns;
    /* By threshold, then by block: a column of 4,000 blocks stays near the processor while a
     * resample adds it up. One more column holds the blocks' sizes. */
    uint32_t *counts;
} table;

static int by_size(const void *left, const void *right)
{
    size_t a = *(const size_t *)left, b = *(const size_t *)right;
    return (a > b) - (a < b);
}

/* Return the number of thresholds below `place`: where it stands. */
static size_t column_of(const table *of, size_t place)
{
    size_t low = 0, high = of->columns;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (of->grid[middle] < place)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Return the first column that counts a sample; one past the thresholds where none does. */
static size_t first_column(const table *of, int64_t sample)
{
    size_t low = 0, high = of->columns;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (of->limits[middle] < sample)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void table_end(table *of)
{
    free(of->grid);
    free(of->limits);
    free(of->counts);
}

static bool table_grid(table *of, const bootstrap *one)
{
    of->grid = eip_allocate(MOST_PERCENTS * MOST_THRESHOLDS, sizeof *of->grid);
    of->limits = eip_allocate(MOST_PERCENTS * MOST_THRESHOLDS, sizeof *of->limits);
    if (!of->grid || !of->limits)
        return false;
    size_t all = 0;
    for (size_t p = 0; p < one->percent_count; p++)
        all += bootstrap_thresholds(one, p, of->grid + all);
    qsort(of->grid, all, sizeof *of->grid, by_size);
    for (size_t i = 0; i < all; i++)
        if (!of->columns || of->grid[of->columns - 1] != of->grid[i])
            of->grid[of->columns++] = of->grid[i];
    for (size_t i = 0; i < of->columns; i++) {
        /* Equal samples share the last place among them: a place before that counts none. */
        const int64_t *at = one->ordered + of->grid[i];
        bool last = of->grid[i] + 1 == one->count || at[1] > at[0];
        of->limits[i] = last ? at[0] : at[0] - 1;
    }
    return true;
}

static bool table_begin(table *of, const bootstrap *one)
{
    uint32_t *room = eip_allocate(one->parts, sizeof *room);
    if (!room || !table_grid(of, one) ||
        !(of->counts = eip_allocate((of->columns + 1) * one->parts, sizeof *of->counts))) {
        free(room);
        return false;
    }
    for (size_t i = 0; i < one->count; i++)
        of->counts[first_column(of, one->samples[i]) * one->parts + part_of(one, i)]++;
    for (size_t column = 0; column <= of->columns; column++) {
        uint32_t *counts = of->counts + column * one->parts;
        add_neighbours(one, counts, room);
        for (size_t part = 0; column && part < one->parts; part++)
            counts[part] += of->counts[(column - 1) * one->parts + part];
    }
    free(room);
    return true;
}

static uint64_t added_up(const uint32_t *column, const uint32_t *drawn, size_t blocks)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < blocks; i++)
        sum += column[drawn[i]];
    return sum;
}

bool bootstrap_draw(const bootstrap *one, int resamples, uint64_t seed, uint8_t *found)
{
    table of = {0};
    size_t *columns = eip_allocate(MOST_PERCENTS * MOST_THRESHOLDS, sizeof *columns);
    uint32_t *drawn = eip_allocate(one->blocks, sizeof *drawn);
    bool well = columns && drawn && table_begin(&of, one);
    size_t tried[MOST_PERCENTS];
    bench_random random;
    bench_random_begin(&random, seed);
    for (size_t p = 0; well && p < one->percent_count; p++) {
        size_t *own = columns + p * MOST_THRESHOLDS;
        tried[p] = bootstrap_thresholds(one, p, own);
        for (size_t i = 0; i < tried[p]; i++)
            own[i] = column_of(&of, own[i]);
    }
    for (int row = 0; well && row < resamples; row++) {
        for (size_t i = 0; i < one->blocks; i++)
            drawn[i] = bench_random_below(&random, one->parts);
        double size = (double)added_up(of.counts + of.columns * one->parts, drawn, one->blocks);
        for (size_t p = 0; p < one->percent_count; p++) {
            double rank = ceil(rint(size * (one->percents[p] / 100) * 1e6) / 1e6);
            uint64_t wanted = rank > 1 ? (uint64_t)rank : 1;
            const size_t *own = columns + p * MOST_THRESHOLDS;
            size_t low = 0, high = tried[p] - 1;
            while (low < high) {
                size_t middle = (low + high) / 2;
                if (added_up(of.counts + own[middle] * one->parts, drawn, one->blocks) >= wanted)
                    high = middle;
                else
                    low = middle + 1;
            }
            found[p * (size_t)resamples + (size_t)row] = (uint8_t)low;
        }
    }
    table_end(&of);
    free(columns);
    free(drawn);
    return well;
}
