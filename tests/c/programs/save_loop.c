/* SPDX-License-Identifier: Apache-2.0 */
/* Saves two heads in turns into one file, for ever, and tells by a byte each time it has; until
 * it is killed. save_loop PATH HEAD HEAD */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "files.h"
#include "head.h"

int main(int count, char **arguments)
{
    eip_head *heads[2];
    if (count != 4)
        return 2;
    for (int i = 0; i < 2; i++)
        if (eip_head_load(arguments[2 + i], &heads[i])) {
            fprintf(stderr, "%s\n", ei_last_error());
            return 1;
        }
    for (int i = 0;; i = !i) {
        void *data;
        size_t bytes;
        if (eip_head_write(heads[i], &data, &bytes) ||
            eip_write_file(arguments[1], data, bytes)) {
            fprintf(stderr, "%s\n", ei_last_error());
            return 1;
        }
        free(data);
        if (write(STDOUT_FILENO, ".", 1) != 1)
            return 1;
    }
}
