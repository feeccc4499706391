/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "options.h"
#include "print.h"

static atomic_int interrupts; /* lock-free, so that the handler may count */

static void interrupt(int signal_number)
{
    (void)signal_number;
    /* The first is seen between two calls; but a model that is being opened looks at nothing. */
    static const char text[] = "\nerror: interrupted\n";
    if (atomic_fetch_add(&interrupts, 1)) {
        ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
        (void)written;
        _exit(EXIT_INTERRUPTED);
    }
}

void bench_catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = interrupt};
    struct sigaction old;
    sigemptyset(&action.sa_mask);
    static const int signals[] = {SIGINT, SIGTERM};
    for (int i = 0; i < 2; i++)
        if (!sigaction(signals[i], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    /* Who reads stdout may be gone by the time the figures are there: they still go into --out. */
    signal(SIGPIPE, SIG_IGN);
}

bool bench_interrupted(void)
{
    return atomic_load_explicit(&interrupts, memory_order_relaxed) != 0;
}

ei_status bench_go_on(void)
{
    return bench_interrupted() ? eip_fail(EI_RUN_FAILED, "it was interrupted") : EI_OK;
}

void bench_tell(const char *step, int64_t done, int64_t total)
{
    static char shown[128];
    bool on_terminal = isatty(STDERR_FILENO);
    if (!step) {
        if (*shown && on_terminal)
            fputc('\n', stderr);
        *shown = 0;
        return;
    }
    if (strncmp(step, shown, sizeof shown - 1)) {
        if (*shown && on_terminal)
            fputc('\n', stderr);
        snprintf(shown, sizeof shown, "%s", step);
        if (!on_terminal)
            fprintf(stderr, "%s ...\n", step);
    }
    if (on_terminal)
        fprintf(stderr, "\r%s ... %3.0f%%", step,
                100.0 * (double)done / (double)(total > 1 ? total : 1));
    fflush(stderr);
}

void bench_note(const char *kind, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *at = text; *at; at++)
        if (*at == '\n' || *at == '\r')
            *at = ' ';
    fprintf(stderr, "%s: ", kind);
    print_text(stderr, text);
    fputc('\n', stderr);
}
