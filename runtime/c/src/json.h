/* SPDX-License-Identifier: Apache-2.0 */
/* A strict reader of JSON (RFC 8259), as far as a head file's header and a contract's labels need
 * it: it walks the text where it lies and allocates nothing but the strings that are asked for.
 * It has no recursion: callers take what they expect, and anything else is refused. */
#ifndef EIP_JSON_H
#define EIP_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

/* Where a reading stands. `problem` is NULL as long as all was well, else what was wrong, in
 * words; from then on every function fails. */
typedef struct eip_json {
    const char *at;
    const char *end;
    const char *problem;
} eip_json;

eip_json eip_json_begin(const char *text, size_t bytes);

/* Take one of the bytes {}[]:, after blanks; false: another stands there. */
bool eip_json_take(eip_json *json, char wanted);

/* Take a string. *text becomes it: decoded (escapes, surrogate pairs), NUL-terminated UTF-8, to be
 * freed; NULL after a failure. Invalid UTF-8, control bytes and lone surrogates are refused.
 * U+0000 is not: *bytes tells the length, for who wants none. *out_of_memory becomes true where
 * an allocation failed. */
bool eip_json_string(eip_json *json, char **text, size_t *bytes, bool *out_of_memory);

/* The same into memory of the caller, without NUL. NULL: it is checked and measured only. */
bool eip_json_decode(eip_json *json, char *to, size_t *bytes);

/* Take a whole number from 0 to 2^64 - 1: digits only, no sign, no leading zero. */
bool eip_json_natural(eip_json *json, uint64_t *value);

/* Take the word `null`; false: something else stands there. */
bool eip_json_null(eip_json *json);

/* Take the end: nothing but blanks may follow. */
bool eip_json_done(eip_json *json);

/* Return the length of the UTF-8 character at `at`, 1 to 4 bytes; 0: there is none. */
size_t eip_utf8(const char *at, const char *end);

/* Whether text is UTF-8 throughout. */
bool eip_is_utf8(const char *text, size_t bytes);

/* Text that is written piece by piece. */
typedef struct eip_text {
    char *data; /* to be freed */
    size_t bytes;
    size_t capacity;
    bool failed; /* an allocation failed; what follows is ignored */
} eip_text;

void eip_text_add(eip_text *text, const char *data, size_t bytes);

/* Add a string in quotes, escaped as Python's json.dumps(..., ensure_ascii=False) does. */
void eip_text_add_json(eip_text *text, const char *value);

#endif
