/* SPDX-License-Identifier: Apache-2.0 */
#include "crew.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lists.h"
#include "progress.h"

#define TELL_NS 100000000
#define SPIN_NS 200000 /* what a sleep may overshoot, on Linux 50 to 100 us */
#define NAP_NS 50000000 /* how soon a sleeper sees that all are to stop */

typedef struct member {
    bench_crew *crew;
    int number;
    pthread_t thread;
} member;

bool bench_crew_stopped(bench_crew *crew)
{
    return atomic_load_explicit(&crew->stop, memory_order_relaxed) || bench_interrupted();
}

bool bench_crew_wait_until(bench_crew *crew, int64_t due_ns)
{
    for (;;) {
        int64_t left = due_ns - bench_now_ns() - SPIN_NS;
        if (left <= 0)
            break;
        if (bench_crew_stopped(crew))
            return true;
        left = left < NAP_NS ? left : NAP_NS;
        nanosleep(&(struct timespec){0, left}, NULL);
    }
    while (bench_now_ns() < due_ns)
        sched_yield();
    return bench_crew_stopped(crew);
}

static void *run_member(void *argument)
{
    member *self = argument;
    bench_crew *crew = self->crew;
    pthread_mutex_lock(&crew->lock);
    if (++crew->ready == crew->size) {
        crew->begin_ns = bench_now_ns();
        crew->go = true;
        pthread_cond_broadcast(&crew->changed);
    }
    while (!crew->go)
        pthread_cond_wait(&crew->changed, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
    ei_status status =
        bench_crew_stopped(crew) ? EI_OK : crew->work(crew, self->number, crew->context);
    pthread_mutex_lock(&crew->lock);
    if (status && !crew->status) {
        crew->status = status;
        snprintf(crew->error, sizeof crew->error, "%s", ei_last_error());
    }
    if (status)
        atomic_store(&crew->stop, true);
    crew->ended++;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

/* Wait until all that were started ended, and watch meanwhile. */
static void wait_for_all(bench_crew *crew, int started, bench_watch *watch)
{
    pthread_mutex_lock(&crew->lock);
    while (crew->ended < started) {
        int64_t due_ns = bench_now_ns() + TELL_NS;
        struct timespec due = {due_ns / 1000000000, due_ns % 1000000000};
        int timed_out = pthread_cond_timedwait(&crew->changed, &crew->lock, &due);
        if (timed_out == ETIMEDOUT && watch && crew->go) {
            pthread_mutex_unlock(&crew->lock);
            watch(crew, crew->context);
            pthread_mutex_lock(&crew->lock);
        }
    }
    pthread_mutex_unlock(&crew->lock);
    if (watch)
        watch(crew, crew->context);
}

ei_status bench_crew_run(bench_crew *crew, int size, bench_work *work, bench_watch *watch,
                         void *context)
{
    pthread_condattr_t monotonic;
    *crew = (bench_crew){.size = size, .work = work, .context = context};
    member *members = eip_allocate((size_t)size, sizeof *members);
    if (!members)
        return EI_OUT_OF_MEMORY;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&crew->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int started = 0;
    ei_status status = EI_OK;
    for (; started < size && !status; started += !status) {
        members[started] = (member){crew, started, 0};
        if (pthread_create(&members[started].thread, NULL, run_member, &members[started]))
            status = eip_fail(EI_OUT_OF_MEMORY,
                              "no more than %d threads can be started; give a lower --concurrency",
                              started);
    }
    if (status) { /* those that wait for the others must not wait for ever */
        pthread_mutex_lock(&crew->lock);
        atomic_store(&crew->stop, true);
        crew->go = true;
        pthread_cond_broadcast(&crew->changed);
        pthread_mutex_unlock(&crew->lock);
    }
    wait_for_all(crew, started, status ? NULL : watch);
    for (int i = 0; i < started; i++)
        pthread_join(members[i].thread, NULL);
    pthread_cond_destroy(&crew->changed);
    pthread_mutex_destroy(&crew->lock);
    free(members);
    if (!status && crew->status)
        status = eip_fail(crew->status, "%s", crew->error);
    return status ? status : bench_go_on();
}
