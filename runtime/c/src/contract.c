/* SPDX-License-Identifier: Apache-2.0 */
#include "contract.h"

#include <stdlib.h>
#include <string.h>

#include "contract_values.h"
#include "json.h"

#define VERSION "1"
#define MAX_EMBEDDING_SIZE 65536
#define MAX_SLOTS 1048576
/* JSON may spell one character in six bytes, and wants quotes, commas and brackets. */
#define MAX_LABELS_TEXT ((size_t)EIP_MAX_LABELS * (6 * EIP_MAX_LABEL_BYTES + 4))

/* The keys, sorted: of what is missing the first is named. */
typedef enum key {
    BACKBONE,
    BACKBONE_DIGEST,
    BACKBONE_WEIGHTS,
    EMBEDDING_SIZE,
    HEAD_PRECISION,
    INPUT,
    LABELS,
    PRECISION,
    PREPROCESS,
    RECIPE,
    RULE,
    SLOTS,
    TARGET,
    TEACHABLE,
    TEMPERATURE,
    VERSION_KEY,
    KEYS
} key;

static const char *const NAMES[KEYS] = {
    "backbone", "backbone_digest", "backbone_weights", "embedding_size", "head_precision",
    "input",    "labels",          "precision",        "preprocess",     "recipe",
    "rule",     "slots",           "target",           "teachable",      "temperature",
    "version",
};

#define BIT(name) (1u << (name))
#define IN_HEAD \
    (BIT(VERSION_KEY) | BIT(LABELS) | BIT(RULE) | BIT(RECIPE) | BIT(EMBEDDING_SIZE))
#define OF_BACKBONE \
    (BIT(BACKBONE) | BIT(BACKBONE_WEIGHTS) | BIT(BACKBONE_DIGEST) | BIT(PREPROCESS))
#define OF_GRAPH \
    (BIT(INPUT) | BIT(SLOTS) | BIT(PRECISION) | BIT(HEAD_PRECISION) | BIT(TARGET))

/* ------------------------------------------------------------------------------ metadata -- */

static bool begins_with(const char *text, size_t bytes, const char *prefix)
{
    size_t length = strlen(prefix);
    return bytes >= length && memcmp(text, prefix, length) == 0;
}

static char *copy(const char *text, size_t bytes)
{
    char *copied = eip_allocate(bytes + 1, 1);
    for (size_t i = 0; copied && i < bytes; i++)
        copied[i] = text[i] ? text[i] : '\xFF'; /* no C string holds NUL, and no UTF-8 this */
    return copied;
}

static bool is_plain(const char *text, size_t bytes)
{
    return !(bytes && memchr(text, 0, bytes)) && eip_is_utf8(text, bytes);
}

ei_status eip_metadata_add(eip_metadata *metadata, const char *key_, size_t key_bytes,
                           const char *value, size_t value_bytes)
{
    if (!begins_with(key_, key_bytes, EIP_PREFIX))
        return EI_OK;
    if (begins_with(key_, key_bytes, EIP_NOTE_PREFIX) &&
        !(is_plain(key_, key_bytes) && is_plain(value, value_bytes)))
        return EI_OK;
    if (metadata->count == metadata->capacity) {
        size_t capacity = 2 * metadata->capacity + 24;
        eip_entry *larger = eip_allocate(capacity, sizeof *larger);
        if (!larger)
            return EI_OUT_OF_MEMORY;
        if (metadata->count)
            memcpy(larger, metadata->entries, metadata->count * sizeof *larger);
        free(metadata->entries);
        metadata->entries = larger;
        metadata->capacity = capacity;
    }
    eip_entry entry = {copy(key_, key_bytes), NULL};
    entry.value = entry.key ? copy(value, value_bytes) : NULL;
    if (!entry.value) {
        free(entry.key);
        return EI_OUT_OF_MEMORY;
    }
    metadata->entries[metadata->count++] = entry;
    return EI_OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const eip_entry *)a)->key, ((const eip_entry *)b)->key);
}

const char *eip_metadata_sort(eip_metadata *metadata)
{
    if (metadata->count)
        qsort(metadata->entries, metadata->count, sizeof *metadata->entries, by_key);
    for (size_t i = 1; i < metadata->count; i++)
        if (by_key(metadata->entries + i - 1, metadata->entries + i) == 0)
            return metadata->entries[i].key;
    return NULL;
}

const char *eip_metadata_get(const eip_metadata *metadata, const char *name)
{
    for (size_t i = 0; i < metadata->count; i++)
        if (strcmp(metadata->entries[i].key + strlen(EIP_PREFIX), name) == 0)
            return metadata->entries[i].value;
    return NULL;
}

void eip_metadata_clear(eip_metadata *metadata)
{
    for (size_t i = 0; i < metadata->count; i++) {
        free(metadata->entries[i].key);
        free(metadata->entries[i].value);
    }
    free(metadata->entries);
    *metadata = (eip_metadata){0};
}

/* --------------------------------------------------------------------------------- labels -- */

ei_status eip_check_label(const char *label)
{
    char quoted[EIP_QUOTED], name[EIP_QUOTED + 8] = "label ";
    size_t bytes = strlen(label);
    if (bytes >= 1 && bytes <= EIP_MAX_LABEL_BYTES && eip_is_utf8(label, bytes))
        return EI_OK; /* there may be 65,536 of them: no time for their names */
    strcat(name, eip_quote(label, bytes, quoted));
    return eip_check_text(name, label, EIP_MAX_LABEL_BYTES);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Find a label that is there twice, by sorting: comparing every pair would take a minute. */
static ei_status check_unique(char *const *labels, size_t count)
{
    const char **sorted = eip_allocate(count, sizeof *sorted);
    if (!sorted)
        return EI_OUT_OF_MEMORY;
    memcpy(sorted, labels, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_text);
    ei_status status = EI_OK;
    for (size_t i = 1; i < count && !status; i++) {
        char quoted[EIP_QUOTED];
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            status = eip_fail(EI_CONTRACT_VALUE,
                              "labels must be unique, but %s is there twice",
                              eip_quote(sorted[i], strlen(sorted[i]), quoted));
    }
    free(sorted);
    return status;
}

/* Walk the JSON array: count its strings and their bytes, or write them down. */
static bool walk_labels(eip_json *json, char **labels, char *to, size_t *count, size_t *bytes)
{
    *count = *bytes = 0;
    if (!eip_json_take(json, '['))
        return false;
    if (eip_json_take(json, ']'))
        return eip_json_done(json);
    do {
        size_t length;
        if (!eip_json_decode(json, to ? to + *bytes : NULL, &length))
            return false;
        if (to)
            labels[*count] = to + *bytes;
        *count += 1;
        *bytes += length + 1;
    } while (eip_json_take(json, ','));
    return eip_json_take(json, ']') && eip_json_done(json);
}

static ei_status read_labels(const char *text, eip_contract *contract)
{
    eip_json json = eip_json_begin(text, strlen(text)), again = json;
    size_t count, bytes;
    if (!walk_labels(&json, NULL, NULL, &count, &bytes))
        return eip_fail(EI_CONTRACT_VALUE, "labels must be a JSON array of text%s%s",
                        json.problem ? ": " : "", json.problem ? json.problem : "");
    if (count < 1 || count > EIP_MAX_LABELS)
        return eip_fail(EI_CONTRACT_VALUE, "there must be 1 to %d labels, got %zu",
                        EIP_MAX_LABELS, count);
    char **labels = eip_allocate(count * sizeof *labels + bytes, 1);
    if (!labels)
        return EI_OUT_OF_MEMORY;
    walk_labels(&again, labels, (char *)(labels + count), &count, &bytes);
    contract->labels = labels;
    contract->classes = count;
    const char *end = (char *)(labels + count) + bytes;
    for (size_t i = 0; i < count; i++) {
        /* The memory was zero: a label's NUL stands where the next begins, unless within. */
        const char *next = i + 1 < count ? labels[i + 1] : end;
        if (strlen(labels[i]) + 1 != (size_t)(next - labels[i]))
            return eip_fail(EI_CONTRACT_VALUE, "label %zu holds NUL; rename it", i);
        ei_status status = eip_check_label(labels[i]);
        if (status)
            return status;
    }
    return check_unique(labels, count);
}

char *eip_write_labels(char *const *labels, size_t count)
{
    eip_text text = {0};
    for (size_t i = 0; i < count; i++) {
        eip_text_add(&text, i ? "," : "[", 1);
        eip_text_add_json(&text, labels[i]);
    }
    eip_text_add(&text, count ? "]" : "[]", count ? 1 : 2);
    if (text.failed) {
        free(text.data);
        return NULL;
    }
    return text.data;
}

/* -------------------------------------------------------------------------------- reading -- */

/* What metadata say, by key; `unknown` is the first of those that nobody knows. */
typedef struct texts {
    const char *of[KEYS];
    unsigned found, twice;
    const char *unknown;
    bool any;
} texts;

static texts sort_out(const eip_metadata *metadata)
{
    texts sorted = {0};
    for (size_t i = 0; i < metadata->count; i++) {
        const char *name = metadata->entries[i].key + strlen(EIP_PREFIX);
        if (strncmp(name, "note.", 5) == 0)
            continue;
        sorted.any = true;
        int k = 0;
        while (k < KEYS && strcmp(NAMES[k], name) != 0)
            k++;
        if (k == KEYS) {
            if (!sorted.unknown || strcmp(name, sorted.unknown) < 0)
                sorted.unknown = name;
            continue;
        }
        sorted.twice |= sorted.found & BIT(k);
        sorted.found |= BIT(k);
        sorted.of[k] = metadata->entries[i].value;
    }
    return sorted;
}

static key lowest(unsigned bits)
{
    int k = 0;
    while (!(bits & BIT(k)))
        k++;
    return (key)k;
}

static ei_status check_version(const texts *text)
{
    char quoted[EIP_QUOTED];
    const char *version = text->of[VERSION_KEY];
    if (version && strcmp(version, VERSION) == 0)
        return EI_OK;
    return eip_fail(EI_CONTRACT_VERSION,
                    "the metadata has %s%s, this release reads version '" VERSION
                    "'; use a matching edge-imprint or export the model again",
                    version ? "version " : "no version",
                    version ? eip_quote(version, strlen(version), quoted) : "");
}

static ei_status check_keys(const texts *text, bool model)
{
    unsigned required = model ? IN_HEAD | OF_GRAPH : IN_HEAD;
    unsigned optional = model ? BIT(TEMPERATURE) | BIT(TEACHABLE) : BIT(TEMPERATURE);
    /* Of what takes embeddings, a head or a model of a head alone, the backbone may be unknown:
     * all of its keys, or none. */
    bool bare = !model || (text->of[INPUT] && !strcmp(text->of[INPUT], "float32 embedding"));
    if (!bare || (text->found & OF_BACKBONE))
        required |= OF_BACKBONE;
    unsigned missing = required & ~text->found, stray = text->found & ~required & ~optional;
    if (missing)
        return eip_fail(EI_CONTRACT_KEY, "the metadata lacks the key " EIP_PREFIX "%s",
                        NAMES[lowest(missing)]);
    const char *unknown = stray ? NAMES[lowest(stray)] : text->unknown;
    if (stray && text->unknown && strcmp(text->unknown, unknown) < 0)
        unknown = text->unknown;
    if (unknown) {
        char quoted[EIP_QUOTED];
        return eip_fail(EI_CONTRACT_KEY, "the metadata has the unknown key '" EIP_PREFIX "%s",
                        eip_quote(unknown, strlen(unknown), quoted) + 1);
    }
    if (text->twice)
        return eip_fail(EI_CONTRACT_KEY, "the metadata has the key " EIP_PREFIX "%s twice",
                        NAMES[lowest(text->twice)]);
    return EI_OK;
}

static ei_status check_sizes(const texts *text)
{
    for (int k = 0; k < KEYS; k++) {
        size_t limit = k == LABELS ? MAX_LABELS_TEXT : EIP_MAX_TEXT_BYTES, length = 0;
        for (const char *at = text->of[k]; at && *at; at++)
            length += (*at & 0xC0) != 0x80; /* characters, not bytes */
        if (length > limit)
            return eip_fail(EI_CONTRACT_VALUE, "%s must be at most %zu characters, got %zu",
                            NAMES[k], limit, length);
    }
    return EI_OK;
}

static ei_status read_backbone(const texts *text, eip_contract *contract)
{
    ei_status status;
    contract->has_backbone = true;
    contract->backbone = text->of[BACKBONE];
    contract->backbone_digest = text->of[BACKBONE_DIGEST];
    contract->preprocess_line = text->of[PREPROCESS];
    if ((status = eip_read_preprocess(text->of[PREPROCESS], &contract->preprocess)) ||
        (status = eip_check_text("backbone", text->of[BACKBONE], EIP_MAX_TEXT_BYTES)) ||
        (status = eip_check_text("backbone_weights", text->of[BACKBONE_WEIGHTS],
                                 EIP_MAX_TEXT_BYTES)))
        return status;
    return eip_check_digest(text->of[BACKBONE_DIGEST]);
}

static ei_status read_graph(const texts *text, eip_contract *contract)
{
    static const char precisions[] = "'fp32' or 'fp16' or 'int8' or 'exact'";
    char of_backbone[] = "'fp32' or 'fp16' or 'int8'";
    ei_status status;
    int ignored, head_precision;
    contract->has_graph = true;
    contract->precision = text->of[PRECISION];
    contract->target = text->of[TARGET];
    if ((status = eip_read_input(text->of[INPUT], &contract->input, &contract->frame)) ||
        (status = eip_read_count("slots", text->of[SLOTS], MAX_SLOTS, &contract->slots)) ||
        (text->of[TEACHABLE] &&
         (status = eip_read_teachable(text->of[TEACHABLE], contract))) ||
        (status = eip_read_choice("precision", text->of[PRECISION], of_backbone, &ignored)) ||
        (status = eip_read_choice("head_precision", text->of[HEAD_PRECISION], precisions,
                                  &head_precision)) ||
        (status = eip_check_target(text->of[TARGET])))
        return status;
    if (contract->teachable && head_precision != 0)
        return eip_fail(EI_CONTRACT_VALUE,
                        "the proxies of a teachable model are fp32, got head_precision '%s'",
                        text->of[HEAD_PRECISION]);
    return EI_OK;
}

static ei_status read_temperature(const texts *text, eip_contract *contract)
{
    if (!text->of[TEMPERATURE])
        return EI_OK;
    contract->calibrated = true;
    ei_status status = eip_read_temperature(text->of[TEMPERATURE], &contract->temperature);
    for (size_t i = 0; i < contract->classes && !status; i++)
        if (strcmp(contract->labels[i], EIP_UNKNOWN) == 0)
            status = eip_fail(EI_CONTRACT_VALUE,
                              "no class of a calibrated head may be named '" EIP_UNKNOWN
                              "', its answer where it knows none; rename the class");
    return status;
}

static ei_status read_values(const texts *text, eip_contract *contract)
{
    ei_status status;
    contract->recipe = text->of[RECIPE];
    if ((text->of[BACKBONE] && (status = read_backbone(text, contract))) ||
        (text->of[INPUT] && (status = read_graph(text, contract))) ||
        (status = read_labels(text->of[LABELS], contract)) ||
        (status = eip_read_rule(text->of[RULE], &contract->rule)) ||
        (status = eip_read_count("embedding_size", text->of[EMBEDDING_SIZE],
                                 MAX_EMBEDDING_SIZE, &contract->embedding_size)) ||
        (status = eip_check_text("recipe", text->of[RECIPE], EIP_MAX_TEXT_BYTES)))
        return status;
    return read_temperature(text, contract);
}

ei_status eip_contract_read(const eip_metadata *metadata, bool model, const char *where,
                            eip_contract *contract)
{
    const char *name = where && *where ? where : "this file";
    texts text = sort_out(metadata);
    ei_status status;
    *contract = (eip_contract){0};
    if (!text.any && eip_metadata_get(metadata, "note.backbone_digest"))
        return eip_fail(EI_NO_CONTRACT,
                        "%s is a backbone alone, which answers embeddings to programs of your "
                        "own; export it with its head to classify with it",
                        name);
    if (!text.any)
        return eip_fail(EI_NO_CONTRACT,
                        "%s carries no edge-imprint metadata; make one with 'edge-imprint "
                        "build' and 'edge-imprint export'",
                        name);
    if ((status = check_version(&text)) || (status = check_keys(&text, model)) ||
        (status = check_sizes(&text)) || (status = read_values(&text, contract))) {
        eip_contract_clear(contract);
        return status == EI_OUT_OF_MEMORY ? status : eip_where(status, where);
    }
    return EI_OK;
}

void eip_contract_clear(eip_contract *contract)
{
    free(contract->labels);
    *contract = (eip_contract){0};
}
