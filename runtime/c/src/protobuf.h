/* SPDX-License-Identifier: Apache-2.0 */
/* Protobuf's wire format, read in place and with a limit to how much there may be; as
 * `edge_imprint_runtime.protobuf`. */
#ifndef EIP_PROTOBUF_H
#define EIP_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

/* How a field's value is written. */
enum { EIP_VARINT = 0, EIP_FIXED64 = 1, EIP_LENGTH = 2, EIP_FIXED32 = 5 };

/* A stretch of the file, from its first byte to the one behind its last. */
typedef struct eip_span {
    size_t begin, end;
} eip_span;

typedef struct eip_field {
    uint32_t number;
    int kind;
    uint64_t value; /* of EIP_VARINT */
    eip_span span;  /* of EIP_LENGTH */
} eip_field;

/* A file's bytes as protobuf messages. Once `status` is not EI_OK, every reading ends. */
typedef struct eip_wire {
    const uint8_t *data;
    size_t bytes;
    const char *where; /* its name, for messages */
    size_t fields;     /* that were read, of a limited number */
    ei_status status;
} eip_wire;

eip_wire eip_wire_begin(const void *data, size_t bytes, const char *where);

/* Read the next field of a message; `message->begin` moves on. False at its end, and after a
 * failure, which `wire->status` tells from the end. */
bool eip_wire_next(eip_wire *wire, eip_span *message, eip_field *field);

/* The same of a message that was read before, whose fields were counted then. */
bool eip_wire_again(eip_wire *wire, eip_span *message, eip_field *field);

/* Read the next of packed numbers. */
bool eip_wire_packed(eip_wire *wire, eip_span *numbers, uint64_t *value);

/* Whether a stretch is UTF-8; if not, that is the failure. */
bool eip_wire_is_text(eip_wire *wire, eip_span span);

/* Whether a stretch is just this text. */
bool eip_wire_equals(const eip_wire *wire, eip_span span, const char *text);

/* Copy a stretch for a message: cut after 80 letters, control bytes as '?'. */
#define EIP_SHOWN_BYTES 324
const char *eip_wire_show(const eip_wire *wire, eip_span span, char shown[EIP_SHOWN_BYTES]);

/* Set the failure of a file that is no ONNX model, or of one that no library should open. */
void eip_wire_broken(eip_wire *wire, const char *reason);
void eip_wire_unsafe(eip_wire *wire, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
