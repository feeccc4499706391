/* SPDX-License-Identifier: Apache-2.0 */
#include "contract_values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define MAX_SLOTS 1048576
#define MIN_TEMPERATURE 1e-12
#define MAX_TEMPERATURE 1e12

/* A piece of a line. */
typedef struct span {
    const char *at;
    size_t bytes;
} span;

static span whole(const char *text)
{
    return (span){text, strlen(text)};
}

static bool is(span text, const char *wanted)
{
    return text.bytes == strlen(wanted) && memcmp(text.at, wanted, text.bytes) == 0;
}

/* Take the text up to a separator off the front, or all of it; returns it. */
static span cut(span *rest, char separator)
{
    span part = *rest;
    const char *found = part.bytes ? memchr(part.at, separator, part.bytes) : NULL;
    if (found)
        part.bytes = (size_t)(found - part.at);
    size_t taken = part.bytes + (found ? 1 : 0);
    rest->at += taken;
    rest->bytes -= taken;
    return part;
}

const char *eip_quote(const char *text, size_t bytes, char *quoted)
{
    const char *end = text + bytes, *last = text + (bytes < 80 ? bytes : 80);
    char *to = quoted;
    *to++ = '\'';
    while (text < last) {
        size_t step = eip_utf8(text, end);
        if (step && (unsigned char)*text >= 0x20 && *text != 0x7F) {
            memcpy(to, text, step);
            to += step;
            text += step;
        } else {
            to += sprintf(to, "\\x%02x", (unsigned)(unsigned char)*text++);
        }
    }
    strcpy(to, text < end ? "'..." : "'");
    return quoted;
}

/* Fail with "NAME must WANTED, got TEXT". */
static ei_status malformed(const char *name, const char *wanted, span text)
{
    char quoted[EIP_QUOTED];
    return eip_fail(EI_CONTRACT_VALUE, "%s must %s, got %s", name, wanted,
                    eip_quote(text.at, text.bytes, quoted));
}

ei_status eip_check_text(const char *name, const char *text, size_t limit)
{
    size_t bytes = strlen(text);
    if (!eip_is_utf8(text, bytes))
        return eip_fail(EI_CONTRACT_VALUE,
                        "%s holds NUL or is not valid Unicode text; rename it", name);
    if (bytes < 1 || bytes > limit)
        return eip_fail(EI_CONTRACT_VALUE,
                        "%s must be 1 to %zu bytes of text without NUL, got %zu bytes", name,
                        limit, bytes);
    return EI_OK;
}

/* ------------------------------------------------------------------------------- numbers -- */

static ei_status read_count(const char *name, span text, int32_t least, int32_t limit,
                            int32_t *value)
{
    int32_t sum = 0;
    bool good = text.bytes >= 1 && text.bytes <= 9;
    for (size_t i = 0; good && i < text.bytes; i++) {
        good = text.at[i] >= '0' && text.at[i] <= '9';
        sum = 10 * sum + (text.at[i] - '0');
    }
    if (!good)
        return malformed(name, "be a whole number", text);
    if (sum < least || sum > limit)
        return eip_fail(EI_CONTRACT_VALUE, "%s must be an integer from %d to %d, got %d", name,
                        (int)least, (int)limit, (int)sum);
    *value = sum;
    return EI_OK;
}

ei_status eip_read_count(const char *name, const char *text, int32_t limit, int32_t *value)
{
    return read_count(name, whole(text), 1, limit, value);
}

static size_t digits(span *text, char **to, size_t most)
{
    size_t count = 0;
    for (; text->bytes && *text->at >= '0' && *text->at <= '9' && count <= most; count++) {
        *(*to)++ = *text->at++;
        text->bytes--;
    }
    return count >= 1 && count <= most ? count : 0;
}

/* Read a number: digits, then perhaps a fraction and an exponent. strtod sees whole digits and an
 * exponent only, since the decimal point that it knows is the locale's. */
static bool read_number(span text, bool signed_, double *value)
{
    char plain[64], *to = plain;
    size_t fraction = 0;
    int exponent = 0;
    bool negative = signed_ && text.bytes && *text.at == '-';
    if (negative) {
        text.at++;
        text.bytes--;
    }
    if (!digits(&text, &to, 20))
        return false;
    if (text.bytes && *text.at == '.') {
        text.at++;
        text.bytes--;
        fraction = digits(&text, &to, 20);
        if (!fraction)
            return false;
    }
    if (text.bytes && *text.at == 'e') {
        char power[8], *end = power;
        text.at++;
        text.bytes--;
        bool down = text.bytes && *text.at == '-';
        if (down || (text.bytes && *text.at == '+')) {
            text.at++;
            text.bytes--;
        }
        if (!digits(&text, &end, 3))
            return false;
        *end = 0;
        exponent = (int)strtol(power, NULL, 10) * (down ? -1 : 1);
    }
    if (text.bytes)
        return false;
    snprintf(to, sizeof plain - (size_t)(to - plain), "e%d", exponent - (int)fraction);
    *value = strtod(plain, NULL) * (negative ? -1 : 1);
    return true;
}

static ei_status read_three(const char *name, span text, double *values)
{
    span rest = text;
    for (int i = 0; i < 3; i++)
        if (!read_number(cut(&rest, ','), true, values + i) || (i < 2 && !rest.bytes))
            return malformed(name, "be three numbers", text);
    /* A comma at the end leaves nothing, as no comma does. */
    if (rest.bytes || text.at[text.bytes - 1] == ',')
        return malformed(name, "be three numbers", text);
    for (int i = 0; i < 3; i++)
        if (!isfinite(values[i]))
            return malformed(name, "be three finite numbers", text);
    return EI_OK;
}

ei_status eip_read_temperature(const char *text, double *temperature)
{
    if (!read_number(whole(text), false, temperature) || *temperature < MIN_TEMPERATURE ||
        *temperature > MAX_TEMPERATURE)
        return malformed("temperature", "be a number from 1e-12 to 1e+12", whole(text));
    return EI_OK;
}

/* --------------------------------------------------------------------------------- words -- */

/* The message's own list is the table: 'this' or 'that'. */
static ei_status read_choice(const char *name, span text, const char *choices, int *value)
{
    const char *at = choices;
    for (int i = 0; (at = strchr(at, '\'')); i++) {
        const char *end = strchr(++at, '\'');
        if (text.bytes == (size_t)(end - at) && memcmp(text.at, at, text.bytes) == 0) {
            *value = i;
            return EI_OK;
        }
        at = end + 1;
    }
    char quoted[EIP_QUOTED];
    return eip_fail(EI_CONTRACT_VALUE, "%s must be %s, got %s", name, choices,
                    eip_quote(text.at, text.bytes, quoted));
}

ei_status eip_read_choice(const char *name, const char *text, const char *choices, int *value)
{
    return read_choice(name, whole(text), choices, value);
}

/* Split `a=1 b=2` of exactly these keys in this order; keys are parted by blanks. */
static ei_status read_pairs(const char *name, const char *text, const char *keys, span *values)
{
    span rest = whole(text), wanted = whole(keys);
    bool good = true;
    for (size_t i = 0; good && wanted.bytes; i++) {
        span part = cut(&rest, ' '), key = cut(&wanted, ' ');
        values[i] = part;
        span given = cut(&values[i], '=');
        good = given.bytes == key.bytes && memcmp(given.at, key.at, key.bytes) == 0;
    }
    /* A blank at the end leaves nothing to cut, as the end does. */
    size_t bytes = strlen(text);
    if (good && !rest.bytes && text[bytes - 1] != ' ')
        return EI_OK;
    char form[96] = "", quoted[EIP_QUOTED];
    for (span left = whole(keys); left.bytes;) {
        span key = cut(&left, ' ');
        size_t used = strlen(form);
        snprintf(form + used, sizeof form - used, "%s%.*s=...", used ? " " : "",
                 (int)key.bytes, key.at);
    }
    return eip_fail(EI_CONTRACT_VALUE, "%s must read '%s', got %s", name, form,
                    eip_quote(text, bytes, quoted));
}

/* Read HEIGHTxWIDTH, each from 1 to EIP_MAX_SIDE. */
static ei_status read_size(const char *name, span text, int32_t *height, int32_t *width)
{
    char side[48];
    ei_status status;
    span first = cut(&text, 'x');
    snprintf(side, sizeof side, "%s height", name);
    if ((status = read_count(side, first, 1, EIP_MAX_SIDE, height)))
        return status;
    snprintf(side, sizeof side, "%s width", name);
    return read_count(side, text, 1, EIP_MAX_SIDE, width);
}

/* --------------------------------------------------------------------------------- lines -- */

static ei_status contradiction(const char *what)
{
    return eip_fail(EI_CONTRACT_VALUE, "rule: %s", what);
}

ei_status eip_read_rule(const char *text, eip_rule *rule)
{
    span values[5];
    ei_status status;
    int norm, aggregation, distance, weighting;
    if ((status = read_pairs("rule", text,
                             "embedding_norm aggregation distance neighbors weighting",
                             values)) ||
        (status = read_count("neighbors", values[3], 1, 999999999, &rule->neighbors)) ||
        (status = read_choice("rule: embedding_norm", values[0], "'none' or 'l2'", &norm)) ||
        (status = read_choice("rule: aggregation", values[1], "'max' or 'mnn'",
                              &aggregation)) ||
        (status = read_choice("rule: distance", values[2],
                              "'inner_product' or 'cosine' or 'euclidean' or 'manhattan' or "
                              "'mahalanobis'",
                              &distance)) ||
        (status = read_choice("rule: weighting", values[4], "'uniform' or 'distance'",
                              &weighting)))
        return status;
    rule->embedding_norm = (eip_norm)norm;
    rule->aggregation = (eip_aggregation)aggregation;
    rule->distance = (eip_distance)distance;
    rule->weighting = (eip_weighting)weighting;
    if (rule->aggregation == EIP_MAX && rule->neighbors != 1)
        return contradiction("neighbors must be 1 under aggregation='max'; "
                             "use aggregation='mnn'");
    if (rule->aggregation == EIP_MAX && rule->weighting != EIP_UNIFORM)
        return contradiction("weighting must be 'uniform' under aggregation='max'; "
                             "use aggregation='mnn'");
    if (rule->weighting == EIP_BY_DISTANCE && rule->distance == EIP_INNER_PRODUCT)
        return contradiction("weighting='distance' needs a distance, and an inner product is "
                             "none; use distance='cosine'");
    return EI_OK;
}

ei_status eip_read_preprocess(const char *text, eip_preprocess *preprocess)
{
    span values[5];
    ei_status status;
    int resize, interpolation;
    if ((status = read_pairs("preprocess", text, "resize interpolation size mean std", values)))
        return status;
    span mode = cut(&values[0], ':');
    if ((status = read_size("preprocess size", values[2], &preprocess->height,
                            &preprocess->width)) ||
        (status = read_size("preprocess resize", values[0], &preprocess->resize_height,
                            &preprocess->resize_width)) ||
        (status = read_three("preprocess mean", values[3], preprocess->mean)) ||
        (status = read_three("preprocess std", values[4], preprocess->std)) ||
        (status = read_choice("preprocess resize", mode, "'crop' or 'stretch' or 'pad'",
                              &resize)) ||
        (status = read_choice("preprocess interpolation", values[1],
                              "'nearest' or 'bilinear' or 'bicubic' or 'lanczos' or 'box' or "
                              "'hamming' or 'linear'",
                              &interpolation)))
        return status;
    preprocess->resize = (eip_resize)resize;
    preprocess->interpolation = (eip_interpolation)interpolation;
    for (int i = 0; i < 3; i++)
        if (!(preprocess->std[i] > 0))
            return malformed("preprocess std", "be above zero", values[4]);
    return EI_OK;
}

static ei_status read_frame(const char *text, eip_frame *frame)
{
    span words[5], rest = whole(text);
    size_t count = 0;
    int format, ignored;
    ei_status status;
    char quoted[EIP_QUOTED];
    bool blank_end = text[strlen(text) - 1] == ' ';
    for (; rest.bytes && count < 5; count++)
        words[count] = cut(&rest, ' ');
    if (rest.bytes || blank_end || (count != 3 && count != 5))
        return malformed("input of frames",
                         "read 'frame FORMAT HEIGHTxWIDTH' or "
                         "'frame FORMAT HEIGHTxWIDTH MATRIX LEVELS'",
                         whole(text));
    bool any = is(words[2], "any");
    frame->height = frame->width = 0;
    if ((!any && (status = read_size("frame", words[2], &frame->height, &frame->width))) ||
        (status = read_choice("frame format", words[1],
                              "'rgb' or 'bgr' or 'nv12' or 'yuyv'", &format)))
        return status;
    frame->format = (ei_format)format; /* the same order */
    bool yuv = frame->format == EI_NV12 || frame->format == EI_YUYV;
    if (yuv != (count == 5))
        return eip_fail(EI_CONTRACT_VALUE,
                        "input %s: matrix and levels are there for nv12 and yuyv, only",
                        eip_quote(text, strlen(text), quoted));
    if (!yuv)
        return EI_OK;
    if ((status = read_choice("frame matrix", words[3], "'bt601' or 'bt709'", &ignored)) ||
        (status = read_choice("frame levels", words[4], "'limited' or 'full'", &ignored)))
        return status;
    if (any || frame->width % 2 || (frame->format == EI_NV12 && frame->height % 2))
        return malformed("input", "have pixels in pairs, as nv12 and yuyv do", whole(text));
    return EI_OK;
}

ei_status eip_read_input(const char *text, eip_input *input, eip_frame *frame)
{
    int choice;
    if (strncmp(text, "frame ", 6) == 0) {
        *input = EIP_INPUT_FRAME;
        return read_frame(text, frame);
    }
    ei_status status = eip_read_choice("input", text,
                                       "'uint8 NHWC RGB' or 'float32 NCHW RGB' or "
                                       "'float32 embedding' or a frame",
                                       &choice);
    if (!status)
        *input = (eip_input)choice; /* the same order */
    return status;
}

ei_status eip_read_teachable(const char *text, eip_contract *contract)
{
    span rest = whole(text);
    span form = cut(&rest, ' '), classes = cut(&rest, ' ');
    int choice;
    ei_status status;
    if (!classes.bytes || !rest.bytes || memchr(rest.at, ' ', rest.bytes))
        return malformed("teachable", "read 'FORM CLASSES PROXIES'", whole(text));
    if ((status = read_count("teachable max_classes", classes, 1, EIP_MAX_LABELS,
                             &contract->max_classes)) ||
        (status = read_count("teachable taught_proxies", rest, 1, MAX_SLOTS,
                             &contract->taught_proxies)) ||
        (status = read_choice("teachable form", form, "'default' or 'input'", &choice)))
        return status;
    contract->teachable = choice ? EIP_TEACHABLE_INPUT : EIP_TEACHABLE_DEFAULT;
    return EI_OK;
}

ei_status eip_check_digest(const char *text)
{
    if (strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64)
        return malformed("backbone_digest", "be 64 hexadecimal digits", whole(text));
    return EI_OK;
}

ei_status eip_check_target(const char *text)
{
    size_t bytes = strlen(text);
    if (bytes < 1 || bytes > 64 || *text == '.' || *text == '-' ||
        strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.-") != bytes)
        return malformed("target", "be a name such as 'portable'", whole(text));
    return EI_OK;
}
