/* SPDX-License-Identifier: Apache-2.0 */
#include "profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "pixels.h"

/* Fewest, usual and most images of an engine. */
static const int batch[3] = {1, 1, 8};

#define MOST_DIGITS 9
#define MOST_SIDES 8

typedef struct shape {
    int sides;
    long side[MOST_SIDES];
    const char *text; /* as it stands in the note */
    size_t bytes;
} shape;

void eip_profile_clear(eip_profile *profile)
{
    free((void *)profile->minimum);
    free((void *)profile->optimum);
    free((void *)profile->maximum);
    *profile = (eip_profile){0};
}

/* Read sides such as `8x25`: digits, no leading zero. Return what follows, or NULL. */
static const char *read_shape(const char *at, shape *read)
{
    *read = (shape){.text = at};
    for (;;) {
        long side = 0;
        int digits = 0;
        if (*at < '1' || *at > '9')
            return NULL;
        for (; *at >= '0' && *at <= '9'; at++, digits++)
            side = digits < MOST_DIGITS ? side * 10 + (*at - '0') : 0;
        if (digits > MOST_DIGITS || read->sides == MOST_SIDES)
            return NULL;
        read->side[read->sides++] = side;
        if (*at != 'x')
            break;
        at++;
    }
    read->bytes = (size_t)(at - read->text);
    return at;
}

static bool is_ascending(const shape *low, const shape *high)
{
    bool ascends = low->sides == high->sides;
    for (int i = 0; ascends && i < low->sides; i++)
        ascends = low->side[i] <= high->side[i];
    return ascends;
}

static bool is_blank(char byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Read `NAME:MIN,OPT,MAX`. Return what follows, or NULL. */
static const char *read_entry(const char *at, size_t *name_bytes, shape shapes[3])
{
    const char *name = at;
    while (*at && *at != ':' && !is_blank(*at))
        at++;
    *name_bytes = (size_t)(at - name);
    if (!*name_bytes || *at != ':')
        return NULL;
    for (int i = 0; i < 3; i++) {
        at = read_shape(at + 1, shapes + i);
        if (!at || *at != (i < 2 ? ',' : *at))
            return NULL;
    }
    bool ends = !*at || is_blank(*at);
    return ends && is_ascending(shapes, shapes + 1) && is_ascending(shapes + 1, shapes + 2)
               ? at
               : NULL;
}

static void add_images(const eip_contract *contract, eip_text texts[3])
{
    eip_intake intake = eip_intake_of(contract);
    ei_image image = {.width = intake.width, .height = intake.height};
    int64_t sides[4];
    int dimensions;
    eip_intake_shape(&intake, &image, 1, sides, &dimensions);
    for (int i = 0; i < 3; i++) {
        char line[128];
        int bytes = snprintf(line, sizeof line, "%s:%d",
                             intake.input == EIP_INPUT_EMBEDDING ? "embedding" : "images",
                             batch[i]);
        for (int k = 1; k < dimensions; k++)
            bytes += snprintf(line + bytes, sizeof line - (size_t)bytes, "x%lld",
                              (long long)sides[k]);
        eip_text_add(texts + i, line, (size_t)bytes);
    }
}

static ei_status add_noted(const char *note, const char *where, eip_text texts[3])
{
    static const char proxies[] = "proxies";
    bool has_proxies = false;
    for (const char *at = note; at;) {
        while (is_blank(*at))
            at++;
        if (!*at)
            break;
        shape shapes[3];
        size_t name_bytes;
        const char *end = read_entry(at, &name_bytes, shapes);
        if (!end)
            return eip_fail(EI_MODEL_FILE,
                            "%s: the note 'profile' must read 'NAME:MIN,OPT,MAX', got '%.80s'; "
                            "export it again",
                            where, at);
        for (int i = 0; i < 3; i++) {
            eip_text_add(texts + i, ",", 1);
            eip_text_add(texts + i, at, name_bytes + 1);
            eip_text_add(texts + i, shapes[i].text, shapes[i].bytes);
        }
        has_proxies |= name_bytes == sizeof proxies - 1 && !memcmp(at, proxies, name_bytes);
        at = end;
    }
    if (!has_proxies) /* which grow under every rule */
        return eip_fail(EI_MODEL_FILE,
                        "%s does not say which shapes its input 'proxies' may have (its note "
                        "'profile'); export it again",
                        where);
    return EI_OK;
}

ei_status eip_profile_make(const eip_metadata *metadata, const eip_contract *contract,
                           const char *where, eip_profile *profile, bool *made)
{
    *profile = (eip_profile){.max_batch = batch[2]};
    *made = false;
    bool any_size = contract->input == EIP_INPUT_FRAME && !contract->frame.width;
    if (any_size || contract->teachable == EIP_TEACHABLE_DEFAULT)
        return EI_OK;
    eip_text texts[3] = {{0}};
    add_images(contract, texts);
    ei_status status = EI_OK;
    if (contract->teachable == EIP_TEACHABLE_INPUT)
        status = add_noted(eip_metadata_get(metadata, "note.profile"), where, texts);
    profile->minimum = texts[0].data;
    profile->optimum = texts[1].data;
    profile->maximum = texts[2].data;
    if (!status && (texts[0].failed || texts[1].failed || texts[2].failed))
        status = eip_fail(EI_OUT_OF_MEMORY, "there is not enough memory for the profile");
    if (status)
        eip_profile_clear(profile);
    else
        *made = true;
    return status;
}
