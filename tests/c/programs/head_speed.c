/* SPDX-License-Identifier: Apache-2.0 */
/* How long heads take: head_speed HEAD SLOTS [REPEATS] [TEACH] [cpu]
 *
 * Prints the median of reading and checking a head file, of laying it out for a graph of so many
 * slots a class, of both, and of teaching TEACH random embeddings with five proxies, in ms;
 * with `cpu` the thread's time on the processor, which other programs don't lengthen. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "class_tensors.h"
#include "head.h"
#include "teaching.h"

#define MOST 1000

static clockid_t watch = CLOCK_MONOTONIC;

static double now_ms(void)
{
    struct timespec at;
    clock_gettime(watch, &at);
    return (double)at.tv_sec * 1e3 + (double)at.tv_nsec / 1e6;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

static void check(ei_status status)
{
    if (status) {
        fprintf(stderr, "%s: %s\n", ei_status_name(status), ei_last_error());
        exit(1);
    }
}

int main(int count, char **words)
{
    static double reading[MOST], laying[MOST], both[MOST], teaching[MOST];
    int slots = count > 2 ? atoi(words[2]) : 0, repeats = count > 3 ? atoi(words[3]) : 21;
    size_t rows = count > 4 ? (size_t)atoi(words[4]) : 20;
    if (count > 5)
        watch = CLOCK_THREAD_CPUTIME_ID;
    if (count < 3 || repeats < 1 || repeats > MOST)
        return 2;
    for (int i = 0; i < repeats; i++) {
        eip_head *head;
        eip_class_tensors made;
        double begin = now_ms();
        check(eip_head_load(words[1], &head));
        double middle = now_ms();
        check(eip_class_tensors_make(head, slots, &made));
        double end = now_ms();
        reading[i] = middle - begin;
        laying[i] = end - middle;
        both[i] = end - begin;
        eip_class_tensors_clear(&made);
        eip_head_free(head);
    }
    eip_head *head, *taught;
    check(eip_head_load(words[1], &head));
    size_t numbers = rows * (size_t)head->contract.embedding_size;
    float *embeddings = malloc(numbers * sizeof *embeddings);
    for (int i = 0; i < repeats; i++) {
        for (size_t n = 0; n < numbers; n++)
            embeddings[n] = (float)rand() / (float)RAND_MAX - 0.5f;
        double begin = now_ms();
        check(eip_teach(head, "a class of its own", embeddings, rows, 5, &taught));
        teaching[i] = now_ms() - begin;
        eip_head_free(taught);
    }
    printf("read_ms %.3f tensors_ms %.3f both_ms %.3f teach_ms %.3f\n",
           median(reading, repeats), median(laying, repeats), median(both, repeats),
           median(teaching, repeats));
    free(embeddings);
    eip_head_free(head);
    return 0;
}
