/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any metadata are read or refused, and what is read keeps to its limits.
 *
 * An input is a byte whose lowest bit says `model`, then KEY, byte 1, VALUE, byte 2, and so on.
 * Keys have the prefix already, but for those that begin with byte 3. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "contract.h"
#include "contract_values.h"

#define HOLD(what)   \
    do {             \
        if (!(what)) \
            abort(); \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void add(eip_metadata *metadata, const char *entry, size_t bytes)
{
    static const char prefix[] = EIP_PREFIX;
    const char *middle = memchr(entry, 1, bytes);
    size_t key_bytes = middle ? (size_t)(middle - entry) : bytes;
    size_t value_bytes = middle ? bytes - key_bytes - 1 : 0;
    bool bare = key_bytes && *entry == 3;
    size_t begin = bare ? 0 : sizeof prefix - 1;
    /* Exactly as long as they are: what reads beyond is found. */
    char *key = malloc(begin + key_bytes + 1), *value = malloc(value_bytes + 1);
    memcpy(key, prefix, begin);
    memcpy(key + begin, entry + bare, key_bytes - bare);
    if (value_bytes)
        memcpy(value, middle + 1, value_bytes);
    HOLD(!eip_metadata_add(metadata, key, begin + key_bytes - bare, value, value_bytes));
    free(key);
    free(value);
}

/* Labels that are read are written, and read again. */
static void write_again(const eip_contract *contract, const eip_metadata *metadata, bool model)
{
    char *text = eip_write_labels(contract->labels, contract->classes);
    eip_metadata again = {0};
    eip_contract second;
    HOLD(text);
    for (size_t i = 0; i < metadata->count; i++) {
        const eip_entry *entry = metadata->entries + i;
        const char *value = strcmp(entry->key, EIP_PREFIX "labels") ? entry->value : text;
        HOLD(!eip_metadata_add(&again, entry->key, strlen(entry->key), value, strlen(value)));
    }
    HOLD(!eip_contract_read(&again, model, "again", &second));
    HOLD(second.classes == contract->classes);
    for (size_t i = 0; i < second.classes; i++)
        HOLD(strcmp(second.labels[i], contract->labels[i]) == 0);
    eip_contract_clear(&second);
    eip_metadata_clear(&again);
    free(text);
}

static void check(const eip_contract *contract, bool model)
{
    HOLD(contract->classes >= 1 && contract->classes <= EIP_MAX_LABELS);
    for (size_t i = 0; i < contract->classes; i++) {
        HOLD(!eip_check_label(contract->labels[i]));
        HOLD(!contract->calibrated || strcmp(contract->labels[i], EIP_UNKNOWN) != 0);
    }
    HOLD(contract->embedding_size >= 1 && contract->embedding_size <= 65536);
    HOLD(contract->rule.neighbors >= 1 && *contract->recipe && contract->has_graph == model);
    if (contract->calibrated)
        HOLD(contract->temperature >= 1e-12 && contract->temperature <= 1e12);
    if (contract->has_backbone) {
        const eip_preprocess *p = &contract->preprocess;
        HOLD(p->height >= 1 && p->width >= 1 && p->resize_height >= 1 && p->resize_width >= 1);
        HOLD(p->height <= EIP_MAX_SIDE && p->resize_width <= EIP_MAX_SIDE);
        for (int i = 0; i < 3; i++)
            HOLD(p->std[i] > 0 && p->mean[i] - p->mean[i] == 0 && p->std[i] - p->std[i] == 0);
    }
    if (contract->teachable)
        HOLD(contract->max_classes >= 1 && contract->taught_proxies >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    eip_metadata metadata = {0};
    eip_contract contract;
    if (!bytes)
        return 0;
    bool model = *data & 1;
    const char *at = (const char *)data + 1, *end = (const char *)data + bytes;
    while (at < end) {
        const char *stop = memchr(at, 2, (size_t)(end - at));
        add(&metadata, at, (size_t)((stop ? stop : end) - at));
        at = stop ? stop + 1 : end;
    }
    if (!eip_contract_read(&metadata, model, "fuzz", &contract)) {
        check(&contract, model);
        write_again(&contract, &metadata, model);
    } else {
        HOLD(*ei_last_error() && !strchr(ei_last_error(), '\n'));
        HOLD(!contract.labels && !contract.classes);
    }
    eip_contract_clear(&contract);
    eip_metadata_clear(&metadata);
    return 0;
}
