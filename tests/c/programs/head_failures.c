/* SPDX-License-Identifier: Apache-2.0 */
/* head_failures HEAD: reads it, lays it out, teaches, forgets, writes; each allocation fails in
 * turn. Prints how many there were. What is not freed then is the leak checker's to find. */
#include <stdio.h>
#include <stdlib.h>

#include "class_tensors.h"
#include "counted_malloc.h"
#include "head.h"
#include "teaching.h"

static float rows[4 * 65536];

static ei_status walk(const char *path)
{
    eip_head *head = NULL, *taught = NULL, *left = NULL;
    eip_class_tensors tensors = {0};
    void *written = NULL;
    size_t bytes;
    ei_status status = eip_head_load(path, &head);
    if (!status)
        status = eip_class_tensors_make(head, 64, &tensors);
    if (!status)
        status = eip_teach(head, "a new class", rows, 4, 3, &taught);
    if (!status)
        status = eip_forget(taught, "a new class", &left);
    if (!status)
        status = eip_head_write(taught, &written, &bytes);
    free(written);
    eip_class_tensors_clear(&tensors);
    eip_head_free(head);
    eip_head_free(taught);
    eip_head_free(left);
    return status;
}

int main(int count, char **words)
{
    if (count != 2)
        return 2;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        rows[i] = (float)(i * i % 17) - 7;
    ei_status status = EI_OUT_OF_MEMORY;
    for (failing = 1; status == EI_OUT_OF_MEMORY; failing++) {
        allocations = 0;
        status = walk(words[1]);
    }
    long last = failing - 1;
    failing = 0; /* from here on others allocate: whoever counts lines, when the program ends */
    if (status || allocations != last - 1) {
        printf("%s after %ld of %ld allocations: %s\n", ei_status_name(status), last,
               allocations, ei_last_error());
        return 1;
    }
    printf("%ld\n", allocations);
    return 0;
}
