/* SPDX-License-Identifier: Apache-2.0 */
#include "output.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sysfiles.h"

static ei_status refuse(const char *path, const char *why)
{
    return eip_fail(EI_WRITE_FAILED, "cannot write %s: %s", path, why);
}

ei_status bench_check_output(const char *path, bool force, const char *const *inputs,
                             size_t count)
{
    struct stat out, other;
    char folder[BENCH_PATH_BYTES];
    const char *base = bench_base(path);
    if (!*base)
        return refuse(path, "it is a folder; name a file in it");
    bool there = !stat(path, &out);
    if (!there && errno != ENOENT && errno != ENOTDIR) {
        char reason[160];
        snprintf(reason, sizeof reason, "%s", strerror(errno));
        *reason = (char)tolower((unsigned char)*reason);
        return refuse(path, reason);
    }
    if (there && S_ISDIR(out.st_mode))
        return refuse(path, "it is a folder; name a file in it");
    if (there && !S_ISREG(out.st_mode))
        return refuse(path, "it is not a regular file");
    for (size_t i = 0; i < count && there; i++)
        if (!stat(inputs[i], &other) && other.st_dev == out.st_dev && other.st_ino == out.st_ino)
            return refuse(path, "it is what this is made from; name another file");
    if (there && !force)
        return eip_fail(EI_WRITE_FAILED, "%s exists already; pass --force to replace it", path);
    if (strlen(path) >= sizeof folder)
        return refuse(path, "the path is too long");
    snprintf(folder, sizeof folder, "%.*s", (int)(base - path), path);
    const char *where = *folder ? folder : ".";
    if (stat(where, &other) || !S_ISDIR(other.st_mode))
        return eip_fail(EI_WRITE_FAILED, "cannot write %s: there is no folder %.*s", path,
                        base - path > 1 ? (int)(base - path - 1) : 1, where);
    if (access(where, W_OK | X_OK))
        return eip_fail(EI_WRITE_FAILED, "cannot write %s: the folder %s is not writable", path,
                        where);
    return EI_OK;
}
