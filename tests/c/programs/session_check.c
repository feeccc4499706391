/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a model by the session alone, and answers commands on stdin, one a line:
 *
 *   open PATH | memory PATH     and then, until "close":
 *   ports                       its inputs, defaults and outputs
 *   run IN:FILE ... -- OUT ...  inputs from raw files; the outputs' numbers in hex
 *
 *   fail K                      the K-th call from now on fails, of a library failing_ort.c
 *   calls                       how many there were since
 *
 *   library PATH                from now on, instead of the one in EI_TEST_LIBRARY
 *   environment NAME            what the process has there now
 *
 * The environment says how: EI_TEST_PROVIDER, EI_TEST_LIBRARY, EI_TEST_CACHE, EI_TEST_THREADS,
 * EI_TEST_OPTIMUM (a profile's usual shapes). A failure is "STATUS: sentence". */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "session.h"

#define MAX_VALUES 32

static eip_session *session;
static eip_value *values[MAX_VALUES];
static void *memory[MAX_VALUES];
static size_t value_count;

static void say(ei_status status)
{
    printf("%s: %s\n", ei_status_name(status), status ? ei_last_error() : "");
}

static void open_model(const char *path, int in_memory)
{
    const char *number = getenv("EI_TEST_PROVIDER"), *threads = getenv("EI_TEST_THREADS");
    ei_options options = {.size = sizeof options,
                          .provider = number ? atoi(number) : 0,
                          .threads = threads ? atoi(threads) : 1,
                          .library = getenv("EI_TEST_LIBRARY"),
                          .cache_folder = getenv("EI_TEST_CACHE")};
    eip_profile profile = {.optimum = getenv("EI_TEST_OPTIMUM")};
    eip_profile *wanted = profile.optimum ? &profile : NULL;
    profile.minimum = profile.maximum = profile.optimum;
    void *data = NULL;
    size_t bytes = 0;
    ei_status status = in_memory ? eip_read_file(path, SIZE_MAX, EI_FILE_MISSING, &data, &bytes)
                                 : EI_OK;
    if (!status)
        status = eip_session_open(in_memory ? NULL : path, data, bytes, "the model", &options,
                                  wanted, &session);
    free(data);
    say(status);
    if (!status)
        printf("%s %s %d\n", session->provider, session->library, (int)session->max_batch);
}

static void show_ports(const char *kind, const eip_port *ports, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        printf("%s %s %d", kind, ports[i].name, (int)ports[i].type);
        for (int j = 0; j < ports[i].dimensions; j++)
            printf(" %lld", (long long)ports[i].shape[j]);
        putchar('\n');
    }
}

/* NAME=SHAPE=FILE, such as images=2x16x16x3=FILE; an output has no file. */
static ei_status bind(eip_binding *binding, char *text, int input)
{
    int64_t shape[EIP_MAX_DIMENSIONS];
    int dimensions = 0;
    char *name = strtok(text, "="), *sides = strtok(NULL, "="), *path = strtok(NULL, "=");
    size_t bytes = 0;
    const eip_port *port = input ? eip_session_input(session, name)
                                 : eip_session_output(session, name);
    if (!port && input)
        port = eip_session_default(session, name);
    if (!port)
        return eip_fail(EI_INVALID_ARGUMENT, "there is no %s", name);
    size_t count = port->type == EIP_U8 ? 1 : 4;
    for (char *at = sides; *at; at += *at == 'x') {
        shape[dimensions] = strtoll(at, &at, 10);
        count *= (size_t)shape[dimensions++];
    }
    void *data = input ? NULL : eip_allocate(count, 1);
    ei_status status = EI_OK;
    if (input)
        status = eip_read_file(path, SIZE_MAX, EI_FILE_MISSING, &data, &bytes);
    memory[value_count] = data;
    if (!status)
        status = eip_value_wrap(session, port->type, data, shape, dimensions,
                                &values[value_count]);
    if (!status)
        status = input ? eip_bind_input(binding, name, values[value_count])
                       : eip_bind_output(binding, name, values[value_count]);
    value_count++;
    if (!status && !input) /* shown after the run */
        printf("%s %zu\n", name, count);
    return status;
}

static void run(char *line)
{
    char *words[MAX_VALUES + 1];
    int count = 0, input = 1;
    size_t sizes[MAX_VALUES], outputs = 0, first = 0;
    for (char *word = strtok(line, " "); word && count < MAX_VALUES; word = strtok(NULL, " "))
        words[count++] = word;
    eip_binding *binding = NULL;
    ei_status status = eip_binding_open(session, &binding);
    for (int i = 0; i < count && !status; i++) {
        if (!strcmp(words[i], "--")) {
            input = 0;
            first = value_count;
            continue;
        }
        if (!input) {
            size_t size = 4;
            for (char *at = strchr(words[i], '=') + 1; *at; at += *at == 'x')
                size *= (size_t)strtoll(at, &at, 10);
            sizes[outputs++] = size;
        }
        status = bind(binding, words[i], input);
    }
    if (!status)
        status = eip_run(binding, 1);
    say(status);
    for (size_t i = 0; i < outputs && !status; i++) {
        for (size_t j = 0; j < sizes[i]; j++)
            printf("%02x", ((unsigned char *)memory[first + i])[j]);
        putchar('\n');
    }
    eip_binding_close(binding);
    while (value_count) {
        value_count--;
        eip_value_free(session, values[value_count]);
        free(memory[value_count]);
        values[value_count] = NULL;
    }
}

/* A function of failing_ort.c, which is opened once. */
static void *failing(const char *name)
{
    static void *library;
    if (!library)
        library = dlopen(getenv("EI_TEST_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    return library ? dlsym(library, name) : NULL;
}

static void fail(long number)
{
    void (*set)(long);
    void *symbol = failing("failing_ort_at");
    memcpy(&set, &symbol, sizeof set);
    set(number);
}

static void show_calls(void)
{
    long (*get)(void);
    void *symbol = failing("failing_ort_calls");
    memcpy(&get, &symbol, sizeof get);
    printf("%ld\n", get());
}

int main(void)
{
    static char line[65536];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "open ", 5)) {
            open_model(line + 5, 0);
        } else if (!strncmp(line, "memory ", 7)) {
            open_model(line + 7, 1);
        } else if (!strcmp(line, "close")) {
            eip_session_release(session);
            session = NULL;
            say(EI_OK);
        } else if (!strncmp(line, "fail ", 5)) {
            fail(atol(line + 5));
        } else if (!strncmp(line, "library ", 8)) {
            setenv("EI_TEST_LIBRARY", line + 8, 1);
        } else if (!strncmp(line, "environment ", 12)) {
            puts(getenv(line + 12) ? getenv(line + 12) : "");
        } else if (!strcmp(line, "calls")) {
            show_calls();
        } else if (!session) {
            puts("EI_INVALID_ARGUMENT: no model is open");
        } else if (!strcmp(line, "ports")) {
            show_ports("input", session->inputs, session->input_count);
            show_ports("default", session->defaults, session->default_count);
            show_ports("output", session->outputs, session->output_count);
        } else if (!strncmp(line, "run ", 4)) {
            run(line + 4);
        }
        puts(".");
        fflush(stdout);
    }
    eip_session_release(session);
    return 0;
}
