/* SPDX-License-Identifier: Apache-2.0 */
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool refuse(eip_json *json, const char *problem)
{
    if (!json->problem)
        json->problem = problem;
    return false;
}

eip_json eip_json_begin(const char *text, size_t bytes)
{
    return (eip_json){.at = text, .end = text + bytes, .problem = NULL};
}

/* Skip blanks; return the next byte without taking it, or 0 at the end. */
static char peek(eip_json *json)
{
    while (json->at < json->end &&
           (*json->at == ' ' || *json->at == '\n' || *json->at == '\r' || *json->at == '\t'))
        json->at++;
    return json->at < json->end ? *json->at : 0;
}

bool eip_json_take(eip_json *json, char wanted)
{
    if (json->problem || peek(json) != wanted)
        return false;
    json->at++;
    return true;
}

bool eip_json_done(eip_json *json)
{
    peek(json);
    if (json->at != json->end)
        return refuse(json, "something follows the end of the JSON text");
    return !json->problem;
}

bool eip_json_null(eip_json *json)
{
    if (json->problem || peek(json) != 'n' || json->end - json->at < 4 ||
        memcmp(json->at, "null", 4) != 0)
        return false;
    json->at += 4;
    return true;
}

bool eip_json_natural(eip_json *json, uint64_t *value)
{
    uint64_t sum = 0;
    peek(json);
    const char *start = json->at;
    if (json->problem)
        return false;
    for (; json->at < json->end && *json->at >= '0' && *json->at <= '9'; json->at++) {
        uint64_t digit = (uint64_t)(*json->at - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return refuse(json, "a number is above 2^64 - 1");
        sum = 10 * sum + digit;
    }
    /* A fraction or an exponent is refused by whoever takes what follows. */
    if (json->at == start || (*start == '0' && json->at - start > 1))
        return refuse(json, "a whole number is missing");
    *value = sum;
    return true;
}

/* --------------------------------------------------------------------------------- UTF-8 -- */

size_t eip_utf8(const char *at, const char *end)
{
    const unsigned char *byte = (const unsigned char *)at;
    unsigned char first = *byte;
    if (first < 0x80)
        return 1;
    if (first < 0xC2 || first > 0xF4) /* a continuation, overlong, or above U+10FFFF */
        return 0;
    size_t bytes = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if ((size_t)(end - at) < bytes)
        return 0;
    /* What the second byte may be keeps out the other overlong forms, surrogates, and the rest
     * above U+10FFFF. */
    unsigned char least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned char most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (byte[1] < least || byte[1] > most)
        return 0;
    for (size_t i = 2; i < bytes; i++)
        if ((byte[i] & 0xC0) != 0x80)
            return 0;
    return bytes;
}

bool eip_is_utf8(const char *text, size_t bytes)
{
    const char *end = text + bytes;
    while (text < end) {
        size_t step = eip_utf8(text, end);
        if (!step)
            return false;
        text += step;
    }
    return true;
}

static size_t write_utf8(uint32_t code, char *to)
{
    unsigned char text[4];
    size_t bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = bytes; i-- > 1; code >>= 6)
        text[i] = (unsigned char)(0x80 | (code & 0x3F));
    text[0] = (unsigned char)(marks[bytes] | code);
    if (to)
        memcpy(to, text, bytes);
    return bytes;
}

/* ------------------------------------------------------------------------------- strings -- */

static bool take_hex(eip_json *json, uint32_t *code)
{
    if (json->end - json->at < 4)
        return refuse(json, "a string is cut off");
    *code = 0;
    for (int i = 0; i < 4; i++) {
        char c = *json->at++;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A') + 10
                                                : 16;
        if (digit == 16)
            return refuse(json, "\\u wants four hexadecimal digits");
        *code = *code << 4 | digit;
    }
    return true;
}

/* Take what follows a backslash. */
static bool take_escape(eip_json *json, uint32_t *code)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (json->at == json->end)
        return refuse(json, "a string is cut off");
    char c = *json->at++;
    if (c != 'u') {
        const char *found = c ? strchr(letters, c) : NULL;
        if (!found)
            return refuse(json, "a backslash stands before what needs none");
        *code = (unsigned char)meant[found - letters];
        return true;
    }
    uint32_t low;
    if (!take_hex(json, code))
        return false;
    if (*code < 0xD800 || *code > 0xDFFF)
        return true;
    bool pair = *code < 0xDC00 && json->end - json->at >= 2 && json->at[0] == '\\' &&
                json->at[1] == 'u';
    json->at += pair ? 2 : 0;
    if (!pair || !take_hex(json, &low) || low < 0xDC00 || low > 0xDFFF)
        return refuse(json, "half of a surrogate pair is no character");
    *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
    return true;
}

bool eip_json_decode(eip_json *json, char *to, size_t *bytes)
{
    size_t sum = 0;
    if (!eip_json_take(json, '"'))
        return refuse(json, "a string is missing");
    while (json->at < json->end && *json->at != '"') {
        const char *run = json->at;
        while (json->at < json->end && *json->at >= 0x20 && *json->at < 0x7F &&
               *json->at != '"' && *json->at != '\\')
            json->at++;
        size_t step = (size_t)(json->at - run);
        if (!step && *run == '\\') {
            uint32_t code;
            json->at++;
            if (!take_escape(json, &code))
                return false;
            sum += write_utf8(code, to ? to + sum : NULL);
            continue;
        }
        if (!step) {
            step = eip_utf8(run, json->end);
            if (!step)
                return refuse(json, "a string is not UTF-8");
            if (step == 1 && *run < 0x20)
                return refuse(json, "a string holds a control character");
            json->at += step;
        }
        if (to)
            memcpy(to + sum, run, step);
        sum += step;
    }
    if (json->at == json->end)
        return refuse(json, "a string is cut off");
    json->at++;
    *bytes = sum;
    return true;
}

bool eip_json_string(eip_json *json, char **text, size_t *bytes, bool *out_of_memory)
{
    /* Twice, so that no more is allocated than the string needs. */
    eip_json ahead = *json;
    *text = NULL;
    if (!eip_json_decode(&ahead, NULL, bytes)) {
        *json = ahead;
        return false;
    }
    *text = eip_allocate(*bytes + 1, 1);
    if (!*text) {
        *out_of_memory = true;
        return refuse(json, "there is not enough memory");
    }
    return eip_json_decode(json, *text, bytes);
}

/* ------------------------------------------------------------------------------- writing -- */

void eip_text_add(eip_text *text, const char *data, size_t bytes)
{
    if (text->failed)
        return;
    if (bytes >= text->capacity - text->bytes) { /* one byte is for the NUL */
        size_t capacity = 2 * text->capacity + bytes + 64;
        char *larger = capacity < bytes ? NULL : eip_allocate(capacity, 1);
        if (!larger) {
            text->failed = true;
            return;
        }
        if (text->bytes)
            memcpy(larger, text->data, text->bytes);
        free(text->data);
        text->data = larger;
        text->capacity = capacity;
    }
    memcpy(text->data + text->bytes, data, bytes);
    text->bytes += bytes;
    text->data[text->bytes] = 0;
}

void eip_text_add_json(eip_text *text, const char *value)
{
    static const char letters[] = "\"\\\b\f\n\r\t", escapes[] = "\"\\bfnrt";
    eip_text_add(text, "\"", 1);
    while (*value) {
        const char *plain = value;
        while ((unsigned char)*value >= 0x20 && *value != '"' && *value != '\\')
            value++;
        eip_text_add(text, plain, (size_t)(value - plain));
        if (!*value)
            break;
        char escape[8];
        const char *found = strchr(letters, *value);
        if (found)
            snprintf(escape, sizeof escape, "\\%c", escapes[found - letters]);
        else
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)(unsigned char)*value);
        eip_text_add(text, escape, strlen(escape));
        value++;
    }
    eip_text_add(text, "\"", 1);
}
