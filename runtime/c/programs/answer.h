/* SPDX-License-Identifier: Apache-2.0 */
/* How an answer is printed: a line for people, or the JSON object of `edge-imprint predict`. */
#ifndef PROGRAMS_ANSWER_H
#define PROGRAMS_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "edge_imprint.h"

/* What an answer is of: a file, or the frame of that number. */
typedef struct answer_of {
    const char *path; /* NULL: a frame */
    int64_t frame;
} answer_of;

/* Print the answer for the first image of `found` as one line on stdout.
 *
 *   top  how many of the nearest classes are listed; 0: the nearest alone, as Python prints it */
void answer_print(answer_of of, const ei_predictions *found, bool json, int64_t top);

/* Print, as JSON on stdout, that there is no answer. */
void answer_print_error(const char *path, const char *message);

/* Give what was printed to the reader. Returns whether it could; prints why not. */
bool answer_flush(void);

#endif
