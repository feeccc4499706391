/* SPDX-License-Identifier: Apache-2.0 */
/* A program that answers commands: a line of stdin is a command and its arguments, and is
 * answered by one line of JSON. All such programs know this one:
 *
 *     fail_at N           the Nth allocation from here on fails (0: none), once */
#ifndef COMMANDS_H
#define COMMANDS_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

#define MOST_ARGUMENTS 24

static char *given[MOST_ARGUMENTS]; /* the command and its arguments, then NULL */
static long long until_failure;
static jmp_buf next_command;

typedef struct command {
    const char *name;
    void (*run)(void);
} command;

void *__real_eip_allocate(size_t items, size_t bytes);
void *__real_eip_allocate_array(size_t items, size_t bytes);
void *__wrap_eip_allocate(size_t items, size_t bytes);
void *__wrap_eip_allocate_array(size_t items, size_t bytes);

static bool allocation_fails(void)
{
    if (!until_failure || --until_failure)
        return false;
    eip_fail(EI_OUT_OF_MEMORY, "this one was asked to fail");
    return true;
}

void *__wrap_eip_allocate(size_t items, size_t bytes)
{
    return allocation_fails() ? NULL : __real_eip_allocate(items, bytes);
}

void *__wrap_eip_allocate_array(size_t items, size_t bytes)
{
    return allocation_fails() ? NULL : __real_eip_allocate_array(items, bytes);
}

static double number(int argument)
{
    return strtod(given[argument], NULL);
}

static long long whole(int argument)
{
    return strtoll(given[argument], NULL, 10);
}

/* A failure is the command's answer. */
static void must(bool well)
{
    if (well)
        return;
    printf("{\"failed\": \"%s\"}\n", ei_last_error());
    longjmp(next_command, 1);
}

static void *load(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    void *data = malloc(bytes ? bytes : 1);
    if (!file || !data || fread(data, 1, bytes, file) != bytes) {
        fprintf(stderr, "can't read %zu bytes of %s\n", bytes, path);
        exit(2);
    }
    fclose(file);
    return data;
}

static void run_fail_at(void)
{
    until_failure = whole(1);
    puts("{}");
}

static void run_one(const command *one)
{
    if (!setjmp(next_command))
        one->run();
    fflush(stdout);
}

/* Answer all that stdin asks; one of `separators` stands between words. Return false where it
 * asks what is none of the commands. */
static bool answer_all(const command *commands, size_t known, const char *separators)
{
    char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        int arguments = 0;
        for (char *word = strtok(line, separators); word && arguments < MOST_ARGUMENTS - 1;
             word = strtok(NULL, separators))
            given[arguments++] = word;
        given[arguments] = NULL;
        size_t at = 0;
        while (arguments && at < known && strcmp(commands[at].name, given[0]))
            at++;
        if (!arguments || at == known) {
            fprintf(stderr, "no such command: %s\n", arguments ? given[0] : "");
            return false;
        }
        run_one(&commands[at]);
    }
    return true;
}

#endif
