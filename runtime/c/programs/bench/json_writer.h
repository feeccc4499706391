/* SPDX-License-Identifier: Apache-2.0 */
/* A writer of JSON, in memory: a report is written whole or not at all. */
#ifndef BENCH_JSON_WRITER_H
#define BENCH_JSON_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_JSON_DEEPEST 16

typedef struct bench_json {
    char *data; /* to be freed with bench_json_clear */
    size_t bytes;
    size_t capacity;
    bool failed; /* an allocation failed; what follows is ignored */
    int depth;
    bool follows[BENCH_JSON_DEEPEST]; /* something stands before, at each depth */
    bool keyed;                 /* a key stands before the value */
} bench_json;

/* Open and close an object or an array, '{' and '}' or '[' and ']'. */
void bench_json_open(bench_json *json, char bracket);
void bench_json_close(bench_json *json, char bracket);

/* Write a key of an object; its value must follow. */
void bench_json_key(bench_json *json, const char *key);

/* Write a value. Text NULL, and a number that is not finite, is null. Bytes that are no UTF-8 are
 * written as Python's backslashreplace does: \xff. */
void bench_json_text(bench_json *json, const char *text);
/* Return how many characters a reader of that will see. */
size_t bench_json_characters(const char *text);
void bench_json_whole(bench_json *json, int64_t value);
/* The shortest text that reads as this very number, with a point or an exponent, as Python's. */
void bench_json_number(bench_json *json, double value);
void bench_json_bool(bench_json *json, bool value);
void bench_json_null(bench_json *json);

/* Write a key and its value. */
void bench_json_key_text(bench_json *json, const char *key, const char *text);
void bench_json_key_whole(bench_json *json, const char *key, int64_t value);
void bench_json_key_number(bench_json *json, const char *key, double value);
void bench_json_key_bool(bench_json *json, const char *key, bool value);
void bench_json_key_null(bench_json *json, const char *key);
void bench_json_key_wholes(bench_json *json, const char *key, const int64_t *values, size_t count);
void bench_json_key_numbers(bench_json *json, const char *key, const double *values, size_t count);

/* Add bytes as they are, such as a line's end behind it all. */
void bench_json_raw(bench_json *json, const char *bytes, size_t count);

void bench_json_clear(bench_json *json);

#endif
