/* SPDX-License-Identifier: Apache-2.0 */
/* Heads by command, for tests/c/heads.py: one line in, one line out, many in one process.
 *
 *   load HEAD FILE                          heads have numbers, 0 to 7
 *   write HEAD FILE
 *   teach HEAD TO LABEL PROXIES ROWS FILE   the label in hexadecimal digits
 *   forget HEAD TO LABEL
 *   tensors HEAD SLOTS FILE                 answers NAME:SHAPE ...; their numbers go to FILE
 *   nearest HEAD PROXIES FILE ROWS FILE TO  float32 similarities go to TO
 *   fits HEAD MODEL
 *   number TEXT                             answers it as a head file has it
 *   locale NAME                             of all that follows; answers its decimal point
 *
 * Answers begin with a status; its message follows where it is not EI_OK. */
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "class_tensors.h"
#include "head.h"
#include "head_write.h"
#include "onnx_scan.h"
#include "rules.h"
#include "teaching.h"

#define HEADS 8
#define WORDS 8

static eip_head *heads[HEADS];

static void *read_whole(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*bytes + 1);
    if (data && fread(data, 1, *bytes, file) != *bytes) {
        free(data);
        data = NULL;
    }
    fclose(file);
    return data;
}

static ei_status write_whole(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return EI_WRITE_FAILED;
    bool written = fwrite(data, 1, bytes, file) == bytes;
    return fclose(file) == 0 && written ? EI_OK : EI_WRITE_FAILED;
}

static eip_head **at(const char *word)
{
    return &heads[atoi(word) % HEADS];
}

static void put(const char *where, eip_head *head)
{
    eip_head_free(*at(where));
    *at(where) = head;
}

/* Decode hexadecimal digits in place. */
static char *decode(char *digits)
{
    size_t count = strlen(digits) / 2;
    for (size_t i = 0; i < count; i++) {
        char two[3] = {digits[2 * i], digits[2 * i + 1], 0};
        digits[i] = (char)strtol(two, NULL, 16);
    }
    digits[count] = 0;
    return digits;
}

static ei_status load(char **words)
{
    eip_head *head;
    ei_status status = eip_head_load(words[2], &head);
    if (!status)
        put(words[1], head);
    return status;
}

static ei_status write_head(char **words)
{
    void *data;
    size_t bytes;
    ei_status status = eip_head_write(*at(words[1]), &data, &bytes);
    if (status)
        return status;
    status = write_whole(words[2], data, bytes);
    free(data);
    return status;
}

static ei_status teach(char **words)
{
    size_t bytes;
    float *rows = read_whole(words[6], &bytes);
    eip_head *taught;
    ei_status status = eip_teach(*at(words[1]), decode(words[3]), rows,
                                 (size_t)atol(words[5]), atoi(words[4]), &taught);
    free(rows);
    if (!status)
        put(words[2], taught);
    return status;
}

static ei_status forget(char **words)
{
    eip_head *left;
    ei_status status = eip_forget(*at(words[1]), decode(words[3]), &left);
    if (!status)
        put(words[2], left);
    return status;
}

static ei_status tensors(char **words, char *answer)
{
    eip_class_tensors made;
    ei_status status = eip_class_tensors_make(*at(words[1]), atoi(words[2]), &made);
    if (status)
        return status;
    FILE *file = fopen(words[3], "wb");
    for (size_t i = 0; i < made.count; i++) {
        const eip_tensor *tensor = &made.tensors[i];
        size_t count = (size_t)tensor->shape[0];
        answer += sprintf(answer, " %s:%" PRId64, tensor->name, tensor->shape[0]);
        if (tensor->dimensions == 2) {
            answer += sprintf(answer, "x%" PRId64, tensor->shape[1]);
            count *= (size_t)tensor->shape[1];
        }
        fwrite(tensor->data, sizeof(float), count, file);
    }
    fclose(file);
    eip_class_tensors_clear(&made);
    return EI_OK;
}

static ei_status nearest(char **words)
{
    size_t bytes, count = (size_t)atol(words[2]), rows = (size_t)atol(words[4]);
    const eip_head *head = *at(words[1]);
    float *proxies = read_whole(words[3], &bytes), *given = read_whole(words[5], &bytes);
    float *found = calloc(rows, sizeof *found);
    eip_comparison comparison;
    ei_status status = eip_comparison_open(head, count, &comparison);
    if (!status) {
        eip_comparison_set(&comparison, proxies, count);
        for (size_t i = 0; i < rows; i++)
            found[i] = eip_comparison_nearest(
                &comparison, given + i * (size_t)head->contract.embedding_size);
        eip_comparison_close(&comparison);
        status = write_whole(words[6], found, rows * sizeof *found);
    }
    free(proxies);
    free(given);
    free(found);
    return status;
}

static ei_status fits(char **words)
{
    eip_metadata metadata = {0};
    eip_contract contract;
    ei_status status = eip_onnx_scan_file(words[2], &metadata);
    if (!status)
        status = eip_contract_read(&metadata, true, words[2], &contract);
    if (!status) {
        status = eip_head_fits(*at(words[1]), &contract, "the head");
        eip_contract_clear(&contract);
    }
    eip_metadata_clear(&metadata);
    return status;
}

static ei_status run(char **words, char *answer)
{
    if (!strcmp(words[0], "load"))
        return load(words);
    if (!strcmp(words[0], "write"))
        return write_head(words);
    if (!strcmp(words[0], "teach"))
        return teach(words);
    if (!strcmp(words[0], "forget"))
        return forget(words);
    if (!strcmp(words[0], "tensors"))
        return tensors(words, answer);
    if (!strcmp(words[0], "nearest"))
        return nearest(words);
    if (!strcmp(words[0], "fits"))
        return fits(words);
    if (!strcmp(words[0], "number")) {
        answer[0] = ' ';
        eip_write_number(strtod(words[1], NULL), answer + 1);
        return EI_OK;
    }
    if (!strcmp(words[0], "locale") && setlocale(LC_ALL, words[1])) {
        sprintf(answer, " %s", localeconv()->decimal_point);
        return EI_OK;
    }
    fprintf(stderr, "head_check: no command '%s'\n", words[0]);
    exit(2);
}

int main(void)
{
    static char line[16384], answer[4096];
    while (fgets(line, sizeof line, stdin)) {
        char *words[WORDS + 1] = {0}, *rest = line;
        for (int i = 0; i < WORDS; i++)
            words[i] = strsep(&rest, " \n");
        answer[0] = 0;
        ei_status status = run(words, answer);
        printf("%s%s%s\n", ei_status_name(status), status ? " " : answer,
               status ? ei_last_error() : "");
        fflush(stdout);
    }
    for (int i = 0; i < HEADS; i++)
        eip_head_free(heads[i]);
    return 0;
}
