/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that begin together, and stop together when one fails or Ctrl-C comes. */
#ifndef BENCH_CREW_H
#define BENCH_CREW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "errors.h"

typedef struct bench_crew bench_crew;

/* What one of them does; `number` is from 0. It ends when bench_crew_stopped. */
typedef ei_status bench_work(bench_crew *crew, int number, void *context);
/* Called ten times a second meanwhile, by the thread that waits for them. */
typedef void bench_watch(bench_crew *crew, void *context);

struct bench_crew {
    int64_t begin_ns; /* when all were there */
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int size, ready, ended;
    bool go;
    ei_status status; /* of the first that failed */
    char error[EIP_MAX_ERROR];
    bench_work *work;
    void *context;
};

/* Run `size` threads to their end; return what the first one returned that failed. */
ei_status bench_crew_run(bench_crew *crew, int size, bench_work *work, bench_watch *watch,
                         void *context);

bool bench_crew_stopped(bench_crew *crew);

/* Sleep until shortly before a time, then yield until it is there; return whether all are to
 * stop. */
bool bench_crew_wait_until(bench_crew *crew, int64_t due_ns);

#endif
