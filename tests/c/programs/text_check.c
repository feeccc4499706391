/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the library's readers of text and files, one question after the other, for tests.
 *
 * A question on stdin is a number of fields, and the fields: each a length and its bytes, all
 * numbers uint32 little-endian. The first field is the question's name, see `questions`. The
 * answer on stdout is one line of JSON: "status", "error", and what was asked for.
 *
 * What the following question meets with:
 *   fail K              its K-th allocation fails, from 1
 *   fault CALL ERRNO N  its first N calls of CALL fail; see faults.c
 *   short BYTES         reads and writes take that many bytes at most
 *
 * For the build, which looks here for what is wrapped: __wrap_calloc __wrap_posix_memalign
 * __wrap_read __wrap_write __wrap_fsync __wrap_close __wrap_renameat __wrap_fchmod __wrap_fchown
 * __wrap_getrandom __wrap_openat */
#include <locale.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract.h"
#include "contract_values.h"
#include "files.h"
#include "json.h"
#include "safetensors.h"
#include "text_check/faults.h"

#define MAX_FIELDS 4096

typedef struct field {
    char *data; /* a block of its own, so that reading beyond it is found */
    size_t bytes;
} field;

static field fields[MAX_FIELDS];
static uint32_t field_count;

/* ------------------------------------------------------------------------------- answers -- */

static void print_hex(const char *name, const void *data, size_t bytes)
{
    printf(",\"%s\":\"", name);
    for (size_t i = 0; i < bytes; i++)
        printf("%02x", ((const unsigned char *)data)[i]);
    printf("\"");
}

static void print_text(const char *name, const char *text)
{
    if (text)
        print_hex(name, text, strlen(text));
    else
        printf(",\"%s\":null", name);
}

static void print_status(ei_status status)
{
    printf("{\"status\":\"%s\"", ei_status_name(status));
    if (status)
        print_text("error", ei_last_error());
}

static char *text_of(uint32_t number)
{
    field *wanted = fields + number;
    char *text = malloc(wanted->bytes + 1);
    memcpy(text, wanted->data, wanted->bytes);
    text[wanted->bytes] = 0;
    return text;
}

static void print_metadata(const eip_metadata *metadata)
{
    printf(",\"metadata\":[");
    for (size_t i = 0; i < metadata->count; i++) {
        printf("%s{\"\":0", i ? "," : "");
        print_text("key", metadata->entries[i].key);
        print_text("value", metadata->entries[i].value);
        printf("}");
    }
    printf("]");
}

/* With a point, whatever the locale. */
static void print_number(const char *before, double number)
{
    char text[64];
    snprintf(text, sizeof text, "%.17g", number);
    text[strcspn(text, ",")] = strchr(text, ',') ? '.' : 0;
    printf("%s%s", before, text);
}

static void print_contract(const eip_contract *c)
{
    const eip_preprocess *p = &c->preprocess;
    printf(",\"labels\":[");
    for (size_t i = 0; i < c->classes; i++) {
        printf("%s{\"\":0", i ? "," : "");
        print_text("text", c->labels[i]);
        printf("}");
    }
    printf("],\"rule\":[%d,%d,%d,%d,%d]", (int)c->rule.embedding_norm,
           (int)c->rule.aggregation, (int)c->rule.distance, (int)c->rule.neighbors,
           (int)c->rule.weighting);
    printf(",\"embedding_size\":%d,\"has_backbone\":%d", (int)c->embedding_size,
           c->has_backbone);
    print_text("recipe", c->recipe);
    print_text("backbone", c->backbone);
    print_text("backbone_digest", c->backbone_digest);
    print_text("preprocess_line", c->preprocess_line);
    printf(",\"preprocess\":[%d,%d,%d,%d,%d,%d", (int)p->height, (int)p->width, (int)p->resize,
           (int)p->resize_height, (int)p->resize_width, (int)p->interpolation);
    for (int i = 0; i < 6; i++)
        print_number(",", i < 3 ? p->mean[i] : p->std[i - 3]);
    print_number("],\"temperature\":", c->temperature);
    printf(",\"has_graph\":%d,\"input\":%d,\"frame\":[%d,%d,%d],\"slots\":%d", c->has_graph,
           (int)c->input, (int)c->frame.format, (int)c->frame.height, (int)c->frame.width,
           (int)c->slots);
    print_text("precision", c->precision);
    print_text("target", c->target);
    printf(",\"teachable\":[%d,%d,%d],\"calibrated\":%d", (int)c->teachable,
           (int)c->max_classes, (int)c->taught_proxies, c->calibrated);
}

/* ----------------------------------------------------------------------------- questions -- */

/* contract MODEL WHERE KEY VALUE ...: MODEL is "1" or "0" */
static void ask_contract(void)
{
    eip_metadata metadata = {0};
    eip_contract contract = {0};
    ei_status status = EI_OK;
    char *where = text_of(2);
    for (uint32_t i = 3; i + 1 < field_count && !status; i += 2)
        status = eip_metadata_add(&metadata, fields[i].data, fields[i].bytes,
                                  fields[i + 1].data, fields[i + 1].bytes);
    if (!status)
        status = eip_contract_read(&metadata, *fields[1].data == '1', where, &contract);
    print_status(status);
    if (!status) {
        print_metadata(&metadata);
        print_contract(&contract);
    } else if (contract.classes || contract.labels || contract.recipe || contract.has_graph) {
        printf(",\"left\":true");
    }
    eip_contract_clear(&contract);
    eip_contract_clear(&contract);
    eip_metadata_clear(&metadata);
    free(where);
}

/* label TEXT */
static void ask_label(void)
{
    char *label = text_of(1);
    print_status(eip_check_label(label));
    free(label);
}

/* labels TEXT ...: written as JSON */
static void ask_labels(void)
{
    char *labels[MAX_FIELDS];
    for (uint32_t i = 1; i < field_count; i++)
        labels[i - 1] = text_of(i);
    char *written = eip_write_labels(labels, field_count - 1);
    print_status(written ? EI_OK : EI_OUT_OF_MEMORY);
    print_text("text", written);
    free(written);
    for (uint32_t i = 1; i < field_count; i++)
        free(labels[i - 1]);
}

/* safetensors FILE: read, its contract too, and what was read written again */
static void ask_safetensors(void)
{
    eip_array arrays[EIP_ARRAYS];
    eip_metadata metadata;
    eip_contract contract = {0};
    void *written = NULL;
    size_t bytes = 0;
    int flat = 1;
    ei_status status =
        eip_safetensors_read(fields[1].data, fields[1].bytes, arrays, &metadata);
    if (!status)
        status = eip_contract_read(&metadata, false, NULL, &contract);
    for (int i = 0; i < EIP_ARRAYS && !status; i++)
        flat = flat && arrays[i].dimensions <= 2;
    if (!status && flat)
        status = eip_safetensors_write(arrays, &metadata, &written, &bytes);
    print_status(status);
    if (!status) {
        print_metadata(&metadata);
        printf(",\"arrays\":[");
        for (int i = 0; i < EIP_ARRAYS; i++) {
            const eip_array *array = arrays + i;
            long at = array->data ? (long)((const char *)array->data - fields[1].data) : -1;
            printf("%s[%ld,%d,%llu,%llu]", i ? "," : "", at, array->dimensions,
                   (unsigned long long)array->shape[0], (unsigned long long)array->shape[1]);
        }
        printf("]");
        print_hex("written", written, bytes);
    } else if (written) {
        printf(",\"left\":true");
    }
    free(written);
    eip_contract_clear(&contract);
    eip_metadata_clear(&metadata);
}

/* string TEXT, natural TEXT: read as JSON, nothing but blanks around it */
static void ask_json(void)
{
    eip_json json = eip_json_begin(fields[1].data, fields[1].bytes);
    char *text = NULL;
    size_t bytes = 0;
    uint64_t value = 0;
    bool out_of_memory = false, natural = fields[0].bytes == 7;
    bool good = natural ? eip_json_natural(&json, &value)
                        : eip_json_string(&json, &text, &bytes, &out_of_memory);
    good = good && eip_json_done(&json);
    printf("{\"good\":%d,\"value\":%llu,\"out_of_memory\":%d", good, (unsigned long long)value,
           out_of_memory);
    print_text("problem", json.problem);
    print_hex("text", text, text ? bytes : 0);
    free(text);
}

/* utf8 TEXT */
static void ask_utf8(void)
{
    printf("{\"good\":%d", eip_is_utf8(fields[1].data, fields[1].bytes));
}

/* quote TEXT */
static void ask_quote(void)
{
    char quoted[EIP_QUOTED];
    print_status(EI_OK);
    print_text("text", eip_quote(fields[1].data, fields[1].bytes, quoted));
}

/* read PATH LIMIT STATUS */
static void ask_read(void)
{
    char *path = text_of(1), *limit = text_of(2), *called = text_of(3);
    void *data = NULL;
    size_t bytes = 0;
    ei_status status = eip_read_file(path, (size_t)strtoull(limit, NULL, 10),
                                     (ei_status)atoi(called), &data, &bytes);
    print_status(status);
    if (!status) {
        print_hex("data", data, bytes);
        printf(",\"aligned\":%d", (uintptr_t)data % 64 == 0);
    } else if (data) {
        printf(",\"left\":true");
    }
    free(data);
    free(path);
    free(limit);
    free(called);
}

/* write PATH DATA */
static void ask_write(void)
{
    char *path = text_of(1);
    print_status(eip_write_file(path, fields[2].data, fields[2].bytes));
    free(path);
}

/* exists PATH */
static void ask_exists(void)
{
    char *path = text_of(1);
    printf("{\"good\":%d", eip_exists(path));
    free(path);
}

/* locale NAME: of all that follows */
static void ask_locale(void)
{
    char *name = text_of(1);
    printf("{\"good\":%d", setlocale(LC_ALL, name) != NULL);
    free(name);
}

/* comma: whether the locale has one */
static void ask_comma(void)
{
    printf("{\"good\":%d", *localeconv()->decimal_point == ',');
}

static void ask_fail(void)
{
    char *at = text_of(1);
    printf("{\"good\":1");
    faults_fail(atol(at));
    free(at);
}

static void ask_fault(void)
{
    char *name = text_of(1), *number = text_of(2), *count = text_of(3);
    printf("{\"good\":%d", faults_of_call(name, atoi(number), atoi(count)));
    free(name);
    free(number);
    free(count);
}

static void ask_short(void)
{
    char *most = text_of(1);
    faults_short((size_t)atol(most));
    printf("{\"good\":1");
    free(most);
}

static const struct {
    const char *name;
    uint32_t fields;
    void (*ask)(void);
} questions[] = {
    {"contract", 3, ask_contract}, {"label", 2, ask_label},
    {"labels", 1, ask_labels},     {"safetensors", 2, ask_safetensors},
    {"string", 2, ask_json},       {"natural", 2, ask_json},
    {"utf8", 2, ask_utf8},         {"quote", 2, ask_quote},
    {"read", 4, ask_read},         {"write", 3, ask_write},
    {"exists", 2, ask_exists},     {"locale", 2, ask_locale},
    {"comma", 1, ask_comma},       {"fail", 2, ask_fail},
    {"fault", 4, ask_fault},       {"short", 2, ask_short},
};

static int take_question(void)
{
    if (fread(&field_count, 4, 1, stdin) != 1 || field_count > MAX_FIELDS)
        return 0;
    for (uint32_t i = 0; i < field_count; i++) {
        uint32_t bytes;
        if (fread(&bytes, 4, 1, stdin) != 1)
            return 0;
        fields[i].data = malloc(bytes ? bytes : 1);
        fields[i].bytes = bytes;
        if (bytes && fread(fields[i].data, bytes, 1, stdin) != 1)
            return 0;
    }
    return 1;
}

static int answer(void)
{
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        const char *name = questions[i].name;
        if (field_count < questions[i].fields || fields[0].bytes != strlen(name) ||
            memcmp(fields[0].data, name, fields[0].bytes) != 0)
            continue;
        /* The questions that prepare another one meet with nothing themselves. */
        int prepares = *name == 'f' || strcmp(name, "short") == 0;
        if (!prepares)
            faults_begin();
        questions[i].ask();
        if (!prepares)
            faults_end();
        printf(",\"failed\":%d,\"calls\":\"%s\"}\n", faults_failed, faults_called);
        return 1;
    }
    return 0;
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN); /* a limit on files stands for a full disk */
    while (take_question()) {
        if (!answer())
            return 2;
        fflush(stdout);
        for (uint32_t i = 0; i < field_count; i++)
            free(fields[i].data);
    }
    return 0;
}
