/* SPDX-License-Identifier: Apache-2.0 */
/* The file that a report goes into: refused before the long work that would fill it. */
#ifndef BENCH_OUTPUT_H
#define BENCH_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "errors.h"

/* Refuse a path that can't become a report: EI_WRITE_FAILED.
 *
 *   force   whether a file that is there may be replaced
 *   inputs  `count` files that are read to make it, which even force must not replace */
ei_status bench_check_output(const char *path, bool force, const char *const *inputs,
                             size_t count);

#endif
