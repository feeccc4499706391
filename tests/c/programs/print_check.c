/* SPDX-License-Identifier: Apache-2.0 */
/* Prints what it is given, as the programs print it: on stdin a letter, then a number (n) or text
 * up to a NUL (j: JSON, q: in quotes). Each answer ends in a NUL. */
#include <stdio.h>
#include <stdlib.h>

#include "print.h"

int main(void)
{
    static char text[1 << 16];
    int kind;
    while ((kind = getchar()) != EOF) {
        size_t bytes = 0;
        int next;
        while ((next = getchar()) > 0 && bytes + 1 < sizeof text)
            text[bytes++] = (char)next;
        text[bytes] = '\0';
        if (kind == 'n')
            print_json_number(stdout, strtod(text, NULL));
        else if (kind == 'j')
            print_json_text(stdout, text);
        else
            print_quoted(stdout, text);
        putchar('\0');
    }
    return fflush(stdout) ? 1 : 0;
}
