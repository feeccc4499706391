/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lists.h"
#include "sensors.h"

typedef struct column {
    char *name;
    double *values;
    size_t capacity;
} column;

struct bench_recorder {
    bench_sensors *sensors;
    int64_t interval_ns;
    int64_t start_ns;
    pthread_t thread;
    pthread_mutex_t lock; /* guards `stop` */
    pthread_cond_t wake;
    bool started, stop;
    bool full; /* an allocation failed: what was read so far is kept */
    bench_row row;
    double *times_s;
    size_t count, capacity;
    column columns[BENCH_MAX_READINGS];
    size_t column_count;
    bench_reading readings[BENCH_MAX_READINGS];
    bench_lost lost;
    bench_trace trace;
};

static column *column_of(bench_recorder *recorder, const char *name)
{
    for (size_t i = 0; i < recorder->column_count; i++)
        if (!strcmp(recorder->columns[i].name, name))
            return &recorder->columns[i];
    if (recorder->column_count == BENCH_MAX_READINGS)
        return NULL;
    column *one = &recorder->columns[recorder->column_count];
    *one = (column){.name = eip_copy_text(name)};
    recorder->column_count += one->name != NULL;
    recorder->full = !one->name;
    return one->name ? one : NULL;
}

/* Grow a column to the rows there are room for; what it missed so far is NaN. */
static bool column_grow(bench_recorder *recorder, column *one)
{
    if (one->capacity >= recorder->capacity)
        return true;
    double *larger = realloc(one->values, recorder->capacity * sizeof *larger);
    if (!larger)
        return false;
    for (size_t i = one->capacity; i < recorder->capacity; i++)
        larger[i] = NAN;
    one->values = larger;
    one->capacity = recorder->capacity;
    return true;
}

static void keep(bench_recorder *recorder, double time_s)
{
    if (!bench_grow(&recorder->times_s, recorder->count, &recorder->capacity, sizeof(double))) {
        recorder->full = true;
        return;
    }
    for (size_t i = 0; i < recorder->row.count && !recorder->full; i++) {
        column *one = column_of(recorder, recorder->row.names[i]);
        if (one && !column_grow(recorder, one))
            recorder->full = true;
        else if (one)
            one->values[recorder->count] = recorder->row.values[i];
    }
    for (size_t i = 0; i < recorder->column_count && !recorder->full; i++)
        recorder->full = !column_grow(recorder, &recorder->columns[i]);
    if (!recorder->full)
        recorder->times_s[recorder->count++] = time_s;
}

/* Wait until the next reading is due; return whether it is the last. */
static bool wait_on(bench_recorder *recorder)
{
    /* From the start and not from the last reading: a slow sensor costs readings, and shifts
     * none. */
    int64_t passed_ns = bench_now_ns() - recorder->start_ns;
    int64_t due_ns = recorder->start_ns + (passed_ns / recorder->interval_ns + 1) *
                                              recorder->interval_ns;
    struct timespec due = {due_ns / 1000000000, due_ns % 1000000000};
    pthread_mutex_lock(&recorder->lock);
    int timed_out = 0;
    while (!recorder->stop && timed_out != ETIMEDOUT)
        timed_out = pthread_cond_timedwait(&recorder->wake, &recorder->lock, &due);
    bool stop = recorder->stop;
    pthread_mutex_unlock(&recorder->lock);
    return stop;
}

static void *read_on(void *argument)
{
    bench_recorder *recorder = argument;
    for (bool last = false;; last = wait_on(recorder)) {
        double time_s = (double)(bench_now_ns() - recorder->start_ns) / 1e9;
        bench_sensors_read(recorder->sensors, &recorder->row);
        keep(recorder, time_s);
        if (last || recorder->full)
            return NULL;
    }
}

ei_status bench_recorder_start(const char *root, double interval_s, bench_recorder **started)
{
    *started = NULL;
    bench_recorder *recorder = eip_allocate(1, sizeof *recorder);
    if (!recorder)
        return EI_OUT_OF_MEMORY;
    recorder->interval_ns = (int64_t)(interval_s * 1e9);
    pthread_mutex_init(&recorder->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&recorder->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    ei_status status = bench_sensors_open(root, 1.0, &recorder->sensors);
    recorder->start_ns = bench_now_ns();
    if (!status && pthread_create(&recorder->thread, NULL, read_on, recorder))
        status = eip_fail(EI_OUT_OF_MEMORY, "no thread can be started to read the sensors");
    recorder->started = !status;
    if (status)
        bench_recorder_free(recorder);
    else
        *started = recorder;
    return status;
}

int64_t bench_recorder_start_ns(const bench_recorder *recorder)
{
    return recorder->start_ns;
}

const bench_trace *bench_recorder_stop(bench_recorder *recorder)
{
    if (recorder->started) {
        pthread_mutex_lock(&recorder->lock);
        recorder->stop = true;
        pthread_cond_signal(&recorder->wake);
        pthread_mutex_unlock(&recorder->lock);
        pthread_join(recorder->thread, NULL);
        recorder->started = false;
    }
    size_t readings = 0; /* without those that memory ran out for */
    for (size_t i = 0; i < recorder->column_count; i++)
        if (recorder->columns[i].values)
            recorder->readings[readings++] =
                (bench_reading){recorder->columns[i].name, recorder->columns[i].values};
    recorder->lost = (bench_lost){"linux", "there was not enough memory to go on"};
    recorder->trace = (bench_trace){recorder->count, recorder->times_s,
                                    readings,        recorder->readings,
                                    recorder->full,  &recorder->lost};
    return &recorder->trace;
}

void bench_recorder_free(bench_recorder *recorder)
{
    if (!recorder)
        return;
    bench_recorder_stop(recorder);
    for (size_t i = 0; i < recorder->column_count; i++) {
        free(recorder->columns[i].name);
        free(recorder->columns[i].values);
    }
    free(recorder->times_s);
    bench_sensors_close(recorder->sensors);
    pthread_cond_destroy(&recorder->wake);
    pthread_mutex_destroy(&recorder->lock);
    free(recorder);
}
