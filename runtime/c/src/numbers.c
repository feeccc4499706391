/* SPDX-License-Identifier: Apache-2.0 */
#include "numbers.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "contract.h"

/* Two numbers at once: what all amd64 and aarch64 processors can. */
typedef double pair __attribute__((vector_size(16), aligned(8), may_alias));
typedef int64_t integer_pair __attribute__((vector_size(16)));
typedef float narrow_pair __attribute__((vector_size(8), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t bits __attribute__((vector_size(16), aligned(1), may_alias));

typedef enum { VALUE, SQUARE, PRODUCT, SQUARE_GAP, ABSOLUTE_GAP } term;

/* The same by its two names: gcc before 12 has the one, clang the other. */
#if defined(__clang__)
#define SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
typedef int32_t order __attribute__((vector_size(16)));
#define SHUFFLE(x, y, i, j, k, l) __builtin_shuffle(x, y, (order){i, j, k, l})
#endif

#define LANES 8
#define LARGE ((size_t)1 << 20) /* numbers: more than a core's cache holds */
#define BLOCK 128 /* numpy's: longer rows are halved first */
#define INLINE static inline __attribute__((always_inline))

bool eip_finite(const void *values, size_t count)
{
    /* All exponent bits set: NaN or infinity. Adding one to the exponent makes the sign bit. */
    const unsigned char *at = values;
    bits found = {0}, found_too = {0};
    size_t i = 0;
    for (; i + 8 <= count; i += 8, at += 32) {
        found |= (*(const bits *)at & 0x7fffffffu) + 0x00800000u;
        found_too |= (*(const bits *)(at + 16) & 0x7fffffffu) + 0x00800000u;
    }
    found |= found_too;
    uint32_t sum = found[0] | found[1] | found[2] | found[3], last;
    for (; i < count; i++, at += sizeof last) {
        memcpy(&last, at, sizeof last);
        sum |= (last & 0x7fffffffu) + 0x00800000u;
    }
    return !(sum >> 31);
}

INLINE double one(const double *a, const double *b, term kind)
{
    if (kind == VALUE)
        return *a;
    if (kind == SQUARE)
        return *a * *a;
    if (kind == PRODUCT)
        return *a * *b;
    double gap = *a - *b;
    return kind == SQUARE_GAP ? gap * gap : fabs(gap);
}

/* Returning by pointer: passing vectors by value warns on processors that lack them. */
INLINE void two(const double *a, const double *b, term kind, pair *sum)
{
    pair x = *(const pair *)a;
    if (kind == SQUARE_GAP || kind == ABSOLUTE_GAP)
        x -= *(const pair *)b;
    if (kind == SQUARE || kind == SQUARE_GAP)
        x *= x;
    else if (kind == PRODUCT)
        x *= *(const pair *)b;
    else if (kind == ABSOLUTE_GAP)
        x = (pair)((integer_pair)x & INT64_MAX);
    *sum += x;
}

INLINE double sum_block(const double *a, const double *b, size_t count, term kind)
{
    double sum = 0;
    size_t i = 0;
    if (count >= LANES) {
        pair r0 = {0}, r1 = {0}, r2 = {0}, r3 = {0};
        for (; i + LANES <= count; i += LANES) {
            two(a + i, b + i, kind, &r0);
            two(a + i + 2, b + i + 2, kind, &r1);
            two(a + i + 4, b + i + 4, kind, &r2);
            two(a + i + 6, b + i + 6, kind, &r3);
        }
        sum = ((r0[0] + r0[1]) + (r1[0] + r1[1])) + ((r2[0] + r2[1]) + (r3[0] + r3[1]));
    }
    for (; i < count; i++)
        sum += one(a + i, b + i, kind);
    return sum;
}

static double sum_terms(const double *a, const double *b, size_t count, term kind)
{
    if (count > BLOCK) {
        size_t half = count / 2 - count / 2 % LANES;
        return sum_terms(a, b, half, kind) +
               sum_terms(a + half, b + half, count - half, kind);
    }
    switch (kind) {
    case VALUE:
        return sum_block(a, b, count, VALUE);
    case SQUARE:
        return sum_block(a, b, count, SQUARE);
    case PRODUCT:
        return sum_block(a, b, count, PRODUCT);
    case SQUARE_GAP:
        return sum_block(a, b, count, SQUARE_GAP);
    default:
        return sum_block(a, b, count, ABSOLUTE_GAP);
    }
}

double eip_sum(const double *values, size_t count)
{
    return sum_terms(values, values, count, VALUE);
}

double eip_sum_squares(const double *values, size_t count)
{
    return sum_terms(values, values, count, SQUARE);
}

double eip_dot(const double *a, const double *b, size_t count)
{
    return sum_terms(a, b, count, PRODUCT);
}

double eip_square_gap(const double *a, const double *b, size_t count)
{
    return sum_terms(a, b, count, SQUARE_GAP);
}

double eip_absolute_gap(const double *a, const double *b, size_t count)
{
    return sum_terms(a, b, count, ABSOLUTE_GAP);
}

void eip_add_row(double *sums, const double *row, size_t count)
{
    size_t i = 0;
    for (; i + 2 <= count; i += 2)
        *(pair *)(sums + i) += *(const pair *)(row + i);
    if (i < count)
        sums[i] += row[i];
}

double eip_make_unit(double *row, size_t count)
{
    double norm = sqrt(eip_sum_squares(row, count));
    double divisor = norm > EIP_EPSILON ? norm : EIP_EPSILON;
    for (size_t i = 0; i < count; i++)
        row[i] /= divisor;
    return norm;
}

void eip_widen(const float *from, size_t count, double *to)
{
    size_t i = 0;
    for (; i + 2 <= count; i += 2)
        *(pair *)(to + i) = __builtin_convertvector(*(const narrow_pair *)(from + i), pair);
    if (i < count)
        to[i] = from[i];
}

void eip_narrow(const double *from, size_t count, float *to)
{
    size_t i = 0;
    for (; i + 2 <= count; i += 2)
        *(narrow_pair *)(to + i) =
            __builtin_convertvector(*(const pair *)(from + i), narrow_pair);
    if (i < count)
        to[i] = (float)from[i];
}

/* Past the caches, which large arrays would only sweep; `to` is a multiple of 16 bytes. */
INLINE void store(float *to, quad values, bool streamed)
{
#ifdef __SSE2__
    if (streamed) {
        _mm_stream_ps(to, (__m128)values);
        return;
    }
#endif
    (void)streamed;
    *(quad *)to = values;
}

/* Four by four numbers: rows of one become columns of the other. */
INLINE void turn(const float *const *from, size_t at, float *to, size_t stride, bool streamed)
{
    quad a = *(const quad *)(from[0] + at), b = *(const quad *)(from[1] + at);
    quad c = *(const quad *)(from[2] + at), d = *(const quad *)(from[3] + at);
    quad ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5);
    store(to, SHUFFLE(ab, cd, 0, 1, 4, 5), streamed);
    store(to + stride, SHUFFLE(ab, cd, 2, 3, 6, 7), streamed);
    ab = SHUFFLE(a, b, 2, 6, 3, 7);
    cd = SHUFFLE(c, d, 2, 6, 3, 7);
    store(to + 2 * stride, SHUFFLE(ab, cd, 0, 1, 4, 5), streamed);
    store(to + 3 * stride, SHUFFLE(ab, cd, 2, 3, 6, 7), streamed);
}

INLINE void turn_all(const float *const *from, size_t count, size_t width, float *to,
                     size_t stride, bool streamed)
{
    for (size_t e = 0; e + 4 <= width; e += 4)
        for (size_t i = 0; i + 4 <= count; i += 4)
            turn(from + i, e, to + e * stride + i, stride, streamed);
}

void eip_transpose(const float *const *from, size_t count, size_t width, float *to,
                   size_t stride)
{
    bool aligned = (uintptr_t)to % 16 == 0 && stride % 4 == 0;
    if (aligned && stride * width >= LARGE)
        turn_all(from, count, width, to, stride, true);
    else
        turn_all(from, count, width, to, stride, false);
    for (size_t i = 0; i < count; i++)
        for (size_t e = i < count - count % 4 ? width - width % 4 : 0; e < width; e++)
            to[e * stride + i] = from[i][e];
#ifdef __SSE2__
    _mm_sfence(); /* streamed stores are seen by other threads from here on */
#endif
}

/* `high` rows by 4 columns, the sums in registers. */
INLINE void tile(const double *rows, size_t high, size_t depth, const float *matrix,
                 size_t width, double *product)
{
    pair left[4] = {{0}}, right[4] = {{0}};
    for (size_t d = 0; d < depth; d++) {
        const float *entry = matrix + d * width;
        pair low = __builtin_convertvector(*(const narrow_pair *)entry, pair);
        pair upper = __builtin_convertvector(*(const narrow_pair *)(entry + 2), pair);
        for (size_t i = 0; i < high; i++) {
            left[i] += rows[i * depth + d] * low;
            right[i] += rows[i * depth + d] * upper;
        }
    }
    for (size_t i = 0; i < high; i++) {
        *(pair *)(product + i * width) = left[i];
        *(pair *)(product + i * width + 2) = right[i];
    }
}

INLINE void strip(const double *rows, size_t high, size_t depth, const float *matrix,
                  size_t width, double *product)
{
    size_t j = 0;
    for (; j + 4 <= width; j += 4)
        tile(rows, high, depth, matrix + j, width, product + j);
    for (; j < width; j++)
        for (size_t i = 0; i < high; i++) {
            double sum = 0;
            for (size_t d = 0; d < depth; d++)
                sum += rows[i * depth + d] * matrix[d * width + j];
            product[i * width + j] = sum;
        }
}

void eip_multiply(const double *rows, size_t count, size_t depth, const float *matrix,
                  size_t width, double *product)
{
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        strip(rows + i * depth, 4, depth, matrix, width, product + i * width);
    for (; i < count; i++)
        strip(rows + i * depth, 1, depth, matrix, width, product + i * width);
}
