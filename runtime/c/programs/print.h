/* SPDX-License-Identifier: Apache-2.0 */
/* What programs print: text that a terminal can show, and JSON as Python's json.dumps writes it. */
#ifndef PROGRAMS_PRINT_H
#define PROGRAMS_PRINT_H

#include <stddef.h>
#include <stdio.h>

/* Print text; bytes that are no UTF-8 become \udcXX, as Python shows them. */
void print_text(FILE *file, const char *text);

/* Print text in quotes as Python's repr does: 'apple', "it's", with escapes for what can't be
 * seen. */
void print_quoted(FILE *file, const char *text);

/* Print text as a JSON string. Where all is UTF-8 letters stay letters, else (a file name of other
 * bytes) all of it is ASCII: a byte becomes \udcXX. */
void print_json_text(FILE *file, const char *text);

/* Print a member of an object whose value is text: "key": "text". */
void print_json_member(FILE *file, const char *key, const char *text);

/* Print a number: the shortest decimal that reads back as the same double, 0.5 or 1e-05. */
void print_json_number(FILE *file, double value);

#endif
