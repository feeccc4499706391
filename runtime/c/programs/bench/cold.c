/* SPDX-License-Identifier: Apache-2.0 */
/* Cold start: from the start of a process to the first label, in fresh processes of this very
 * program. Time is taken here, before the other is started and when its label has come through a
 * pipe. */
#define _GNU_SOURCE /* pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lists.h"
#include "progress.h"
#include "run.h"

#define TIMEOUT_NS 600000000000
#define MARK "label:"
#define MAX_ARGUMENTS 24

extern char **environ;

typedef struct command {
    char *of[MAX_ARGUMENTS];
    int count;
    char numbers[3][32];
} command;

static void add(command *line, const char *option, const char *value)
{
    if (!value)
        return;
    line->of[line->count++] = (char *)option;
    line->of[line->count++] = (char *)value;
}

static void make_command(const bench_run *run, command *line)
{
    const run_options *options = &run->options;
    const bench_subject *subject = &run->subjects[0];
    *line = (command){.of = {(char *)"ei-bench", (char *)"--first-label"}, .count = 2};
    snprintf(line->numbers[0], sizeof line->numbers[0], "%lld", (long long)options->threads);
    snprintf(line->numbers[1], sizeof line->numbers[1], "%lld", (long long)options->device);
    snprintf(line->numbers[2], sizeof line->numbers[2], "%dx%d", subject->width, subject->height);
    add(line, "--provider", provider_names[options->provider]);
    add(line, "--threads", line->numbers[0]);
    add(line, "--device", line->numbers[1]);
    add(line, "--library", options->library);
    add(line, "--head", options->head);
    add(line, "--cache", options->cache_folder);
    if (subject->any_size)
        add(line, "--frame-size", line->numbers[2]);
    line->of[line->count++] = (char *)"--";
    line->of[line->count++] = (char *)run->path;
}

/* Read until a line begins with the mark; return when it came, or 0. What a library prints of its
 * own is passed over. */
static int64_t label_time_ns(int from, int64_t start_ns)
{
    char line[sizeof MARK - 1], byte[256];
    size_t used = 0;
    for (;;) {
        struct pollfd ready = {.fd = from, .events = POLLIN};
        int told = poll(&ready, 1, 100);
        if (bench_interrupted() || bench_now_ns() - start_ns > TIMEOUT_NS)
            return 0;
        if (told <= 0)
            continue;
        ssize_t got = read(from, byte, sizeof byte);
        int64_t now = bench_now_ns();
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        for (ssize_t i = 0; i < got; i++) {
            if (byte[i] == '\n') {
                used = 0;
            } else if (used < sizeof line) {
                line[used++] = byte[i];
                if (used == sizeof line && !memcmp(line, MARK, sizeof line))
                    return now;
            }
        }
    }
}

/* Copy the last line that a process said. */
static void last_line(FILE *said, char *line, size_t bytes)
{
    char next[300];
    rewind(said);
    *line = 0;
    while (fgets(next, sizeof next, said)) {
        next[strcspn(next, "\r\n")] = 0;
        if (*next)
            snprintf(line, bytes, "%s", next);
    }
}

static ei_status first_label(command *line, double *taken_ms)
{
    int ends[2] = {-1, -1}, how = 0;
    char why[300] = "";
    pid_t process = 0;
    int64_t end = 0;
    posix_spawn_file_actions_t actions;
    /* A file takes any number of warnings; a pipe that nobody reads would stop the process. */
    FILE *said = tmpfile();
    if (!said || pipe2(ends, O_CLOEXEC) || posix_spawn_file_actions_init(&actions)) {
        if (said)
            fclose(said);
        return eip_fail(EI_PROVIDER, "no process can be started for a cold start: %s",
                        strerror(errno));
    }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fileno(said), STDERR_FILENO);
    int64_t start = bench_now_ns();
    int failed = posix_spawn(&process, "/proc/self/exe", &actions, NULL, line->of, environ);
    close(ends[1]);
    if (!failed) {
        end = label_time_ns(ends[0], start);
        if (!end) /* interrupted, or too late: it must not go on */
            kill(process, SIGKILL);
    }
    close(ends[0]); /* before the wait: what it prints behind its label must not fill the pipe */
    if (!failed) {
        while (waitpid(process, &how, 0) < 0 && errno == EINTR)
            ;
        last_line(said, why, sizeof why);
    }
    fclose(said);
    posix_spawn_file_actions_destroy(&actions);
    if (end) {
        *taken_ms = (double)(end - start) / 1e6;
        return EI_OK;
    }
    if (failed)
        snprintf(why, sizeof why, "%s", strerror(failed));
    if (!*why)
        snprintf(why, sizeof why, "it ended with %d", WIFEXITED(how) ? WEXITSTATUS(how) : -1);
    return eip_fail(EI_PROVIDER,
                    "a fresh process came to no label: %s; leave out --cold, or run ei-classify "
                    "to see why",
                    why);
}

ei_status bench_cold_starts(const bench_run *run, double *taken_ms)
{
    command line;
    make_command(run, &line);
    ei_status status = EI_OK;
    for (int64_t done = 0; done < run->plan.cold && !status; done++) {
        bench_tell("starting processes", done, run->plan.cold);
        status = first_label(&line, &taken_ms[done]);
    }
    return status;
}
