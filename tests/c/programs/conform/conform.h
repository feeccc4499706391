/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of conform share. */
#ifndef CONFORM_H
#define CONFORM_H

#include <stdbool.h>
#include <stddef.h>

#include "edge_imprint.h"

typedef struct {
    char *text; /* NUL-terminated, and may hold NULs */
    size_t bytes;
} field;

extern ei_model *model;       /* the one that was opened last, or NULL */
extern ei_predictions *found; /* used again from line to line, and from model to model */

/* Report that a line came out otherwise; returns false. */
bool wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Compare a status with a name; whether they are the same. */
bool expect(ei_status status, const char *wanted);

/* Read a number with a decimal point, whatever the locale. */
double number(const char *text);

/* Compare numbers, relative to those wanted where these are above one. */
bool near(const float *got, const float *wanted, size_t count, double tolerance,
          const char *what);

/* Return memory, or end the program. */
void *must(void *memory);

/* Read a file of the vectors into memory of just its size, so that a sanitizer sees what reads
 * behind it. */
void *read_vector(const char *name, size_t *bytes);

/* The lines of that name; f are the fields behind it. */
void do_predict(const field *f);
void do_refuse(const field *f);
void do_embed(const field *f, size_t fields);
void do_prepare(const field *f);

#endif
