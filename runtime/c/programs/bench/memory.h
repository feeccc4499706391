/* SPDX-License-Identifier: Apache-2.0 */
/* What a model takes of this process's memory. */
#ifndef BENCH_MEMORY_H
#define BENCH_MEMORY_H

#include <stdint.h>

/* Resident bytes; -1 where they can't be had. */
typedef struct bench_memory {
    int64_t before_bytes; /* before the model was opened */
    int64_t open_bytes;   /* after */
    int64_t peak_bytes;   /* the most since `before`; where Linux can't begin that count anew, the
                             most since the process did */
} bench_memory;

void bench_memory_before(bench_memory *memory);
void bench_memory_opened(bench_memory *memory);
void bench_memory_peaked(bench_memory *memory);

#endif
