/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic on rows. Sums are taken in numpy's order, so that C and Python round alike. */
#ifndef EIP_NUMBERS_H
#define EIP_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>

/* Whether none of these float32 is NaN or infinite; they may lie at any address. */
bool eip_finite(const void *values, size_t count);

/* Sum of values, of their squares, of a * b, of the squares of a - b, of |a - b|. */
double eip_sum(const double *values, size_t count);
double eip_sum_squares(const double *values, size_t count);
double eip_dot(const double *a, const double *b, size_t count);
double eip_square_gap(const double *a, const double *b, size_t count);
double eip_absolute_gap(const double *a, const double *b, size_t count);

/* Add a row to another, entry by entry. */
void eip_add_row(double *sums, const double *row, size_t count);

/* Divide a row by its L2 norm, or by EIP_EPSILON where that is greater; returns the norm. */
double eip_make_unit(double *row, size_t count);

/* Copy float32 as float64 and back. */
void eip_widen(const float *from, size_t count, double *to);
void eip_narrow(const double *from, size_t count, float *to);

/* Write `count` rows of `width` numbers as columns: the next number of a row comes `stride` behind
 * the one before. */
void eip_transpose(const float *const *from, size_t count, size_t width, float *to,
                   size_t stride);

/* Product: (count, depth) rows by a (depth, width) matrix. */
void eip_multiply(const double *rows, size_t count, size_t depth, const float *matrix,
                  size_t width, double *product);

#endif
