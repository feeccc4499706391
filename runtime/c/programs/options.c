/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge_imprint.h"
#include "print.h"

#define HELP_COLUMN 24

const char *const provider_names[] = {"cpu", "cuda", "tensorrt", NULL};

static void print_line(const char *start, const char *format, va_list arguments, const char *end)
{
    char text[4096];
    vsnprintf(text, sizeof text, format, arguments);
    fputs(start, stderr);
    for (char *byte = text; *byte; byte++)
        if (*byte == '\n' || *byte == '\r')
            *byte = ' ';
    print_text(stderr, text);
    fputs(end, stderr);
}

void print_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_line("error: ", format, arguments, "\n");
    va_end(arguments);
}

int wrong_use(const program *command, const char *format, ...)
{
    char end[128];
    snprintf(end, sizeof end, "; see '%s --help'\n", command->name);
    va_list arguments;
    va_start(arguments, format);
    print_line("error: ", format, arguments, end);
    va_end(arguments);
    return EXIT_WRONG_USE;
}

int failed_with(int status)
{
    print_error("%s", ei_last_error());
    bool use = status == EI_INVALID_ARGUMENT || status == EI_NO_ROOM || status == EI_NO_SUCH_CLASS;
    return use ? EXIT_WRONG_USE : EXIT_FAILED;
}

const char *read_size(const char *text, void *value)
{
    static const char wanted[] = "a size such as 640x480, each side from 1 to 8192";
    int32_t *size = value;
    for (int side = 0; side < 2; side++) {
        if (*text < '1' || *text > '9')
            return wanted;
        char *end;
        long number = strtol(text, &end, 10);
        if (number > 8192 || *end != (side ? '\0' : 'x'))
            return wanted;
        size[side] = (int32_t)number;
        text = end + 1;
    }
    return NULL;
}

/* -------------------------------------------------------------------------------- help -- */

static void print_option(const option_row *option)
{
    char start[128];
    int width = snprintf(start, sizeof start, "  %s%s%s", option->name,
                         option->argument ? " " : "", option->argument ? option->argument : "");
    fputs(start, stdout);
    const char *line = option->help;
    while (line) {
        const char *end = strchr(line, '\n');
        if (width + 2 > HELP_COLUMN) {
            putchar('\n');
            width = 0;
        }
        printf("%*s%.*s\n", HELP_COLUMN - width, "", end ? (int)(end - line) : (int)strlen(line),
               line);
        width = 0;
        line = end ? end + 1 : NULL;
    }
}

static int print_help(const program *command)
{
    printf("Usage: %s [OPTIONS] %s\n\n%s\nOptions:\n", command->name, command->usage,
           command->about);
    for (size_t i = 0; i < command->option_count; i++)
        if (command->options[i].help)
            print_option(&command->options[i]);
    print_option(&(option_row){.name = "--version", .help = "Print the release."});
    print_option(&(option_row){.name = "-h, --help", .help = "Print this."});
    return fflush(stdout) ? EXIT_FAILED : EXIT_WELL;
}

/* ------------------------------------------------------------------------------ reading -- */

static bool read_whole(const option_row *option, const char *text)
{
    const char *digits = text + (*text == '-');
    if (!*digits || strspn(digits, "0123456789") != strlen(digits))
        return false;
    errno = 0;
    long long number = strtoll(text, NULL, 10);
    if (errno || (double)number < option->least || (double)number > option->most)
        return false;
    *(int64_t *)option->value = number;
    return true;
}

static bool read_number(const option_row *option, const char *text)
{
    /* Digits first: strtod takes blanks, "nan", "inf" and hexadecimal numbers, too. */
    char *end = NULL;
    if (!*text || strspn(text, "+-.0123456789eE") != strlen(text))
        return false;
    double number = strtod(text, &end);
    if (*end || !isfinite(number) || number < option->least || number > option->most)
        return false;
    *(double *)option->value = number;
    return true;
}

static bool read_choice(const option_row *option, const char *text)
{
    for (int i = 0; option->choices[i]; i++)
        if (!strcmp(option->choices[i], text)) {
            *(int *)option->value = i;
            return true;
        }
    return false;
}

static void say_wanted(const option_row *option, char *wanted, size_t bytes)
{
    size_t used = 0;
    switch (option->kind) {
    case OPTION_WHOLE:
        snprintf(wanted, bytes, "a whole number from %.0f to %.0f", option->least, option->most);
        return;
    case OPTION_NUMBER:
        snprintf(wanted, bytes, "a number from %g to %g", option->least, option->most);
        return;
    default:
        used = (size_t)snprintf(wanted, bytes, "one of ");
        for (int i = 0; option->choices[i] && used < bytes; i++)
            used += (size_t)snprintf(wanted + used, bytes - used, "%s%s", i ? ", " : "",
                                     option->choices[i]);
    }
}

/* Read an option's value; -1, or EXIT_WRONG_USE, printed. */
static int take(const program *command, const option_row *option, const char *text)
{
    char wanted[512];
    bool good = true;
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->value = true;
        break;
    case OPTION_TEXT:
        *(const char **)option->value = text;
        break;
    case OPTION_WHOLE:
        good = read_whole(option, text);
        break;
    case OPTION_NUMBER:
        good = read_number(option, text);
        break;
    case OPTION_CHOICE:
        good = read_choice(option, text);
        break;
    case OPTION_READ: {
        const char *problem = option->read(text, option->value);
        if (problem)
            return wrong_use(command, "%s must be %s, got '%.200s'", option->name, problem, text);
    }
    }
    if (good)
        return -1;
    say_wanted(option, wanted, sizeof wanted);
    return wrong_use(command, "%s must be %s, got '%.200s'", option->name, wanted, text);
}

static const option_row *find(const program *command, const char *word, size_t bytes)
{
    for (size_t i = 0; i < command->option_count; i++) {
        const char *name = command->options[i].name;
        if (strlen(name) == bytes && !memcmp(name, word, bytes))
            return &command->options[i];
    }
    return NULL;
}

/* Read the option at argv[*at], and its value, which may be the next word. */
static int read_option(const program *command, int argc, char **argv, int *at)
{
    char *word = argv[*at];
    if (!strcmp(word, "--help") || !strcmp(word, "-h"))
        return print_help(command);
    if (!strcmp(word, "--version")) {
        printf("%s %s\n", command->name, ei_version());
        return fflush(stdout) ? EXIT_FAILED : EXIT_WELL;
    }
    char *equals = strncmp(word, "--", 2) ? NULL : strchr(word, '=');
    size_t bytes = equals ? (size_t)(equals - word) : strlen(word);
    const option_row *option = find(command, word, bytes);
    if (!option)
        return wrong_use(command, "there is no option '%.*s'", bytes > 200 ? 200 : (int)bytes,
                         word);
    if (option->kind == OPTION_FLAG) {
        if (equals)
            return wrong_use(command, "%s takes no value", option->name);
        return take(command, option, "");
    }
    if (!equals && *at + 1 >= argc)
        return wrong_use(command, "%s wants a value: %s %s", option->name, option->name,
                         option->argument);
    return take(command, option, equals ? equals + 1 : argv[++*at]);
}

int options_read(const program *command, int argc, char **argv, char ***words, int *word_count)
{
    int kept = 0;
    bool only_words = false;
    *words = argv + 1;
    /* A limit on a file's size is an error to be told, with the old file in its place. */
    signal(SIGXFSZ, SIG_IGN);
    for (int at = 1; at < argc; at++) {
        char *word = argv[at];
        /* "-" alone is a word: stdin. */
        if (only_words || word[0] != '-' || !word[1]) {
            (*words)[kept++] = word;
        } else if (!strcmp(word, "--")) {
            only_words = true;
        } else {
            int status = read_option(command, argc, argv, &at);
            if (status >= 0)
                return status;
        }
    }
    *word_count = kept;
    return -1;
}

int open_with(const run_options *options, const char *path, ei_model **model)
{
    ei_options given = {.size = sizeof given,
                        .provider = (ei_provider)options->provider,
                        .threads = (int32_t)options->threads,
                        .device = (int32_t)options->device,
                        .library = options->library,
                        .head = options->head,
                        .cache_folder = options->cache_folder};
    /* ONNX Runtime copies the weights from form to form when it opens a model: memory that the
     * heap keeps need not be cleared by the kernel again. A tenth of a large model's start. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    ei_status status = ei_open(path, &given, model);
    return status ? failed_with(status) : EXIT_WELL;
}
