/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes are read as a head file, or refused; what is read is written and read
 * again, and stays what it was; it is laid out for a graph, and taught a class. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "class_tensors.h"
#include "errors.h"
#include "head.h"
#include "teaching.h"

#define MAX_NUMBERS 100000 /* beyond which a run would take too long */

#define HOLD(what)   \
    do {             \
        if (!(what)) \
            abort(); \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static eip_head *read_head(const void *data, size_t bytes, ei_status *status)
{
    eip_head *head = NULL;
    void *copy = NULL;
    /* As eip_read_file gives them, and exactly as many: what reads beyond is found. */
    HOLD(posix_memalign(&copy, 64, bytes ? bytes : 1) == 0);
    if (bytes)
        memcpy(copy, data, bytes);
    *status = eip_head_read(copy, bytes, "fuzz", &head);
    return head;
}

/* Walk all that a head says it has. */
static double sum(const eip_head *head)
{
    double total = 0;
    size_t classes = head->contract.classes, first = 0;
    size_t size = (size_t)head->contract.embedding_size;
    for (size_t i = 0; i < head->proxy_count * head->width; i++)
        total += head->proxies[i];
    for (size_t i = 0; i < head->proxy_count; i++)
        HOLD(head->class_index[i] >= (i ? head->class_index[i - 1] : 0));
    for (size_t i = 0; head->transform && i < size * head->width; i++)
        total += head->transform[i];
    for (size_t i = 0; head->metric && i < head->width * head->metric_width; i++)
        total += head->metric[i];
    for (size_t i = 0; head->center && i < size; i++)
        total += head->center[i];
    for (size_t i = 0; head->samples && i < head->sample_count * size; i++)
        total += head->samples[i];
    for (size_t i = 0; i < classes; i++) {
        size_t count = 0;
        HOLD(eip_head_first(head, i, &count) == first && count >= 1);
        HOLD(eip_head_find(head, head->contract.labels[i]) == i);
        first += count;
        total += head->threshold ? head->threshold[i] : 0;
    }
    HOLD(first == head->proxy_count && eip_head_find(head, "") == classes);
    return total;
}

/* Write, read, and write again: the same bytes. */
static void write_again(const eip_head *head)
{
    void *once = NULL, *twice = NULL;
    size_t once_bytes, twice_bytes;
    ei_status status;
    HOLD(!eip_head_write(head, &once, &once_bytes));
    eip_head *again = read_head(once, once_bytes, &status);
    HOLD(again && sum(again) == sum(head));
    HOLD(!eip_head_write(again, &twice, &twice_bytes));
    HOLD(once_bytes == twice_bytes && memcmp(once, twice, once_bytes) == 0);
    free(once);
    free(twice);
    eip_head_free(again);
}

static void lay_out(const eip_head *head)
{
    eip_class_tensors made = {0};
    size_t most = 0;
    for (size_t i = 0; i < head->contract.classes; i++) {
        size_t count;
        eip_head_first(head, i, &count);
        most = count > most ? count : most;
    }
    if (head->contract.classes * most * (head->width + head->metric_width) > MAX_NUMBERS)
        return;
    if (!eip_class_tensors_make(head, (int32_t)most, &made))
        HOLD(made.count >= 1 && made.count <= EIP_MAX_TENSORS);
    eip_class_tensors_clear(&made);
}

static void teach(const eip_head *head)
{
    size_t size = (size_t)head->contract.embedding_size;
    float *embeddings = calloc(2 * size, sizeof *embeddings);
    eip_head *taught = NULL, *left = NULL;
    for (size_t i = 0; i < 2 * size; i++)
        embeddings[i] = (float)(i % 5) - 1.5f;
    if (size * head->proxy_count <= MAX_NUMBERS &&
        !eip_teach(head, "taught", embeddings, 2, 2, &taught)) {
        write_again(taught);
        if (!eip_forget(taught, "taught", &left))
            write_again(left);
    }
    eip_head_free(left);
    eip_head_free(taught);
    free(embeddings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    ei_status status;
    eip_head *head = read_head(data, bytes, &status);
    HOLD((head != NULL) == (status == EI_OK));
    if (!head) {
        HOLD(*ei_last_error() && !strchr(ei_last_error(), '\n'));
        return 0;
    }
    double total = sum(head);
    HOLD(total - total == 0);
    write_again(head);
    lay_out(head);
    teach(head);
    eip_head_free(head);
    return 0;
}
