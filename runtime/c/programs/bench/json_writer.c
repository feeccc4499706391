/* SPDX-License-Identifier: Apache-2.0 */
#include "json_writer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

void bench_json_raw(bench_json *json, const char *bytes, size_t count)
{
    if (json->failed)
        return;
    if (count > json->capacity - json->bytes) {
        size_t wanted = json->capacity ? json->capacity : 4096;
        while (wanted - json->bytes < count && wanted <= SIZE_MAX / 2)
            wanted *= 2;
        char *larger = wanted - json->bytes < count ? NULL : realloc(json->data, wanted);
        if (!larger) {
            json->failed = true;
            return;
        }
        json->data = larger;
        json->capacity = wanted;
    }
    memcpy(json->data + json->bytes, bytes, count);
    json->bytes += count;
}

static void raw_text(bench_json *json, const char *text)
{
    bench_json_raw(json, text, strlen(text));
}

/* What stands before a value or a key: a comma, unless it is the first or has its key. */
static void separate(bench_json *json)
{
    if (json->keyed)
        json->keyed = false;
    else if (json->follows[json->depth])
        bench_json_raw(json, ", ", 2);
    json->follows[json->depth] = true;
}

void bench_json_open(bench_json *json, char bracket)
{
    separate(json);
    bench_json_raw(json, &bracket, 1);
    if (json->depth + 1 < BENCH_JSON_DEEPEST)
        json->depth++;
    else
        json->failed = true;
    json->follows[json->depth] = false;
}

void bench_json_close(bench_json *json, char bracket)
{
    if (json->depth > 0)
        json->depth--;
    bench_json_raw(json, &bracket, 1);
}

/* ---------------------------------------------------------------------------------- text -- */

static void quoted(bench_json *json, const char *text)
{
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *end = text + strlen(text);
    bench_json_raw(json, "\"", 1);
    while (text < end) {
        size_t length = eip_utf8(text, end);
        const char *special = length == 1 ? strchr(plain, *text) : NULL;
        char shown[8];
        if (special) {
            char pair[2] = {'\\', letters[special - plain]};
            bench_json_raw(json, pair, 2);
        } else if (!length) { /* the backslash that replaces it is itself escaped */
            snprintf(shown, sizeof shown, "\\\\x%02x", (unsigned char)*text);
            raw_text(json, shown);
        } else if ((unsigned char)*text < 0x20) {
            snprintf(shown, sizeof shown, "\\u%04x", (unsigned char)*text);
            raw_text(json, shown);
        } else {
            bench_json_raw(json, text, length);
        }
        text += length ? length : 1;
    }
    bench_json_raw(json, "\"", 1);
}

size_t bench_json_characters(const char *text)
{
    const char *end = text + strlen(text);
    size_t count = 0;
    while (text < end) {
        size_t length = eip_utf8(text, end);
        count += length ? 1 : strlen("\\xff");
        text += length ? length : 1;
    }
    return count;
}

void bench_json_key(bench_json *json, const char *key)
{
    separate(json);
    quoted(json, key);
    bench_json_raw(json, ": ", 2);
    json->keyed = true;
}

void bench_json_text(bench_json *json, const char *text)
{
    if (!text) {
        bench_json_null(json);
        return;
    }
    separate(json);
    quoted(json, text);
}

/* ------------------------------------------------------------------------------- numbers -- */

void bench_json_whole(bench_json *json, int64_t value)
{
    char digits[24], *at = digits + sizeof digits;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (value < 0)
        *--at = '-';
    separate(json);
    bench_json_raw(json, at, (size_t)(digits + sizeof digits - at));
}

void bench_json_number(bench_json *json, double value)
{
    if (!isfinite(value)) {
        bench_json_null(json);
        return;
    }
    char shown[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(shown, sizeof shown, "%.*g", digits, value);
        if (strtod(shown, NULL) == value)
            break;
    }
    if (!strpbrk(shown, ".e"))
        strcat(shown, ".0");
    separate(json);
    raw_text(json, shown);
}

void bench_json_bool(bench_json *json, bool value)
{
    separate(json);
    raw_text(json, value ? "true" : "false");
}

void bench_json_null(bench_json *json)
{
    separate(json);
    raw_text(json, "null");
}

/* --------------------------------------------------------------------------------- pairs -- */

void bench_json_key_text(bench_json *json, const char *key, const char *text)
{
    bench_json_key(json, key);
    bench_json_text(json, text);
}

void bench_json_key_whole(bench_json *json, const char *key, int64_t value)
{
    bench_json_key(json, key);
    bench_json_whole(json, value);
}

void bench_json_key_number(bench_json *json, const char *key, double value)
{
    bench_json_key(json, key);
    bench_json_number(json, value);
}

void bench_json_key_bool(bench_json *json, const char *key, bool value)
{
    bench_json_key(json, key);
    bench_json_bool(json, value);
}

void bench_json_key_null(bench_json *json, const char *key)
{
    bench_json_key(json, key);
    bench_json_null(json);
}

void bench_json_key_wholes(bench_json *json, const char *key, const int64_t *values, size_t count)
{
    bench_json_key(json, key);
    bench_json_open(json, '[');
    for (size_t i = 0; i < count; i++)
        bench_json_whole(json, values[i]);
    bench_json_close(json, ']');
}

void bench_json_key_numbers(bench_json *json, const char *key, const double *values, size_t count)
{
    bench_json_key(json, key);
    bench_json_open(json, '[');
    for (size_t i = 0; i < count; i++)
        bench_json_number(json, values[i]);
    bench_json_close(json, ']');
}

void bench_json_clear(bench_json *json)
{
    free(json->data);
    *json = (bench_json){0};
}
