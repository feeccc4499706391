/* SPDX-License-Identifier: Apache-2.0 */
#include "onnx_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "onnx_walk.h"

#define MAX_NODES 200000
#define MAX_DEPTH 16 /* graphs within graphs (If, Loop, Scan) */
/* All but weights and notes: what a library turns into many small objects. */
#define MAX_DESCRIPTION_BYTES ((size_t)64 << 20)
#define MAX_KEYS 65536 /* of ours; the contract has some twenty, notes are free */

/* Numbers of the fields of onnx.proto that are looked at. */
enum { MODEL_GRAPH = 7, MODEL_NOTES = 14, MODEL_TRAINING = 20, MODEL_FUNCTION = 25 };
enum { GRAPH_NODE = 1, GRAPH_TENSOR = 5, GRAPH_NOTES = 10, GRAPH_SPARSE = 15, GRAPH_NOTES_2 = 16 };
enum { NODE_KIND = 4, NODE_ATTRIBUTE = 5, NODE_NOTES = 6, NODE_NOTES_2 = 9 };
enum {
    ATTRIBUTE_TENSOR = 5,
    ATTRIBUTE_GRAPH = 6,
    ATTRIBUTE_TENSORS = 10,
    ATTRIBUTE_GRAPHS = 11,
    ATTRIBUTE_SPARSE = 22,
    ATTRIBUTE_SPARSES = 23
};
enum { FUNCTION_NODE = 7, FUNCTION_ATTRIBUTE = 11 };
/* What an execution provider compiled, in the node or in a file that it names by any path. */
static const char compiled[] = "EPContext";

static void walk_graph(eip_walk *at, eip_span graph, int depth);

/* --------------------------------------------------------------------------------- nodes -- */

static void walk_attribute(eip_walk *at, eip_span attribute, int depth)
{
    uint32_t seen = 0;
    eip_field field;
    while (eip_wire_next(&at->wire, &attribute, &field)) {
        if (field.kind != EIP_LENGTH)
            continue;
        switch (field.number) {
        case ATTRIBUTE_TENSOR:
            if (!eip_walk_once(at, &seen, field.number, "a tensor of an attribute"))
                break;
            /* fall through */
        case ATTRIBUTE_TENSORS:
            eip_walk_tensor(at, field.span);
            break;
        case ATTRIBUTE_GRAPH:
            if (!eip_walk_once(at, &seen, field.number, "a graph of an attribute"))
                break;
            /* fall through */
        case ATTRIBUTE_GRAPHS:
            walk_graph(at, field.span, depth + 1);
            break;
        case ATTRIBUTE_SPARSE:
            if (!eip_walk_once(at, &seen, field.number, "a sparse tensor of an attribute"))
                break;
            /* fall through */
        case ATTRIBUTE_SPARSES:
            eip_walk_sparse(at, field.span);
            break;
        default:
            break;
        }
    }
}

static void walk_node(eip_walk *at, eip_span node, int depth)
{
    eip_field field;
    while (eip_wire_next(&at->wire, &node, &field)) {
        if (field.kind != EIP_LENGTH)
            continue;
        if (field.number == NODE_ATTRIBUTE)
            walk_attribute(at, field.span, depth);
        else if (field.number == NODE_KIND && eip_wire_equals(&at->wire, field.span, compiled))
            eip_wire_unsafe(&at->wire,
                            "holds what was compiled for one accelerator (an EPContext node), "
                            "which may name any file; export it again without");
        else if (field.number == NODE_NOTES || field.number == NODE_NOTES_2)
            at->flat_bytes += eip_span_bytes(field.span);
    }
}

static void count_node(eip_walk *at)
{
    if (++at->nodes > MAX_NODES)
        eip_wire_unsafe(&at->wire, "has more than 200,000 nodes; use a smaller model");
}

/* Walk the nodes of a message after all of them were counted: of a million none is looked at. */
static void walk_nodes(eip_walk *at, eip_span message, uint32_t number, int depth)
{
    eip_field field;
    while (eip_wire_again(&at->wire, &message, &field))
        if (field.number == number && field.kind == EIP_LENGTH)
            walk_node(at, field.span, depth);
}

static void walk_graph(eip_walk *at, eip_span graph, int depth)
{
    eip_field field;
    if (depth > MAX_DEPTH) {
        eip_wire_unsafe(&at->wire,
                        "nests graphs more than 16 deep; export it without If and Loop");
        return;
    }
    for (eip_span rest = graph; eip_wire_next(&at->wire, &rest, &field);) {
        if (field.kind != EIP_LENGTH)
            continue;
        if (field.number == GRAPH_NODE)
            count_node(at);
        else if (field.number == GRAPH_TENSOR)
            eip_walk_tensor(at, field.span);
        else if (field.number == GRAPH_SPARSE)
            eip_walk_sparse(at, field.span);
        else if (field.number == GRAPH_NOTES || field.number == GRAPH_NOTES_2)
            at->flat_bytes += eip_span_bytes(field.span);
    }
    walk_nodes(at, graph, GRAPH_NODE, depth);
}

static void walk_function(eip_walk *at, eip_span function)
{
    eip_field field;
    for (eip_span rest = function; eip_wire_next(&at->wire, &rest, &field);) {
        if (field.kind == EIP_LENGTH && field.number == FUNCTION_NODE)
            count_node(at);
        else if (field.kind == EIP_LENGTH && field.number == FUNCTION_ATTRIBUTE)
            walk_attribute(at, field.span, 1);
    }
    walk_nodes(at, function, FUNCTION_NODE, 1);
}

static void walk_training(eip_walk *at, eip_span training)
{
    uint32_t seen = 0;
    eip_field field;
    while (eip_wire_next(&at->wire, &training, &field))
        if (field.kind == EIP_LENGTH && field.number <= 2 &&
            eip_walk_once(at, &seen, field.number, "a training graph"))
            walk_graph(at, field.span, 1);
}

static void walk_model(eip_walk *at)
{
    size_t graphs = 0;
    eip_field field;
    for (eip_span rest = {0, at->wire.bytes}; eip_wire_next(&at->wire, &rest, &field);) {
        if (field.kind != EIP_LENGTH)
            continue;
        if (field.number == MODEL_GRAPH) {
            graphs++;
            walk_graph(at, field.span, 1);
        } else if (field.number == MODEL_NOTES) {
            at->flat_bytes += eip_span_bytes(field.span);
        } else if (field.number == MODEL_FUNCTION) {
            walk_function(at, field.span);
        } else if (field.number == MODEL_TRAINING) {
            walk_training(at, field.span);
        }
    }
    char reason[64] = "it has no nodes";
    if (graphs > 1)
        snprintf(reason, sizeof reason, "it has %zu graphs", graphs);
    if (!at->wire.status && graphs != 1)
        eip_wire_broken(&at->wire, reason);
}

/* ---------------------------------------------------------------------------------- file -- */

/* 12345678 -> 12,345,678 */
static const char *with_commas(uint64_t number, char text[32])
{
    char digits[24];
    int count = snprintf(digits, sizeof digits, "%" PRIu64, number);
    char *end = text;
    for (int i = 0; i < count; i++) {
        if (i && (count - i) % 3 == 0)
            *end++ = ',';
        *end++ = digits[i];
    }
    *end = 0;
    return text;
}

static ei_status check_size(uint64_t bytes, const char *where)
{
    char text[32];
    if (!bytes)
        return eip_fail(EI_MODEL_FILE, "%s is not an ONNX model: it has no nodes", where);
    if (bytes > EIP_MAX_FILE_BYTES)
        return eip_fail(EI_UNSAFE_MODEL,
                        "%s has %s bytes, one ONNX file holds 2,147,483,647; use a smaller model",
                        where, with_commas(bytes, text));
    return EI_OK;
}

/* Add one of the model's notes. */
static ei_status read_note(eip_wire *wire, eip_span note, eip_metadata *metadata)
{
    eip_span key = {0, 0}, value = {0, 0};
    eip_field field;
    while (eip_wire_again(wire, &note, &field)) {
        if (field.kind == EIP_LENGTH && field.number == 1)
            key = field.span;
        else if (field.kind == EIP_LENGTH && field.number == 2)
            value = field.span;
    }
    if (wire->status)
        return wire->status;
    if (metadata->count >= MAX_KEYS)
        return eip_fail(EI_CONTRACT_KEY, "%s has more than 65,536 keys; export it again",
                        wire->where);
    const char *text = (const char *)wire->data;
    ei_status status = eip_metadata_add(metadata, text + key.begin, eip_span_bytes(key),
                                        text + value.begin, eip_span_bytes(value));
    return eip_where(status, wire->where);
}

static ei_status read_notes(eip_wire *wire, eip_metadata *metadata)
{
    ei_status status = EI_OK;
    eip_field field;
    for (eip_span rest = {0, wire->bytes}; !status && eip_wire_again(wire, &rest, &field);)
        if (field.number == MODEL_NOTES && field.kind == EIP_LENGTH)
            status = read_note(wire, field.span, metadata);
    return status ? status : wire->status;
}

ei_status eip_onnx_scan(const void *data, size_t bytes, const char *where, eip_metadata *metadata)
{
    char shown[32], name[EIP_SHOWN_BYTES], location[EIP_SHOWN_BYTES];
    ei_status status = check_size(bytes, where);
    if (status)
        return status;
    eip_walk walk = {.wire = eip_wire_begin(data, bytes, where)};
    eip_wire *wire = &walk.wire;
    walk_model(&walk);
    if (!wire->status && bytes - walk.flat_bytes > MAX_DESCRIPTION_BYTES)
        eip_wire_unsafe(wire,
                        "has %s bytes beside its weights, and no more than 67,108,864 are read; "
                        "use a smaller model",
                        with_commas(bytes - walk.flat_bytes, shown));
    if (!wire->status && walk.has_external)
        eip_wire_unsafe(wire,
                        "keeps the numbers of '%s' in another file ('%s'), and a model is one "
                        "file; export it again",
                        eip_wire_show(wire, walk.external, name),
                        eip_wire_show(wire, walk.location, location));
    /* A head file: the length of its header, then the header, which is JSON. */
    if (wire->status == EI_MODEL_FILE && bytes > 9 && !memcmp(wire->data + 8, "{\"", 2))
        return eip_fail(EI_MODEL_FILE,
                        "%s is a head, not a model; make one of it with: edge-imprint export",
                        where);
    return wire->status ? wire->status : read_notes(wire, metadata);
}

ei_status eip_onnx_scan_file(const char *path, eip_metadata *metadata)
{
    struct stat facts;
    void *data = MAP_FAILED;
    /* A pipe would be waited for. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 || fstat(file, &facts)) {
        ei_status status =
            eip_fail(EI_FILE_MISSING, "cannot read %s: %s", path,
                     errno == ENOENT ? "there is no such file" : strerror(errno));
        if (file >= 0)
            close(file);
        return status;
    }
    ei_status status = EI_OK;
    if (!S_ISREG(facts.st_mode))
        status = eip_fail(EI_FILE_MISSING, "cannot read %s: it is no regular file", path);
    if (!status)
        status = check_size((uint64_t)facts.st_size, path);
    if (!status) {
        data = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        if (data == MAP_FAILED)
            status = eip_fail(EI_FILE_MISSING, "cannot read %s: %s", path, strerror(errno));
    }
    close(file);
    if (status)
        return status;
    status = eip_onnx_scan(data, (size_t)facts.st_size, path, metadata);
    munmap(data, (size_t)facts.st_size);
    return status;
}
