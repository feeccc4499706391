/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "onnx_walk.h"

#define SHOWN_SIDES 8

/* Numbers of TensorProto's fields. */
enum {
    TENSOR_DIMS = 1,
    TENSOR_TYPE = 2,
    TENSOR_FLOATS = 4,
    TENSOR_INT32S = 5,
    TENSOR_STRINGS = 6,
    TENSOR_INT64S = 7,
    TENSOR_NAME = 8,
    TENSOR_RAW = 9,
    TENSOR_DOUBLES = 10,
    TENSOR_UINT64S = 11,
    TENSOR_EXTERNAL = 13,
    TENSOR_LOCATION = 14
};

/* TensorProto.DataType -> bits a number, and the field that holds numbers kept one by one. */
typedef struct {
    uint8_t bits, store;
} number_type;

static const number_type number_types[] = {
    [1] = {32, TENSOR_FLOATS},   [2] = {8, TENSOR_INT32S},    [3] = {8, TENSOR_INT32S},
    [4] = {16, TENSOR_INT32S},   [5] = {16, TENSOR_INT32S},   [6] = {32, TENSOR_INT32S},
    [7] = {64, TENSOR_INT64S},   [8] = {0, TENSOR_STRINGS},   [9] = {8, TENSOR_INT32S},
    [10] = {16, TENSOR_INT32S},  [11] = {64, TENSOR_DOUBLES}, [12] = {32, TENSOR_UINT64S},
    [13] = {64, TENSOR_UINT64S}, [14] = {64, TENSOR_FLOATS},  [15] = {128, TENSOR_DOUBLES},
    [16] = {16, TENSOR_INT32S},  [17] = {8, TENSOR_INT32S},   [18] = {8, TENSOR_INT32S},
    [19] = {8, TENSOR_INT32S},   [20] = {8, TENSOR_INT32S},   [21] = {4, TENSOR_INT32S},
    [22] = {4, TENSOR_INT32S},   [23] = {4, TENSOR_INT32S},   [24] = {8, TENSOR_INT32S},
    [25] = {2, TENSOR_INT32S},   [26] = {2, TENSOR_INT32S},   [27] = {6, TENSOR_INT32S},
    [28] = {6, TENSOR_INT32S},
};
#define COMPLEX64 14 /* two floats a number */
#define COMPLEX128 15
#define TEXT 8

/* A tensor's sides. */
typedef struct {
    int64_t first[SHOWN_SIDES];
    size_t count;
    bool negative, zero;
    uint64_t product; /* of all but zeros; SIZE_LIMIT: so much or more */
} sides;
#define SIZE_LIMIT ((uint64_t)1 << 40)

static void add_side(sides *shape, uint64_t value)
{
    int64_t side;
    memcpy(&side, &value, sizeof side);
    if (shape->count < SHOWN_SIDES)
        shape->first[shape->count] = side;
    shape->count++;
    shape->negative |= side < 0;
    shape->zero |= side == 0;
    if (side > 0 && __builtin_mul_overflow(shape->product, value, &shape->product))
        shape->product = SIZE_LIMIT;
    if (shape->product > SIZE_LIMIT)
        shape->product = SIZE_LIMIT;
}

/* Whole numbers, one or packed. */
static void add_sides(eip_walk *at, sides *shape, const eip_field *field)
{
    uint64_t value;
    if (field->kind == EIP_VARINT)
        add_side(shape, field->value);
    if (field->kind != EIP_LENGTH)
        return;
    for (eip_span span = field->span; eip_wire_packed(&at->wire, &span, &value);)
        add_side(shape, value);
}

static uint64_t side_product(const sides *shape)
{
    return shape->zero ? 0 : shape->product;
}

/* How many bytes so many numbers of a type take; 0 for text and for what is no type. */
static uint64_t numbers_bytes(const sides *shape, uint64_t type)
{
    uint64_t bits = type < sizeof number_types / sizeof *number_types ? number_types[type].bits : 0;
    return (side_product(shape) * bits + 7) / 8;
}

#define SHAPE_BYTES (SHOWN_SIDES * 22 + 8)
static const char *show_shape(const sides *shape, char text[SHAPE_BYTES])
{
    char *end = text;
    *end++ = '(';
    for (size_t i = 0; i < shape->count && i < SHOWN_SIDES; i++)
        end += sprintf(end, "%s%" PRId64, i ? ", " : "", shape->first[i]);
    strcpy(end, shape->count > SHOWN_SIDES ? ", ...)" : ")");
    return text;
}

bool eip_walk_once(eip_walk *at, uint32_t *seen, uint32_t number, const char *what)
{
    if (*seen & 1U << number) {
        eip_wire_unsafe(&at->wire, "states %s twice; export it again", what);
        return false;
    }
    *seen |= 1U << number;
    return true;
}

/* How a number that stands alone is written in a field of numbers. */
static int alone(uint32_t store)
{
    if (store == TENSOR_FLOATS)
        return EIP_FIXED32;
    return store == TENSOR_DOUBLES ? EIP_FIXED64 : EIP_VARINT;
}

/* Count the numbers in one field of packed ones. */
static uint64_t count_packed(eip_walk *at, eip_span span, uint32_t store)
{
    uint64_t count = 0;
    size_t bytes = eip_span_bytes(span);
    at->flat_bytes += bytes;
    if (store == TENSOR_FLOATS || store == TENSOR_DOUBLES) {
        size_t width = store == TENSOR_FLOATS ? 4 : 8;
        if (bytes % width)
            eip_wire_broken(&at->wire, "a tensor's numbers are cut off");
        return bytes / width;
    }
    for (size_t i = span.begin; i < span.end; i++)
        count += at->wire.data[i] < 0x80; /* the last byte of each number */
    return count;
}

/* Count the numbers of a tensor that are kept one by one in the field `store`. */
static uint64_t count_numbers(eip_walk *at, eip_span tensor, uint32_t store)
{
    uint64_t count = 0;
    eip_field field;
    while (eip_wire_again(&at->wire, &tensor, &field)) {
        if (field.number != store)
            continue;
        if (field.kind == EIP_LENGTH && store != TENSOR_STRINGS)
            count += count_packed(at, field.span, store);
        else
            count += field.kind == (store == TENSOR_STRINGS ? EIP_LENGTH : alone(store));
    }
    return count;
}

/* What a tensor says of itself. */
typedef struct {
    sides shape;
    uint64_t type;
    eip_span name, location;
    uint32_t seen, stores; /* the fields of numbers kept one by one that it has, as bits */
    bool is_external, has_raw;
    size_t raw_bytes;
} tensor_facts;

static void check_numbers(eip_walk *at, eip_span tensor, const tensor_facts *facts)
{
    char name[EIP_SHOWN_BYTES], shape[SHAPE_BYTES];
    number_type type = number_types[facts->type];
    uint64_t wanted = side_product(&facts->shape);
    bool fits = false;
    if (facts->has_raw && !facts->stores && facts->type != TEXT) {
        fits = facts->raw_bytes == numbers_bytes(&facts->shape, facts->type);
    } else if (!facts->has_raw && !(facts->stores & ~(1U << type.store))) {
        /* Numbers of 2 and 4 bits share a byte; complex ones are two. */
        if (type.bits == 2 || type.bits == 4)
            wanted = (wanted * type.bits + 7) / 8;
        else if (facts->type == COMPLEX64 || facts->type == COMPLEX128)
            wanted *= 2;
        fits = wanted == count_numbers(at, tensor, type.store);
    }
    if (!fits && !at->wire.status)
        eip_wire_unsafe(&at->wire,
                        "gives '%s' the shape %s, which is not what its numbers fill; "
                        "export it again",
                        eip_wire_show(&at->wire, facts->name, name),
                        show_shape(&facts->shape, shape));
}

/* One pair of what a tensor says of the file that holds its numbers. */
static void read_external(eip_walk *at, eip_span pair, tensor_facts *facts)
{
    eip_span key = {0, 0}, value = {0, 0};
    eip_field field;
    while (eip_wire_next(&at->wire, &pair, &field)) {
        if (field.kind != EIP_LENGTH || !eip_wire_is_text(&at->wire, field.span))
            continue;
        if (field.number == 1)
            key = field.span;
        else if (field.number == 2)
            value = field.span;
    }
    facts->is_external = true;
    if (eip_wire_equals(&at->wire, key, "location"))
        facts->location = value;
}

static void read_tensor_field(eip_walk *at, const eip_field *field, tensor_facts *facts)
{
    char name[EIP_SHOWN_BYTES];
    bool text = field->kind == EIP_LENGTH, number = field->kind == EIP_VARINT;
    switch (field->number) {
    case TENSOR_DIMS:
        add_sides(at, &facts->shape, field);
        break;
    case TENSOR_TYPE:
        if (number)
            facts->type = field->value;
        break;
    case TENSOR_LOCATION:
        if (!number ||
            !eip_walk_once(at, &facts->seen, field->number, "the place of a tensor's numbers"))
            break;
        if (field->value > 1)
            eip_wire_unsafe(&at->wire, "keeps a tensor's numbers in a place that ONNX does not "
                                       "have; export it again");
        facts->is_external |= field->value == 1;
        break;
    case TENSOR_NAME:
        if (text && eip_wire_is_text(&at->wire, field->span))
            facts->name = field->span;
        break;
    case TENSOR_EXTERNAL:
        if (text)
            read_external(at, field->span, facts);
        break;
    case TENSOR_RAW:
        if (text && facts->has_raw)
            eip_wire_unsafe(&at->wire, "states the numbers of '%s' twice",
                            eip_wire_show(&at->wire, facts->name, name));
        if (text) {
            facts->has_raw = true;
            facts->raw_bytes = eip_span_bytes(field->span);
            at->flat_bytes += facts->raw_bytes;
        }
        break;
    case TENSOR_STRINGS:
        facts->stores |= text ? 1U << TENSOR_STRINGS : 0;
        break;
    case TENSOR_FLOATS:
    case TENSOR_DOUBLES:
    case TENSOR_INT32S:
    case TENSOR_INT64S:
    case TENSOR_UINT64S:
        facts->stores |= text || field->kind == alone(field->number) ? 1U << field->number : 0;
        break;
    default:
        break;
    }
}

uint64_t eip_walk_tensor(eip_walk *at, eip_span tensor)
{
    tensor_facts facts = {.shape.product = 1};
    char name[EIP_SHOWN_BYTES], shape[SHAPE_BYTES];
    eip_field field;
    for (eip_span rest = tensor; eip_wire_next(&at->wire, &rest, &field);)
        read_tensor_field(at, &field, &facts);
    if (at->wire.status)
        return 0;
    eip_wire_show(&at->wire, facts.name, name);
    if (facts.shape.negative)
        eip_wire_unsafe(&at->wire, "gives '%s' the shape %s; a side can't be negative", name,
                        show_shape(&facts.shape, shape));
    else if (facts.type >= sizeof number_types / sizeof *number_types ||
             !number_types[facts.type].store)
        eip_wire_unsafe(&at->wire, "gives '%s' the type %" PRIu64 ", which ONNX does not have",
                        name, facts.type);
    else if (!facts.is_external)
        check_numbers(at, tensor, &facts);
    else if (!at->has_external) {
        at->has_external = true;
        at->external = facts.name;
        at->location = facts.location;
    }
    return facts.type;
}

void eip_walk_sparse(eip_walk *at, eip_span sparse)
{
    sides dims = {.product = 1};
    uint64_t type = 0;
    uint32_t seen = 0;
    eip_field field;
    while (eip_wire_next(&at->wire, &sparse, &field)) {
        if (field.number == 3) {
            add_sides(at, &dims, &field);
        } else if (field.number <= 2 && field.kind == EIP_LENGTH) {
            if (!eip_walk_once(at, &seen, field.number, "a part of a sparse tensor"))
                return;
            uint64_t found = eip_walk_tensor(at, field.span);
            type = field.number == 1 ? found : type;
        }
    }
    char shape[SHAPE_BYTES];
    if (!at->wire.status && (dims.negative || numbers_bytes(&dims, type) > EIP_MAX_FILE_BYTES))
        eip_wire_unsafe(&at->wire,
                        "holds a sparse tensor of the shape %s, more than one ONNX file may "
                        "hold; use a smaller model",
                        show_shape(&dims, shape));
}

