/* SPDX-License-Identifier: Apache-2.0 */
/* What is said while it measures, and Ctrl-C. */
#ifndef BENCH_PROGRESS_H
#define BENCH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "errors.h"

/* Let Ctrl-C (and SIGTERM) be seen by bench_interrupted; a second one ends the process at once. A
 * closed pipe is an error of writing, and no end of the process. */
void bench_catch_interrupts(void);
bool bench_interrupted(void);

/* Fail with EI_RUN_FAILED where it was interrupted; what measures calls it between samples. */
ei_status bench_go_on(void);

/* Say on stderr how far a step is: of a new step a line, on a terminal the percentage. NULL ends
 * the line of the last. */
void bench_tell(const char *step, int64_t done, int64_t total);

/* Print "KIND: text" on stderr, as a line. */
void bench_note(const char *kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
