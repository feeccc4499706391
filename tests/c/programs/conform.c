/* SPDX-License-Identifier: Apache-2.0 */
/* Carry out the conformance vectors of tests/conformance:
 *
 *   conform VECTORS ONNXRUNTIME SCRATCH [SECTION...]
 *
 * Each line that comes out otherwise is printed; the exit status is 1 then. README.md beside the
 * vectors says what the lines mean. */
#define _GNU_SOURCE
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conform/conform.h"
#include "contract.h"
#include "edge_imprint.h"
#include "head.h"

#define MAX_FIELDS 16

static const char *vectors, *library, *scratch;
static const char *section = "";
static size_t line_number, lines_run, failures;
ei_model *model;
ei_predictions *found;

bool wrong(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("manifest.txt:%zu (%s): ", line_number, section);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
    failures++;
    return false;
}

bool expect(ei_status status, const char *wanted)
{
    if (strcmp(ei_status_name(status), wanted) == 0)
        return true;
    return wrong("%s, not %s (%s)", ei_status_name(status), wanted,
                 status ? ei_last_error() : "no error");
}

void *must(void *memory)
{
    if (!memory) {
        fputs("conform: out of memory\n", stderr);
        exit(2);
    }
    return memory;
}

static char *path_of(const char *folder, const char *name)
{
    size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = must(malloc(bytes));
    snprintf(path, bytes, "%s/%s", folder, name);
    return path;
}

static void *read_path(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        fprintf(stderr, "conform: cannot read %s\n", path);
        exit(2);
    }
    *bytes = (size_t)ftell(file);
    rewind(file);
    void *data = must(malloc(*bytes ? *bytes : 1));
    if (fread(data, 1, *bytes, file) != *bytes)
        exit(2);
    fclose(file);
    return data;
}

void *read_vector(const char *name, size_t *bytes)
{
    char *path = path_of(vectors, name);
    void *data = read_path(path, bytes);
    free(path);
    return data;
}

double number(const char *text)
{
    static locale_t plain;
    plain = plain ? plain : newlocale(LC_ALL_MASK, "C", NULL);
    return strtod_l(text, NULL, plain);
}

bool near(const float *got, const float *wanted, size_t count, double tolerance,
          const char *what)
{
    for (size_t i = 0; i < count; i++) {
        double size = fabs((double)wanted[i]), off = fabs((double)got[i] - (double)wanted[i]);
        if (!(off <= tolerance * (size > 1 ? size : 1)))
            return wrong("%s %zu is %.9g, not %.9g", what, i, (double)got[i], (double)wanted[i]);
    }
    return true;
}

/* ------------------------------------------------------------------------------ commands -- */

static void do_open(const field *f)
{
    ei_close(model);
    model = NULL;
    char *path = path_of(vectors, f[0].text), *head = NULL;
    ei_options options = {.size = sizeof options, .library = library, .threads = 1};
    if (strcmp(f[1].text, "none") == 0)
        options.head = "";
    else if (strcmp(f[1].text, "beside") != 0)
        options.head = head = path_of(vectors, f[1].text);
    ei_status status = ei_open(path, &options, &model);
    if (expect(status, f[2].text) && status != EI_FILE_MISSING && status != EI_HEAD_FILE) {
        /* The same out of memory, which is gone when the model is used. No bytes at all are a
         * wrong argument there, not a wrong file. */
        size_t bytes;
        void *data = read_path(path, &bytes);
        if (!head && strcmp(f[1].text, "beside") == 0)
            head = strcat(must(realloc(path_of(vectors, f[0].text), strlen(path) + 6)), ".head");
        FILE *there = head ? fopen(head, "rb") : NULL;
        options.head = there ? head : "";
        if (there)
            fclose(there);
        ei_model *buffered = NULL;
        expect(ei_open_buffer(data, bytes, &options, &buffered),
               bytes ? f[2].text : "EI_INVALID_ARGUMENT");
        free(data);
        if (buffered) {
            ei_close(model);
            model = buffered;
        }
    }
    if (status && model)
        wrong("a model in spite of %s", ei_status_name(status));
    free(path);
    free(head);
}

static void do_describe(const field *f)
{
    static const char *const formats[] = {"rgb8", "bgr8", "nv12", "yuyv", "float32"};
    ei_description d = {.size = sizeof d};
    if (!expect(ei_describe(model, &d), "EI_OK"))
        return;
    const struct {
        const char *key, *text;
        int32_t number;
    } facts[] = {
        {"format", formats[d.format], 0},
        {"width", NULL, d.width},
        {"height", NULL, d.height},
        {"embedding_size", NULL, d.embedding_size},
        {"calibrated", NULL, d.calibrated},
        {"teachable", NULL, d.teachable},
        {"max_classes", NULL, d.max_classes},
        {"taught_proxies", NULL, d.taught_proxies},
        {"recipe", d.recipe, 0},
        {"backbone", d.backbone, 0},
        {"precision", d.precision, 0},
        {"target", d.target, 0},
        {"provider", d.provider, 0},
    };
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        if (strcmp(facts[i].key, f[0].text) != 0)
            continue;
        char digits[16];
        snprintf(digits, sizeof digits, "%d", (int)facts[i].number);
        const char *got = facts[i].text ? facts[i].text : digits;
        if (strcmp(got, f[1].text) != 0)
            wrong("%s is %s, not %s", f[0].text, got, f[1].text);
        return;
    }
    wrong("no fact %s", f[0].text);
}

static void do_classes(const field *f, size_t count)
{
    if (ei_class_count(model) != count) {
        wrong("%zu classes, not %zu", ei_class_count(model), count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        char name[1025];
        if (expect(ei_class_name(model, i, name, sizeof name), "EI_OK") &&
            strcmp(name, f[i].text) != 0)
            wrong("class %zu is %s, not %s", i, name, f[i].text);
    }
}

static void do_teach(const field *f)
{
    size_t bytes;
    float *rows = read_vector(f[1].text, &bytes);
    ei_status status =
        ei_teach_embeddings(model, f[0].text, rows, (size_t)atoi(f[2].text), atoi(f[3].text));
    expect(status, f[4].text);
    free(rows);
}

static void do_load(const field *f)
{
    char *path = path_of(vectors, f[0].text);
    expect(ei_load_head(model, path), f[1].text);
    free(path);
}

static void do_forget(const field *f)
{
    expect(ei_forget(model, f[0].text), f[1].text);
}

/* --------------------------------------------------------------------------------- files -- */

static bool same_numbers(const char *name, const void *got, const void *wanted, size_t count,
                         double tolerance)
{
    if (!got != !wanted)
        return wrong("%s is there or not there", name);
    return !got || near(got, wanted, count, tolerance, name);
}

static bool same_integers(const char *name, const int64_t *got, const int64_t *wanted,
                          size_t count)
{
    if (!got != !wanted)
        return wrong("%s is there or not there", name);
    for (size_t i = 0; got && i < count; i++)
        if (got[i] != wanted[i])
            return wrong("%s %zu is %lld, not %lld", name, i, (long long)got[i],
                         (long long)wanted[i]);
    return true;
}

static void compare_heads(const eip_head *a, const eip_head *b, double tolerance)
{
    size_t classes = a->contract.classes, size = (size_t)a->contract.embedding_size;
    if (classes != b->contract.classes || a->proxy_count != b->proxy_count ||
        a->width != b->width || a->sample_count != b->sample_count) {
        wrong("%zu classes, %zu proxies, %zu samples; not %zu, %zu, %zu", classes,
              a->proxy_count, a->sample_count, b->contract.classes, b->proxy_count,
              b->sample_count);
        return;
    }
    same_numbers("proxies", a->proxies, b->proxies, a->proxy_count * a->width, tolerance);
    same_numbers("center", a->center, b->center, size, 0);
    same_numbers("threshold", a->threshold, b->threshold, classes, tolerance);
    same_numbers("samples", a->samples, b->samples, a->sample_count * size, 0);
    same_integers("class_index", a->class_index, b->class_index, a->proxy_count);
    same_integers("sample_class", a->sample_class, b->sample_class, a->sample_count);
    same_integers("host_proxies", a->host_proxies, b->host_proxies, classes);
}

static void do_saved(const field *f)
{
    char *path = path_of(scratch, "saved.head"), *expected = path_of(vectors, f[0].text);
    double tolerance = number(f[1].text);
    size_t bytes, wanted_bytes;
    eip_head *a = NULL, *b = NULL;
    if (expect(ei_save_head(model, path), "EI_OK")) {
        char *data = read_path(path, &bytes), *wanted = read_path(expected, &wanted_bytes);
        if (tolerance == 0 && (bytes != wanted_bytes || memcmp(data, wanted, bytes) != 0))
            wrong("%s has other bytes", f[0].text);
        free(data);
        free(wanted);
        if (expect(eip_head_load(path, &a), "EI_OK") &&
            expect(eip_head_load(expected, &b), "EI_OK"))
            compare_heads(a, b, tolerance);
    }
    eip_head_free(a);
    eip_head_free(b);
    free(path);
    free(expected);
}

/* A head file on its own; one that is read is written again with the same bytes. */
static void do_head(const field *f)
{
    char *path = path_of(vectors, f[0].text);
    eip_head *head = NULL;
    ei_status status = eip_head_load(path, &head);
    if (expect(status, f[1].text) && status == EI_OK) {
        size_t bytes = 0, wanted_bytes;
        void *written = NULL, *wanted = read_path(path, &wanted_bytes);
        if (expect(eip_head_write(head, &written, &bytes), "EI_OK") &&
            (bytes != wanted_bytes || memcmp(written, wanted, bytes) != 0))
            wrong("%s is written with other bytes", f[0].text);
        free(written);
        free(wanted);
    }
    eip_head_free(head);
    free(path);
}

/* Metadata, and a key that is put in its place, or with "-" before it left out. */
static void do_contract(const field *f)
{
    size_t bytes;
    char *pairs = read_vector(f[0].text, &bytes), *at = pairs;
    eip_metadata metadata = {0};
    eip_contract contract = {0};
    const field *key = f + 2, *value = f + 3;
    const char *left_out = key->text + (*key->text == '-');
    ei_status status = EI_OK;
    while (status == EI_OK && at < pairs + bytes) {
        const char *name = at, *text = name + strlen(name) + 1;
        at = pairs + (text - pairs) + strlen(text) + 1;
        if (!key->bytes || strcmp(name, left_out) != 0)
            status = eip_metadata_add(&metadata, name, strlen(name), text, strlen(text));
    }
    if (status == EI_OK && key->bytes && *key->text != '-')
        status = eip_metadata_add(&metadata, key->text, key->bytes, value->text, value->bytes);
    if (status == EI_OK)
        status = eip_contract_read(&metadata, strcmp(f[1].text, "model") == 0, "m.onnx",
                                   &contract);
    if (!expect(status, f[4].text))
        printf("    %s = %.200s\n", key->text, value->text);
    eip_contract_clear(&contract);
    eip_metadata_clear(&metadata);
    free(pairs);
}

/* ------------------------------------------------------------------------------ the lines -- */

/* Turn %XX into bytes, in place. */
static field unescape(char *text)
{
    field f = {text, 0};
    for (const char *from = text; *from; f.bytes++) {
        unsigned byte = (unsigned char)*from++;
        if (byte == '%' && sscanf(from, "%2x", &byte) == 1)
            from += 2;
        text[f.bytes] = (char)byte;
    }
    text[f.bytes] = 0;
    return f;
}

/* A field that is not there is empty. */
static size_t split(char *line, field *fields)
{
    size_t count = 0;
    for (char *at = line; at && count < MAX_FIELDS; count++) {
        char *end = strchr(at, '\t');
        if (end)
            *end++ = 0;
        fields[count] = unescape(at);
        at = end;
    }
    for (size_t i = count; i < MAX_FIELDS; i++)
        fields[i] = (field){(char *)"", 0};
    return count;
}

static void run_line(const field *fields, size_t count)
{
    static const struct {
        const char *name;
        void (*run)(const field *);
        void (*run_counted)(const field *, size_t);
    } commands[] = {
        {"open", do_open, NULL},       {"describe", do_describe, NULL},
        {"classes", NULL, do_classes}, {"predict", do_predict, NULL},
        {"refuse", do_refuse, NULL},   {"embed", NULL, do_embed},
        {"prepare", do_prepare, NULL}, {"teach", do_teach, NULL},
        {"forget", do_forget, NULL},   {"load", do_load, NULL},
        {"saved", do_saved, NULL},     {"head", do_head, NULL},
        {"contract", do_contract, NULL},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(commands[i].name, fields[0].text) != 0)
            continue;
        if (commands[i].run)
            commands[i].run(fields + 1);
        else
            commands[i].run_counted(fields + 1, count - 1);
        lines_run++;
        return;
    }
    wrong("no command %s", fields[0].text);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fputs("conform VECTORS ONNXRUNTIME SCRATCH [SECTION...]\n", stderr);
        return 2;
    }
    /* As programs do that talk to people: the library must not mind. */
    if (setlocale(LC_ALL, "") && *localeconv()->decimal_point == ',')
        fputs("a decimal comma\n", stderr);
    vectors = argv[1], library = argv[2], scratch = argv[3];
    size_t bytes;
    char *text = read_vector("manifest.txt", &bytes);
    text = must(realloc(text, bytes + 1));
    text[bytes] = 0;
    bool chosen = false;
    for (char *line = text; line && *line;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        line_number++;
        field fields[MAX_FIELDS];
        size_t count = split(line, fields);
        if (strcmp(fields[0].text, "section") == 0) {
            section = fields[1].text;
            chosen = argc == 4;
            for (int i = 4; i < argc; i++)
                chosen = chosen || strcmp(section, argv[i]) == 0;
        } else if (chosen) {
            run_line(fields, count);
        }
        line = next;
    }
    ei_close(model);
    ei_free_predictions(found);
    free(text);
    printf("conform: %zu lines, %zu otherwise than expected\n", lines_run, failures);
    return failures || !lines_run;
}
