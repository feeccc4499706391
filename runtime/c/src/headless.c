/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* qsort_r */
#include <stdlib.h>
#include <string.h>

#include "onnx_scan.h"
#include "protobuf.h"

#define EMBEDDING "embedding"
#define MAX_DEPTH 16 /* graphs within graphs; eip_onnx_scan refuses deeper ones */

/* Numbers of the fields of onnx.proto that are looked at. */
enum { MODEL_GRAPH = 7, MODEL_METADATA = 14 };
enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_ATTRIBUTE = 5 };
enum { ATTRIBUTE_GRAPH = 6, ATTRIBUTE_GRAPHS = 11 };
enum { INITIALIZER_NAME = 8, INPUT_NAME = 1 };

/* A ValueInfoProto: embedding, float32, (N, any). */
static const uint8_t embedding_value[] = "\x0a\x09" EMBEDDING   /* its name */
                                         "\x12\x0d\x0a\x0b"     /* its type, a tensor's */
                                         "\x08\x01"             /* of float32 */
                                         "\x12\x07\x0a\x03\x12\x01N\x0a"; /* and its two sides */

/* Where to: nothing but a count, as long as `to` is NULL. */
typedef struct {
    uint8_t *to;
    size_t bytes;
} writer;

static void put(writer *out, const void *data, size_t bytes)
{
    if (out->to)
        memcpy(out->to + out->bytes, data, bytes);
    out->bytes += bytes;
}

static void put_varint(writer *out, uint64_t value)
{
    uint8_t text[10];
    size_t bytes = 0;
    for (; value >= 0x80; value >>= 7)
        text[bytes++] = (uint8_t)(value | 0x80);
    text[bytes++] = (uint8_t)value;
    put(out, text, bytes);
}

static void put_head(writer *out, uint32_t number, size_t bytes)
{
    put_varint(out, (uint64_t)number << 3 | EIP_LENGTH);
    put_varint(out, bytes);
}

/* Put a field as it was. The messages that are taken apart here have no fields but stretches and
 * whole numbers. */
static void put_field(writer *out, const eip_wire *wire, const eip_field *field)
{
    if (field->kind == EIP_LENGTH) {
        size_t bytes = field->span.end - field->span.begin;
        put_head(out, field->number, bytes);
        put(out, wire->data + field->span.begin, bytes);
    } else if (field->kind == EIP_VARINT) {
        put_varint(out, (uint64_t)field->number << 3 | EIP_VARINT);
        put_varint(out, field->value);
    }
}

/* --------------------------------------------------------------------------------- names -- */

/* The names that nodes read. */
typedef struct {
    const uint8_t *data; /* of the file */
    eip_span *spans;
    size_t count, capacity;
} names;

static int compare(const uint8_t *data, eip_span a, eip_span b)
{
    size_t a_bytes = a.end - a.begin, b_bytes = b.end - b.begin;
    if (a_bytes != b_bytes)
        return a_bytes < b_bytes ? -1 : 1;
    return memcmp(data + a.begin, data + b.begin, a_bytes);
}

static int compare_spans(const void *a, const void *b, void *data)
{
    return compare(data, *(const eip_span *)a, *(const eip_span *)b);
}

static bool holds(const names *used, eip_span name)
{
    size_t low = 0, high = used->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(used->data, name, used->spans[middle]);
        if (!order)
            return true;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

static void add_name(eip_wire *wire, names *used, eip_span name)
{
    if (!eip_wire_is_text(wire, name))
        return;
    if (used->count == used->capacity) {
        size_t capacity = used->capacity ? 2 * used->capacity : 1024;
        eip_span *spans = eip_allocate(capacity, sizeof *spans);
        if (!spans) {
            wire->status = EI_OUT_OF_MEMORY;
            return;
        }
        if (used->count)
            memcpy(spans, used->spans, used->count * sizeof *spans);
        free(used->spans);
        used->spans = spans;
        used->capacity = capacity;
    }
    used->spans[used->count++] = name;
}

/* Add what a node reads, and what graphs within it do. */
static void add_inputs(eip_wire *wire, names *used, eip_span node, int depth)
{
    eip_field field, part, inner;
    if (depth > MAX_DEPTH)
        eip_wire_unsafe(wire, "nests graphs more than 16 deep; export it without If and Loop");
    while (eip_wire_next(wire, &node, &field)) {
        if (field.kind != EIP_LENGTH)
            continue;
        if (field.number == NODE_INPUT)
            add_name(wire, used, field.span);
        if (field.number != NODE_ATTRIBUTE)
            continue;
        while (eip_wire_next(wire, &field.span, &part)) {
            if (part.kind != EIP_LENGTH ||
                (part.number != ATTRIBUTE_GRAPH && part.number != ATTRIBUTE_GRAPHS))
                continue;
            while (eip_wire_next(wire, &part.span, &inner))
                if (inner.number == GRAPH_NODE && inner.kind == EIP_LENGTH)
                    add_inputs(wire, used, inner.span, depth + 1);
        }
    }
}

/* --------------------------------------------------------------------------------- graph -- */

static bool makes_embedding(eip_wire *wire, eip_span node)
{
    bool found = false;
    eip_field field;
    while (eip_wire_next(wire, &node, &field))
        if (field.number == NODE_OUTPUT && field.kind == EIP_LENGTH &&
            eip_wire_is_text(wire, field.span))
            found |= eip_wire_equals(wire, field.span, EMBEDDING);
    return found;
}

static bool is_used(eip_wire *wire, const names *used, eip_span message, uint32_t number)
{
    bool found = false;
    eip_field field;
    while (eip_wire_next(wire, &message, &field))
        if (field.number == number && field.kind == EIP_LENGTH &&
            eip_wire_is_text(wire, field.span))
            found |= holds(used, field.span);
    return found;
}

/* Put what is kept of a graph, whose nodes behind `last` are the head's. */
static void put_kept(writer *out, eip_wire *wire, const names *used, eip_span graph, size_t last)
{
    eip_field field;
    while (eip_wire_next(wire, &graph, &field)) {
        bool kept = true, message = field.kind == EIP_LENGTH;
        if (field.number == GRAPH_NODE)
            kept = message && field.span.begin <= last;
        else if (field.number == GRAPH_OUTPUT)
            kept = false;
        else if (field.number == GRAPH_INITIALIZER)
            kept = message && is_used(wire, used, field.span, INITIALIZER_NAME);
        else if (field.number == GRAPH_INPUT)
            kept = message && is_used(wire, used, field.span, INPUT_NAME);
        if (kept)
            put_field(out, wire, &field);
    }
    put_head(out, GRAPH_OUTPUT, sizeof embedding_value);
    put(out, embedding_value, sizeof embedding_value);
}

static void put_graph(writer *out, eip_wire *wire, eip_span graph)
{
    names used = {.data = wire->data};
    size_t last = 0;
    eip_field field;
    for (eip_span rest = graph; !last && eip_wire_next(wire, &rest, &field);)
        if (field.number == GRAPH_NODE && field.kind == EIP_LENGTH &&
            makes_embedding(wire, field.span))
            last = field.span.begin;
    if (!wire->status && !last)
        wire->status =
            eip_fail(EI_OUTPUT_MISSING,
                     "%s has no embedding; export it with: edge-imprint export", wire->where);
    /* The head's nodes stand behind the backbone's, so all that follows belongs to it. */
    for (eip_span rest = graph; eip_wire_next(wire, &rest, &field);)
        if (field.number == GRAPH_NODE && field.kind == EIP_LENGTH && field.span.begin <= last)
            add_inputs(wire, &used, field.span, 0);
    if (used.count)
        qsort_r(used.spans, used.count, sizeof *used.spans, compare_spans, (void *)wire->data);
    writer counter = {NULL, 0};
    if (!wire->status)
        put_kept(&counter, wire, &used, graph, last);
    if (!wire->status) {
        put_head(out, MODEL_GRAPH, counter.bytes);
        if (out->to)
            put_kept(out, wire, &used, graph, last);
        else
            out->bytes += counter.bytes;
    }
    free(used.spans);
}

static void put_model(writer *out, eip_wire *wire)
{
    bool cut = false;
    eip_field field;
    wire->fields = 0; /* of each pass */
    for (eip_span rest = {0, wire->bytes}; eip_wire_next(wire, &rest, &field);) {
        if (field.number == MODEL_GRAPH && field.kind == EIP_LENGTH) {
            put_graph(out, wire, field.span);
            cut = true;
        } else if (field.number != MODEL_METADATA) {
            put_field(out, wire, &field);
        }
    }
    if (!cut && !wire->status)
        eip_wire_broken(wire, "it holds no graph");
}

ei_status eip_onnx_headless(const void *data, size_t bytes, const char *where, void **cut,
                            size_t *cut_bytes)
{
    eip_wire wire = eip_wire_begin(data, bytes, where);
    writer out = {NULL, 0};
    put_model(&out, &wire);
    if (wire.status)
        return wire.status;
    out.to = eip_allocate_array(out.bytes, 1);
    if (!out.to)
        return EI_OUT_OF_MEMORY;
    out.bytes = 0;
    put_model(&out, &wire); /* reads what it read before */
    *cut = out.to;
    *cut_bytes = out.bytes;
    return EI_OK;
}
