/* SPDX-License-Identifier: Apache-2.0 */
/* How far neighbours resemble each other: the automatic rule of Politis and White (2004), with the
 * correction of Patton, Politis and White (2009), for the circular bootstrap.
 *
 * The correlations come from the power spectrum (a fast Fourier transform), in a time that grows
 * with the number of samples and not with that of the lags. */
#include <math.h>
#include <stdlib.h>

#include "blocks.h"
#include "errors.h"
#include "statistics.h"

#define PI 3.14159265358979323846

/* So many points are transformed in a loop; more are halved first, so that what is worked on stays
 * near the processor. */
#define FEW_POINTS 1024

double pairwise_sum(const double *values, size_t count)
{
    if (count > 128) {
        size_t half = count / 2 - count / 2 % 8;
        return pairwise_sum(values, half) + pairwise_sum(values + half, count - half);
    }
    double sums[8] = {0}, sum = 0;
    size_t at = 0;
    for (; at + 8 <= count; at += 8)
        for (size_t i = 0; i < 8; i++)
            sums[i] += values[at + i];
    sum = sums[0] + sums[1] + (sums[2] + sums[3]) + (sums[4] + sums[5] + (sums[6] + sums[7]));
    for (; at < count; at++)
        sum += values[at];
    return sum;
}

typedef struct complex_number {
    double real;
    double imaginary;
} complex_number;

/* One transform. Values are the coefficients of a polynomial, and blocks of them its remainders by
 * z^count - c: a block is halved into the remainders by z^(count / 2) - sqrt(c) and + sqrt(c). So
 * each block has one turn, sqrt(c), which is e^(-i PI v) with v the block's number as a fraction of
 * reversed bits: 0, 1/2, 1/4, 3/4, 1/8, ... */
typedef struct transform {
    size_t points; /* complex: two real values each; a power of two, 4 at least */
    const complex_number *turns; /* those of even blocks; an odd one's is a quarter further */
} transform;

static complex_number turn_of(const transform *of, size_t block)
{
    complex_number even = of->turns[block / 2];
    return block % 2 ? (complex_number){even.imaginary, -even.real} : even;
}

static void halve(complex_number *at, size_t half, complex_number turn)
{
    for (complex_number *a = at, *b = at + half, *end = b; a < end; a++, b++) {
        double real = b->real * turn.real - b->imaginary * turn.imaginary;
        double imaginary = b->real * turn.imaginary + b->imaginary * turn.real;
        *b = (complex_number){a->real - real, a->imaginary - imaginary};
        *a = (complex_number){a->real + real, a->imaginary + imaginary};
    }
}

/* The way back. */
static void join(complex_number *at, size_t half, complex_number turn)
{
    for (complex_number *a = at, *b = at + half, *end = b; a < end; a++, b++) {
        double real = a->real - b->real, imaginary = a->imaginary - b->imaginary;
        *a = (complex_number){a->real + b->real, a->imaginary + b->imaginary};
        *b = (complex_number){real * turn.real + imaginary * turn.imaginary,
                              imaginary * turn.real - real * turn.imaginary};
    }
}

/* Transform a block in place; what comes out lies in the order of reversed bits. */
static void forward(const transform *of, complex_number *at, size_t count, size_t block)
{
    if (count > FEW_POINTS) {
        halve(at, count / 2, turn_of(of, block));
        forward(of, at, count / 2, 2 * block);
        forward(of, at + count / 2, count / 2, 2 * block + 1);
        return;
    }
    for (size_t size = count; size > 1; size /= 2)
        for (size_t i = 0; i < count / size; i++)
            halve(at + i * size, size / 2, turn_of(of, block * (count / size) + i));
}

/* Transform back, from the order of reversed bits; the result is `points` times too large. */
static void back(const transform *of, complex_number *at, size_t count, size_t block)
{
    if (count > FEW_POINTS) {
        back(of, at, count / 2, 2 * block);
        back(of, at + count / 2, count / 2, 2 * block + 1);
        join(at, count / 2, turn_of(of, block));
        return;
    }
    for (size_t size = 2; size <= count; size *= 2)
        for (size_t i = 0; i < count / size; i++)
            join(at + i * size, size / 2, turn_of(of, block * (count / size) + i));
}

/* Replace the transform of values, two of them in a point, by that of their covariances in the same
 * form. The spectrum of the real series is E + T at a frequency, and the conjugate of E - T at its
 * mirror, with E the even values' transform and T that of the odd ones, turned. */
static void square(const transform *of, complex_number *at)
{
    double sum = at[0].real + at[0].imaginary, difference = at[0].real - at[0].imaginary;
    at[0] = (complex_number){sum * sum + difference * difference,
                             sum * sum - difference * difference};
    for (size_t i = 1, first = 1; i < of->points; i++) {
        if (i == 2 * first)
            first = i;
        /* In that order, a frequency's mirror lies mirrored between two powers of two. */
        size_t mirror = 3 * first - 1 - i;
        if (mirror < i)
            continue;
        complex_number a = at[i], b = at[mirror], turn = turn_of(of, i);
        complex_number even = {(a.real + b.real) / 2, (a.imaginary - b.imaginary) / 2};
        complex_number odd = {(a.imaginary + b.imaginary) / 2, (b.real - a.real) / 2};
        double t_real = odd.real * turn.real - odd.imaginary * turn.imaginary;
        double t_imaginary = odd.real * turn.imaginary + odd.imaginary * turn.real;
        double plus = (even.real + t_real) * (even.real + t_real) +
                      (even.imaginary + t_imaginary) * (even.imaginary + t_imaginary);
        double minus = (even.real - t_real) * (even.real - t_real) +
                       (even.imaginary - t_imaginary) * (even.imaginary - t_imaginary);
        double both = plus + minus, gap = plus - minus;
        at[i] = (complex_number){both + gap * turn.imaginary, gap * turn.real};
        at[mirror] = (complex_number){both - gap * turn.imaginary, gap * turn.real};
    }
}

/* Replace (count) values with mean 0 by their covariances, by lag, up to a factor. */
static bool covariances(const double *values, size_t count, double **found)
{
    size_t points = 4, reversed = 0;
    while (2 * points < 2 * count - 1)
        points *= 2;
    complex_number *at = eip_allocate(points, sizeof *at);
    complex_number *turns = eip_allocate_array(points / 2, sizeof *turns);
    *found = (double *)at;
    if (!at || !turns) {
        free(turns);
        return false;
    }
    for (size_t i = 0; i < points / 2; i++) {
        double angle = PI * (double)reversed / (double)points;
        turns[i] = (complex_number){cos(angle), -sin(angle)};
        size_t bit = points / 4; /* the next number of reversed bits */
        for (; bit & reversed; bit /= 2)
            reversed ^= bit;
        reversed |= bit;
    }
    for (size_t i = 0; i < count; i++)
        (*found)[i] = values[i];
    const transform of = {points, turns};
    forward(&of, at, points, 0);
    square(&of, at);
    back(&of, at, points, 0);
    free(turns);
    return true;
}

/* Return the last lag before the first stretch of correlations that are no more than noise. */
static size_t last_lag(const double *correlation, size_t longest, double count)
{
    double noise = 2 * sqrt(log10(count) / count);
    size_t stretch = (size_t)fmax(5, ceil(sqrt(log10(count))));
    size_t small = 0;
    for (size_t lag = 1; lag <= longest; lag++) {
        small = fabs(correlation[lag]) < noise ? small + 1 : 0;
        if (small == stretch)
            return lag - stretch;
    }
    return longest / 2;
}

/* Fill in length and factor from the correlations by lag. */
static void judge_lags(const double *correlation, size_t longest, double count, double *length,
                       double *factor)
{
    size_t last = last_lag(correlation, longest, count);
    /* So few samples as 30 hide much likeness in that noise: what the next neighbour alone shows
     * is the least, its bias (Kendall 1954) taken out. */
    double next = correlation[1] + (1 + 3 * correlation[1]) / count;
    next = fmin(fmax(next, 0), 0.95);
    double least = (1 + next) / (1 - next), sum = 0, slope = 0;
    *factor = least;
    size_t end = 2 * last < longest ? 2 * last : longest;
    for (size_t lag = 1; lag <= end; lag++) {
        /* Flat, then down to zero. */
        double window = fmin(1, 2 * (1 - (double)lag / (double)(2 * last)));
        sum += window * correlation[lag];
        slope += (double)lag * (window * correlation[lag]);
    }
    double long_run = 1 + 2 * sum;
    if (!last || long_run <= 0)
        return;
    double ratio = 2 * slope / long_run;
    *length = fmax(1, pow(1.5 * (ratio * ratio) * count, 1.0 / 3));
    *factor = fmax(least, long_run);
}

bool bench_dependence(const double *values, size_t count, double *length, double *factor)
{
    *length = *factor = 1;
    if (count < 8)
        return true;
    double *centred = eip_allocate_array(count, sizeof *centred), *found = NULL;
    double mean = pairwise_sum(values, count) / (double)count;
    bool any = false, well = centred;
    for (size_t i = 0; well && i < count; i++) {
        centred[i] = values[i] - mean;
        any |= centred[i] != 0;
    }
    if (well && any && (well = covariances(centred, count, &found))) {
        double whole = found[0];
        for (size_t lag = 0; lag <= count / 2; lag++)
            found[lag] /= whole;
        judge_lags(found, count / 2, (double)count, length, factor);
    }
    free(found);
    free(centred);
    return well;
}
