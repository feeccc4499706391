/* SPDX-License-Identifier: Apache-2.0 */
/* Where a report comes from: the file, and the commit of the folder in which it ran. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lists.h"
#include "report.h"
#include "sha256.h"

/* Return the first line that a command prints, or NULL: it failed. */
static bool first_line(const char *command, char *line, size_t bytes)
{
    FILE *pipe = popen(command, "re");
    if (!pipe)
        return false;
    bool said = fgets(line, (int)bytes, pipe) != NULL;
    char rest[256];
    while (fgets(rest, sizeof rest, pipe))
        ;
    if (!said)
        *line = 0;
    line[strcspn(line, "\r\n")] = 0;
    return pclose(pipe) == 0;
}

static ei_status commit_here(char **commit)
{
    char head[64], changes[256];
    static const char short_name[] =
        "GIT_OPTIONAL_LOCKS=0 git rev-parse --short HEAD 2>/dev/null </dev/null";
    static const char differs[] = "GIT_OPTIONAL_LOCKS=0 git status --porcelain "
                                  "--untracked-files=no 2>/dev/null </dev/null";
    *commit = NULL;
    if (!first_line(short_name, head, sizeof head) || !*head)
        return EI_OK;
    bool changed = first_line(differs, changes, sizeof changes) && *changes;
    *commit = bench_text("%s%s", head, changed ? "+changes" : "");
    return *commit ? EI_OK : EI_OUT_OF_MEMORY;
}

ei_status bench_origin_find(const char *path, bench_origin *origin)
{
    static unsigned char part[1 << 20];
    eip_sha256_state state;
    size_t got;
    *origin = (bench_origin){0};
    FILE *file = fopen(path, "rbe");
    if (!file)
        return eip_fail(EI_FILE_MISSING, "%s can't be read: %s", path, strerror(errno));
    eip_sha256_begin(&state);
    while ((got = fread(part, 1, sizeof part, file)) > 0) {
        eip_sha256_add(&state, part, got);
        origin->file_bytes += (int64_t)got;
    }
    eip_sha256_end(&state, origin->sha256);
    bool failed = ferror(file);
    fclose(file);
    if (failed)
        return eip_fail(EI_FILE_MISSING, "%s can't be read to its end", path);
    return commit_here(&origin->commit);
}

void bench_origin_clear(bench_origin *origin)
{
    free(origin->commit);
    *origin = (bench_origin){0};
}
