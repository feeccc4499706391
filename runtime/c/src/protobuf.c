/* SPDX-License-Identifier: Apache-2.0 */
#include "protobuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

#define MAX_FIELDS 5000000
#define MAX_NUMBER 0x1fffffffU /* of a field: 2^29 - 1 */
#define SHOWN_LETTERS 80

static const char cut_off[] = "it is cut off, or no protobuf message";

eip_wire eip_wire_begin(const void *data, size_t bytes, const char *where)
{
    return (eip_wire){.data = data, .bytes = bytes, .where = where};
}

void eip_wire_broken(eip_wire *wire, const char *reason)
{
    wire->status =
        eip_fail(EI_MODEL_FILE, "%s is not an ONNX model: %s", wire->where, reason);
}

void eip_wire_unsafe(eip_wire *wire, const char *format, ...)
{
    char text[EIP_MAX_ERROR];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    wire->status = eip_fail(EI_UNSAFE_MODEL, "%s %s", wire->where, text);
}

static bool count_field(eip_wire *wire)
{
    if (++wire->fields <= MAX_FIELDS)
        return true;
    eip_wire_unsafe(wire, "has more than 5,000,000 parts beside its weights; use a smaller model");
    return false;
}

/* Read a number of 1 to 10 bytes. */
static bool varint(eip_wire *wire, eip_span *message, uint64_t *value)
{
    uint64_t found = 0;
    for (unsigned shift = 0; shift < 70 && message->begin < message->end; shift += 7) {
        uint64_t byte = wire->data[message->begin++];
        found |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = found;
            return true;
        }
    }
    eip_wire_broken(wire, cut_off);
    return false;
}

/* Take so many bytes of a message. */
static bool take(eip_wire *wire, eip_span *message, uint64_t bytes)
{
    if (bytes > message->end - message->begin) {
        eip_wire_broken(wire, cut_off);
        return false;
    }
    message->begin += (size_t)bytes;
    return true;
}

bool eip_wire_next(eip_wire *wire, eip_span *message, eip_field *field)
{
    uint64_t key, bytes;
    if (wire->status || message->begin >= message->end)
        return false;
    if (!count_field(wire) || !varint(wire, message, &key))
        return false;
    field->kind = (int)(key & 7);
    /* Larger ones would be cut to 32 bits by protobuf, and be another field there. */
    if (key >> 3 == 0 || key >> 3 > MAX_NUMBER) {
        eip_wire_broken(wire, cut_off);
        return false;
    }
    field->number = (uint32_t)(key >> 3);
    switch (field->kind) {
    case EIP_LENGTH:
        if (!varint(wire, message, &bytes))
            return false;
        field->span.begin = message->begin;
        if (!take(wire, message, bytes))
            return false;
        field->span.end = message->begin;
        return true;
    case EIP_VARINT:
        return varint(wire, message, &field->value);
    case EIP_FIXED64:
        return take(wire, message, 8);
    case EIP_FIXED32:
        return take(wire, message, 4);
    default:
        eip_wire_broken(wire, "it is no protobuf message");
        return false;
    }
}

bool eip_wire_again(eip_wire *wire, eip_span *message, eip_field *field)
{
    size_t fields = wire->fields;
    wire->fields = 0;
    bool found = eip_wire_next(wire, message, field);
    wire->fields = fields;
    return found;
}

bool eip_wire_packed(eip_wire *wire, eip_span *numbers, uint64_t *value)
{
    if (wire->status || numbers->begin >= numbers->end)
        return false;
    return varint(wire, numbers, value) && count_field(wire);
}

/* Return how many bytes the letter has with which a stretch begins, 0 where it is none. */
static size_t letter_bytes(const eip_wire *wire, eip_span span)
{
    const char *text = (const char *)wire->data;
    return eip_utf8(text + span.begin, text + span.end);
}

bool eip_wire_is_text(eip_wire *wire, eip_span span)
{
    while (span.begin < span.end) {
        size_t bytes = letter_bytes(wire, span);
        if (!bytes) {
            eip_wire_broken(wire, "a name in it is not UTF-8 text");
            return false;
        }
        span.begin += bytes;
    }
    return true;
}

bool eip_wire_equals(const eip_wire *wire, eip_span span, const char *text)
{
    size_t bytes = strlen(text);
    return span.end - span.begin == bytes && !memcmp(wire->data + span.begin, text, bytes);
}

const char *eip_wire_show(const eip_wire *wire, eip_span span, char shown[EIP_SHOWN_BYTES])
{
    size_t written = 0;
    for (int i = 0; i < SHOWN_LETTERS && span.begin < span.end; i++) {
        const uint8_t *letter = wire->data + span.begin;
        size_t bytes = letter_bytes(wire, span);
        if (bytes > 1)
            memcpy(shown + written, letter, bytes);
        else
            shown[written] = bytes && *letter >= ' ' && *letter != 0x7f ? (char)*letter : '?';
        written += bytes ? bytes : 1;
        span.begin += bytes ? bytes : 1;
    }
    shown[written] = 0;
    return shown;
}
