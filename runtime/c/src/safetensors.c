/* SPDX-License-Identifier: Apache-2.0 */
#include "safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract_values.h"
#include "json.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are used where they lie");

#define MAX_HEADER 100000000
#define MAX_DIMENSIONS 32

/* In the order of the file: the safetensors library lays out I64 before F32, then by name. */
static const struct {
    const char *name;
    eip_array_name which;
    bool is_int64;
} LAYOUT[EIP_ARRAYS] = {
    {"class_index", EIP_CLASS_INDEX, true},
    {"host_proxies", EIP_HOST_PROXIES, true},
    {"sample_class", EIP_SAMPLE_CLASS, true},
    {"center", EIP_CENTER, false},
    {"metric", EIP_METRIC, false},
    {"proxies", EIP_PROXIES, false},
    {"samples", EIP_SAMPLES, false},
    {"threshold", EIP_THRESHOLD, false},
    {"transform", EIP_TRANSFORM, false},
};

/* What a header says of an array. */
typedef struct info {
    bool there, is_f32, is_i64;
    int dimensions;
    uint64_t shape[2], count, begin, end;
} info;

/* A header as it is read. */
typedef struct header {
    eip_json json;
    info infos[EIP_ARRAYS]; /* as LAYOUT */
    eip_metadata *metadata;
    bool has_metadata, out_of_memory;
    char stray[EIP_QUOTED]; /* an array that is not a head's, or of another type; or "" */
} header;

static bool refuse(header *head, const char *problem)
{
    if (!head->json.problem)
        head->json.problem = problem;
    return false;
}

static bool is(const char *text, size_t bytes, const char *wanted)
{
    return bytes == strlen(wanted) && memcmp(text, wanted, bytes) == 0;
}

static bool take_colon(header *head)
{
    return eip_json_take(&head->json, ':') || refuse(head, "a ':' is missing");
}

static bool take_text(header *head, char **text, size_t *bytes)
{
    return eip_json_string(&head->json, text, bytes, &head->out_of_memory);
}

/* Go on to the next member of an object or array, or past its end; false after both. */
static bool more(header *head, char end)
{
    if (eip_json_take(&head->json, ','))
        return true;
    if (!eip_json_take(&head->json, end))
        refuse(head, "a ',' or an end is missing");
    return false;
}

/* -------------------------------------------------------------------------------- reading -- */

static void read_metadata(header *head)
{
    if (head->has_metadata) {
        refuse(head, "__metadata__ is there twice");
        return;
    }
    head->has_metadata = true;
    if (eip_json_null(&head->json))
        return;
    if (!eip_json_take(&head->json, '{')) {
        refuse(head, "__metadata__ is no object");
        return;
    }
    if (eip_json_take(&head->json, '}'))
        return;
    do {
        char *key = NULL, *value = NULL;
        size_t key_bytes, value_bytes;
        if (take_text(head, &key, &key_bytes) && take_colon(head) &&
            take_text(head, &value, &value_bytes) &&
            eip_metadata_add(head->metadata, key, key_bytes, value, value_bytes)) {
            head->out_of_memory = true;
            refuse(head, "there is not enough memory");
        }
        free(key);
        free(value);
    } while (more(head, '}'));
}

static void read_shape(header *head, info *array)
{
    array->count = 1;
    if (!eip_json_take(&head->json, '[')) {
        refuse(head, "a shape is no array");
        return;
    }
    if (eip_json_take(&head->json, ']'))
        return;
    do {
        uint64_t side = 0;
        if (!eip_json_natural(&head->json, &side))
            return;
        if (array->dimensions == MAX_DIMENSIONS || (side && array->count > UINT64_MAX / side)) {
            refuse(head, "a shape is beyond all bounds");
            return;
        }
        if (array->dimensions < 2)
            array->shape[array->dimensions] = side;
        array->dimensions++;
        array->count *= side;
    } while (more(head, ']'));
}

static void read_offsets(header *head, info *array)
{
    eip_json *json = &head->json;
    if (!eip_json_take(json, '[') || !eip_json_natural(json, &array->begin) ||
        !eip_json_take(json, ',') || !eip_json_natural(json, &array->end) ||
        !eip_json_take(json, ']'))
        refuse(head, "data_offsets are not two whole numbers");
}

static void read_info(header *head, info *array)
{
    unsigned seen = 0;
    *array = (info){.there = true};
    if (!eip_json_take(&head->json, '{')) {
        refuse(head, "an array's description is no object");
        return;
    }
    do {
        char *key = NULL, *type = NULL;
        size_t bytes, type_bytes;
        unsigned bit = 0;
        if (take_text(head, &key, &bytes) && take_colon(head)) {
            if (is(key, bytes, "dtype")) {
                bit = 1;
                bool text = take_text(head, &type, &type_bytes);
                array->is_f32 = text && is(type, type_bytes, "F32");
                array->is_i64 = text && is(type, type_bytes, "I64");
            } else if (is(key, bytes, "shape")) {
                bit = 2;
                read_shape(head, array);
            } else if (is(key, bytes, "data_offsets")) {
                bit = 4;
                read_offsets(head, array);
            }
            if (!bit || (seen & bit))
                refuse(head, "an array's description has a key twice, or an unknown one");
        }
        seen |= bit;
        free(key);
        free(type);
    } while (more(head, '}'));
    if (seen != 7)
        refuse(head, "an array lacks dtype, shape or data_offsets");
}

static void read_member(header *head)
{
    char *name = NULL;
    size_t bytes;
    info array = {0};
    if (!take_text(head, &name, &bytes) || !take_colon(head))
        goto done;
    if (is(name, bytes, "__metadata__")) {
        read_metadata(head);
        goto done;
    }
    read_info(head, &array);
    for (int i = 0; i < EIP_ARRAYS; i++) {
        bool wanted = LAYOUT[i].is_int64 ? array.is_i64 : array.is_f32;
        if (!wanted || !is(name, bytes, LAYOUT[i].name))
            continue;
        if (head->infos[i].there)
            refuse(head, "an array is there twice");
        head->infos[i] = array;
        goto done;
    }
    eip_quote(name, bytes, head->stray);
done:
    free(name);
}

static bool read_header(header *head)
{
    if (!eip_json_take(&head->json, '{'))
        return refuse(head, "its header is no JSON object");
    if (!eip_json_take(&head->json, '}'))
        do
            read_member(head);
        while (more(head, '}'));
    if (!eip_json_done(&head->json))
        return false;
    if (eip_metadata_sort(head->metadata))
        return refuse(head, "a metadata key is there twice");
    return true;
}

/* Hold what the arrays say against the bytes that there are: each fills its own, and together
 * they fill the file. */
static bool check_layout(header *head, uint64_t bytes)
{
    bool done[EIP_ARRAYS] = {false};
    uint64_t filled = 0;
    for (;;) {
        const info *array = NULL;
        for (const info *other = head->infos; other < head->infos + EIP_ARRAYS; other++)
            if (other->there && !done[other - head->infos] &&
                (!array || other->begin < array->begin ||
                 (other->begin == array->begin && other->end < array->end)))
                array = other;
        if (!array)
            break;
        uint64_t size = array->is_i64 ? 8 : 4;
        if (array->begin != filled || array->end < array->begin)
            return refuse(head, "arrays overlap, or leave holes");
        if (array->count > UINT64_MAX / size || array->count * size != array->end - array->begin)
            return refuse(head, "an array's shape is not what its bytes fill");
        filled = array->end;
        done[array - head->infos] = true;
    }
    if (filled != bytes)
        return refuse(head, "it is cut off, or longer than its arrays");
    return true;
}

/* Name the array that is missing or is none of a head's; but first look at the contract, so that
 * of a file of a newer release the version is told, and of any other file that it is not ours. */
static ei_status check_names(const header *head)
{
    const char *missing = !head->infos[5].there   ? "proxies"
                          : !head->infos[0].there ? "class_index"
                                                  : NULL;
    if (!missing && !*head->stray)
        return EI_OK;
    eip_contract contract;
    ei_status status = eip_contract_read(head->metadata, false, NULL, &contract);
    eip_contract_clear(&contract);
    if (status)
        return status;
    if (*head->stray)
        return eip_fail(EI_HEAD_FILE, "the array %s, or its type, is not part of a head file",
                        head->stray);
    return eip_fail(EI_HEAD_FILE, "it is not a head file: it lacks the array %s", missing);
}

ei_status eip_safetensors_read(const void *data, size_t bytes, eip_array *arrays,
                               eip_metadata *metadata)
{
    const unsigned char *at = data;
    uint64_t length = 0;
    header head = {.metadata = metadata};
    *metadata = (eip_metadata){0};
    memset(arrays, 0, EIP_ARRAYS * sizeof *arrays);
    for (int i = 7; i >= 0 && bytes >= 8; i--)
        length = length << 8 | at[i];
    if (bytes < 8 || length > MAX_HEADER || length > bytes - 8)
        refuse(&head, "its header is longer than the file, or than 100 MB");
    else
        head.json = eip_json_begin((const char *)at + 8, (size_t)length);
    bool good = !head.json.problem && read_header(&head) &&
                (*head.stray || check_layout(&head, bytes - 8 - length));
    if (head.out_of_memory)
        return EI_OUT_OF_MEMORY;
    if (!good)
        return eip_fail(EI_HEAD_FILE,
                        "it is not a head file (safetensors: %s); a head is what 'edge-imprint "
                        "build' writes, 'export' makes a model of it",
                        head.json.problem);
    ei_status status = check_names(&head);
    if (status)
        return status;
    for (int i = 0; i < EIP_ARRAYS; i++) {
        const info *array = head.infos + i;
        if (!array->there)
            continue;
        eip_array *found = arrays + LAYOUT[i].which;
        found->data = at + 8 + length + array->begin;
        found->dimensions = array->dimensions;
        /* Beyond two dimensions nothing is read: whoever forgot to look finds it empty. */
        for (int d = 0; d < 2 && array->dimensions <= 2; d++)
            found->shape[d] = array->shape[d];
    }
    return EI_OK;
}

/* -------------------------------------------------------------------------------- writing -- */

static void add(eip_text *text, const char *plain)
{
    eip_text_add(text, plain, strlen(plain));
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const eip_entry *const *)a)->key, (*(const eip_entry *const *)b)->key);
}

static ei_status add_metadata(eip_text *text, const eip_metadata *metadata)
{
    const eip_entry **sorted = eip_allocate(metadata->count, sizeof *sorted);
    if (!sorted)
        return EI_OUT_OF_MEMORY;
    for (size_t i = 0; i < metadata->count; i++)
        sorted[i] = metadata->entries + i;
    qsort(sorted, metadata->count, sizeof *sorted, by_key);
    for (size_t i = 0; i < metadata->count; i++) {
        add(text, i ? "," : "");
        eip_text_add_json(text, sorted[i]->key);
        add(text, ":");
        eip_text_add_json(text, sorted[i]->value);
    }
    free(sorted);
    return EI_OK;
}

/* Write an array's description; `end` becomes where it ends in the file. */
static ei_status add_array(eip_text *text, int which, const eip_array *array, uint64_t *end)
{
    uint64_t begin = *end, size = LAYOUT[which].is_int64 ? 8 : 4;
    char line[160], shape[48] = "";
    for (int d = 0; d < array->dimensions && d < 2; d++) {
        size_t used = strlen(shape);
        snprintf(shape + used, sizeof shape - used, "%s%" PRIu64, d ? "," : "",
                 array->shape[d]);
        if (array->shape[d] && size > (SIZE_MAX - begin) / array->shape[d])
            return eip_fail(EI_OUT_OF_MEMORY, "the head is too large for this machine");
        size *= array->shape[d];
    }
    *end += size;
    snprintf(line, sizeof line,
             ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%" PRIu64 ",%" PRIu64
             "]}",
             LAYOUT[which].name, LAYOUT[which].is_int64 ? "I64" : "F32", shape, begin, *end);
    add(text, line);
    return EI_OK;
}

ei_status eip_safetensors_write(const eip_array *arrays, const eip_metadata *metadata,
                                void **written, size_t *bytes)
{
    eip_text text = {0};
    uint64_t ends[EIP_ARRAYS], end = 0;
    unsigned char *file = NULL, *to;
    add(&text, "{\"__metadata__\":{");
    ei_status status = add_metadata(&text, metadata);
    add(&text, "}");
    for (int i = 0; i < EIP_ARRAYS && !status; i++) {
        if (arrays[LAYOUT[i].which].data)
            status = add_array(&text, i, arrays + LAYOUT[i].which, &end);
        ends[i] = end;
    }
    add(&text, "}");
    while (text.bytes % 8 && !text.failed) /* the arrays begin at a multiple of eight */
        add(&text, " ");
    if (status || text.failed || end > SIZE_MAX - 8 - text.bytes) {
        status = status ? status : EI_OUT_OF_MEMORY;
        goto done;
    }
    *bytes = 8 + text.bytes + (size_t)end;
    file = eip_allocate_array(*bytes, 1);
    if (!file) {
        status = EI_OUT_OF_MEMORY;
        goto done;
    }
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)text.bytes >> 8 * i);
    memcpy(file + 8, text.data, text.bytes);
    to = file + 8 + text.bytes;
    for (int i = 0; i < EIP_ARRAYS; i++) {
        uint64_t begin = i ? ends[i - 1] : 0;
        if (ends[i] > begin)
            memcpy(to + begin, arrays[LAYOUT[i].which].data, (size_t)(ends[i] - begin));
    }
    *written = file;
done:
    free(text.data);
    return status;
}
