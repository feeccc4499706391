/* SPDX-License-Identifier: Apache-2.0 */
/* The command line, as all programs read it: long options and words in any order, one line of
 * error, exit status 2 for a wrong use; and how they print errors. */
#ifndef PROGRAMS_OPTIONS_H
#define PROGRAMS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses, those of `edge-imprint`. */
enum { EXIT_WELL = 0, EXIT_FAILED = 1, EXIT_WRONG_USE = 2, EXIT_INTERRUPTED = 130 };

typedef enum {
    OPTION_FLAG,   /* value: bool *, becomes true */
    OPTION_TEXT,   /* value: const char ** */
    OPTION_WHOLE,  /* value: int64_t *, a whole number from least to most */
    OPTION_NUMBER, /* value: double *, a finite number from least to most */
    OPTION_CHOICE, /* value: int *, the position in `choices`, which ends in NULL */
    OPTION_READ    /* value: what `read` makes of the text */
} option_kind;

/* Read an option's text. Return NULL, or what it must be, such as "a size such as 640x480". */
typedef const char *option_reader(const char *text, void *value);

typedef struct option_row {
    const char *name;     /* "--threads" */
    const char *argument; /* how help calls it: "N"; of a flag NULL */
    const char *help;     /* a line or more, each cut at a "\n"; NULL: not shown */
    option_kind kind;
    void *value; /* keeps what it has where the option is not given */
    double least, most;
    const char *const *choices;
    option_reader *read;
} option_row;

/* A program: what it is called and what it takes. */
typedef struct program {
    const char *name;  /* "ei-classify" */
    const char *usage; /* "MODEL FILE..." */
    const char *about; /* what it does: lines, each ending in "\n" */
    const option_row *options;
    size_t option_count;
} program;

/* Read the command line. Options may be written `--threads 4` or `--threads=4`; after `--` all are
 * words. -h, --help and --version print and end.
 *
 *   words       becomes the words that are no options, in argv's memory
 *   word_count  becomes their number
 *
 * Return -1 to go on, or the exit status to end with; what was wrong is printed then. */
int options_read(const program *command, int argc, char **argv, char ***words, int *word_count);

/* Print "error: TEXT; see 'NAME --help'", and return EXIT_WRONG_USE. */
int wrong_use(const program *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Print "error: TEXT" as one line on stderr, whatever names are in it. */
void print_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Print ei_last_error() as an error, and return the exit status of an ei_status: EXIT_WRONG_USE
 * for a parameter out of its range, else EXIT_FAILED. */
int failed_with(int status);

/* Read "WIDTHxHEIGHT", each from 1 to 8192: an option_reader; value is int32_t[2]. */
option_reader read_size;

/* The options that say what runs a model. */
typedef struct run_options {
    int provider; /* an ei_provider */
    int64_t threads;
    int64_t device;
    const char *library;
    const char *head;
    const char *cache_folder;
} run_options;

extern const char *const provider_names[];

/* The rows of an option table for them: RUN_OPTIONS(&mine). */
#define RUN_OPTIONS(to)                                                                       \
    {"--provider", "NAME", "What runs the model: cpu (the default), cuda or tensorrt.",       \
     OPTION_CHOICE, &(to)->provider, 0, 0, provider_names, NULL},                             \
    {"--threads", "N", "CPU threads; 0, the default: ONNX Runtime chooses.", OPTION_WHOLE,    \
     &(to)->threads, 0, 1024, NULL, NULL},                                                    \
    {"--device", "N", "Which GPU, from 0.", OPTION_WHOLE, &(to)->device, 0, 255, NULL, NULL}, \
    {"--library", "FILE", "ONNX Runtime's shared library; else $EDGE_IMPRINT_ONNXRUNTIME,\n"  \
     "else what the system finds.", OPTION_TEXT, &(to)->library, 0, 0, NULL, NULL},           \
    {"--head", "FILE", "A teachable model's head; else MODEL.head, where it is there.",       \
     OPTION_TEXT, &(to)->head, 0, 0, NULL, NULL},                                             \
    {"--cache", "FOLDER", "Where TensorRT's engines are kept; else\n"                         \
     "~/.cache/edge-imprint.", OPTION_TEXT,                                                   \
     &(to)->cache_folder, 0, 0, NULL, NULL}

struct ei_model;

/* Open a model with them; prints what went wrong. Return 0, or the exit status to end with. */
int open_with(const run_options *options, const char *path, struct ei_model **model);

#endif
