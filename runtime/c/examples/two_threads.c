/* SPDX-License-Identifier: Apache-2.0 */
/* Two threads, one model: the first answers each frame, the second teaches what it is told on
 * stdin, without the first ever waiting for it. A pipeline of one frame lies between camera and
 * network: a new frame replaces one that was not looked at yet, so that answers are never late.
 *
 *   two_threads MODEL SECONDS
 *
 * The camera is a stand-in: a grey that changes from frame to frame. Lines on stdin: a class's
 * name; the frame that is seen just then becomes a photo of it. */
#include <edge_imprint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct shared {
    ei_model *model;
    ei_description about;
    size_t bytes;            /* of a frame */
    pthread_mutex_t guard;   /* of what follows */
    pthread_cond_t changed;
    unsigned char *latest;   /* the newest frame */
    long number;             /* of it; 0: none came yet */
    int ended;
} shared = {.guard = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void stop(void)
{
    fprintf(stderr, "%s\n", ei_last_error()); /* of the thread that failed: call it there */
    exit(1);
}

/* Wait for a frame newer than `seen` and copy it; returns its number, 0 at the end. */
static long next_frame(long seen, unsigned char *copy)
{
    pthread_mutex_lock(&shared.guard);
    while (shared.number == seen && !shared.ended)
        pthread_cond_wait(&shared.changed, &shared.guard);
    long number = shared.ended ? 0 : shared.number;
    memcpy(copy, shared.latest, shared.bytes);
    pthread_mutex_unlock(&shared.guard);
    return number;
}

static ei_image image_of(const unsigned char *pixels)
{
    return (ei_image){pixels, shared.about.width, shared.about.height, EI_RGB8, 0, NULL};
}

/* The first thread: answers, with predictions of its own that are used again and again. */
static void *answer(void *unused)
{
    unsigned char *pixels = malloc(shared.bytes);
    ei_predictions *found = NULL;
    ei_image image = image_of(pixels);
    long number = 0, answered = 0;
    while ((number = next_frame(number, pixels))) {
        if (ei_predict(shared.model, &image, 1, &found))
            stop();
        const ei_prediction *one = ei_prediction_at(found, 0);
        if (answered++ % 100 == 0)
            printf("frame %ld: %s %.3f\n", number, one->label, one->score);
    }
    printf("%ld of %ld frames answered\n", answered, shared.number);
    ei_free_predictions(found);
    free(pixels);
    return unused;
}

/* The second thread: teaches. Answers go on meanwhile; each is of the old classes or of the new. */
static void *learn(void *unused)
{
    unsigned char *pixels = malloc(shared.bytes);
    ei_image image = image_of(pixels);
    char label[256];
    while (fgets(label, sizeof label, stdin)) {
        label[strcspn(label, "\n")] = '\0';
        if (!next_frame(0, pixels))
            break;
        if (ei_teach(shared.model, label, &image, 1, 0) || ei_save_head(shared.model, NULL))
            stop();
        printf("learned %s: %zu classes\n", label, ei_class_count(shared.model));
    }
    free(pixels);
    return unused;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return fprintf(stderr, "two_threads MODEL SECONDS\n"), 2;
    shared.about.size = sizeof shared.about;
    if (ei_open(argv[1], NULL, &shared.model) || ei_describe(shared.model, &shared.about))
        stop();
    shared.bytes = (size_t)shared.about.width * shared.about.height * 3;
    shared.latest = calloc(1, shared.bytes);
    pthread_t answering, learning;
    pthread_create(&answering, NULL, answer, NULL);
    pthread_create(&learning, NULL, learn, NULL);

    /* The camera: 200 frames a second. */
    long frames = (long)(200 * atof(argv[2]));
    for (long number = 1; number <= frames; number++) {
        pthread_mutex_lock(&shared.guard);
        memset(shared.latest, (int)(number % 256), shared.bytes);
        shared.number = number;
        pthread_cond_broadcast(&shared.changed);
        pthread_mutex_unlock(&shared.guard);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    pthread_mutex_lock(&shared.guard);
    shared.ended = 1;
    pthread_cond_broadcast(&shared.changed);
    pthread_mutex_unlock(&shared.guard);
    pthread_join(answering, NULL);
    pthread_join(learning, NULL); /* ends with stdin */
    ei_close(shared.model);
    free(shared.latest);
    return 0;
}
