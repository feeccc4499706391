/* SPDX-License-Identifier: Apache-2.0 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_PATH, getrandom's flags */
#endif
#include "files.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "json.h"

#define MAX_LINKS 40
#define MAX_TRIES 100
#define NAME_BYTES 50 /* of the file's name in the temporary one's: names have 255 at most */

/* Write what an errno means, as a part of a sentence; `reason` takes 160 bytes. */
static const char *because(int number, char *reason)
{
    const char *advice = number == ENOSPC || number == EDQUOT ? "; free some and try again"
                         : number == EACCES || number == EPERM || number == EROFS
                             ? "; name a file in a folder that may be written to"
                             : "";
    errno = number;
    /* %m is no ISO C, but glibc and musl have it, and it is safe among threads. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat"
    snprintf(reason, 160, "%m%s", advice);
#pragma GCC diagnostic pop
    *reason = (char)tolower((unsigned char)*reason);
    return reason;
}

bool eip_exists(const char *path)
{
    struct stat found;
    /* Of a name that can't be looked up the reading that follows will tell why. */
    return lstat(path, &found) == 0 ||
           (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG);
}

eip_stamp eip_stamp_of(const char *path)
{
    struct stat found;
    if (stat(path, &found) != 0)
        return (eip_stamp){0};
    return (eip_stamp){(uint64_t)found.st_dev, (uint64_t)found.st_ino, (uint64_t)found.st_size,
                       found.st_mtim.tv_sec, found.st_mtim.tv_nsec};
}

/* -------------------------------------------------------------------------------- reading -- */

/* Read up to `bytes`; returns how many there were, or -1. */
static ssize_t read_all(int file, char *to, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t step = read(file, to + done, bytes - done);
        if (step < 0 && errno == EINTR)
            continue;
        if (step < 0)
            return -1;
        if (step == 0)
            break;
        done += (size_t)step;
    }
    return (ssize_t)done;
}

ei_status eip_read_file(const char *path, size_t limit, ei_status status, void **data,
                        size_t *bytes)
{
    struct stat found;
    char *memory = NULL, extra, reason[160];
    *data = NULL;
    /* Not blocking: a FIFO would be waited for, before it is known to be one. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0 && errno == ENOENT)
        return eip_fail(status, "there is no file %s", path);
    if (file < 0 || fstat(file, &found) != 0)
        goto failed;
    if (!S_ISREG(found.st_mode)) {
        eip_fail(status, "cannot read %s: it is %s", path,
                 S_ISDIR(found.st_mode) ? "a folder; name a file in it" : "not a regular file");
        goto done;
    }
    if ((uintmax_t)found.st_size > limit) {
        eip_fail(status, "cannot read %s: it has %jd bytes, and %zu are the most that it may",
                 path, (intmax_t)found.st_size, limit);
        goto done;
    }
    *bytes = (size_t)found.st_size;
    memory = eip_allocate_array(*bytes, 1);
    if (!memory) {
        status = EI_OUT_OF_MEMORY;
        goto done;
    }
    ssize_t got = read_all(file, memory, *bytes);
    ssize_t more = got < 0 ? -1 : read_all(file, &extra, 1);
    if (more < 0)
        goto failed;
    if ((size_t)got != *bytes || more > 0) {
        eip_fail(status, "cannot read %s: another program is writing it; try again", path);
        goto done;
    }
    *data = memory;
    close(file);
    return EI_OK;
failed:
    eip_fail(status, "cannot read %s: %s", path, because(errno, reason));
done:
    free(memory);
    if (file >= 0)
        close(file);
    return status;
}

/* -------------------------------------------------------------------------------- writing -- */

static ei_status cannot_write(const char *path, int number)
{
    char reason[160];
    return eip_fail(EI_WRITE_FAILED, "cannot write %s: %s", path, because(number, reason));
}

/* Follow the links at a path's end, also where they lead to no file yet. NULL sets errno. */
static char *follow(const char *path, char *target)
{
    char link[PATH_MAX];
    if (strlen(path) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    strcpy(target, path);
    for (int i = 0; i < MAX_LINKS; i++) {
        ssize_t bytes = readlink(target, link, sizeof link - 1);
        if (bytes < 0) /* EINVAL: no link; else there is nothing, or opening will tell */
            return target;
        link[bytes] = 0;
        const char *slash = strrchr(target, '/');
        size_t folder = *link == '/' || !slash ? 0 : (size_t)(slash - target) + 1;
        if (folder + (size_t)bytes >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return NULL;
        }
        memcpy(target + folder, link, (size_t)bytes + 1);
    }
    errno = ELOOP;
    return NULL;
}

/* Make a file beside `name`, of a name of its own: two writers must not share a half-written one.
 * Returns its descriptor, or -1 and errno. */
static int open_beside(int folder, const char *name, mode_t mode, char *beside, size_t room)
{
    size_t bytes = strlen(name), kept = 0, step;
    while (kept < bytes && (step = eip_utf8(name + kept, name + bytes)) != 0 &&
           kept + step <= NAME_BYTES)
        kept += step;
    for (int i = 0; i < MAX_TRIES; i++) {
        uint32_t chance;
        struct timespec now;
        if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) != (ssize_t)sizeof chance) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            chance = (uint32_t)now.tv_nsec * 2654435761u ^ (uint32_t)getpid();
        }
        snprintf(beside, room, ".%.*s.%08x.tmp", (int)kept, name, (unsigned)chance);
        int file = openat(folder, beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (file >= 0 || (errno != EEXIST && errno != EINTR))
            return file;
    }
    return -1;
}

/* Write all, and see it on the disk; 0 or an errno. */
static int write_all(int file, const char *from, size_t bytes)
{
    while (bytes) {
        ssize_t step = write(file, from, bytes);
        if (step < 0 && errno == EINTR)
            continue;
        if (step <= 0)
            return step < 0 ? errno : EIO;
        from += step;
        bytes -= (size_t)step;
    }
    while (fsync(file) != 0)
        if (errno != EINTR)
            return errno;
    return 0;
}

/* Give a new file what the old one had: the owner where we may, and the permissions. */
static int resemble(int file, const struct stat *old)
{
    struct stat now;
    if (fstat(file, &now) != 0)
        return errno;
    if ((now.st_uid != old->st_uid || now.st_gid != old->st_gid) &&
        fchown(file, old->st_uid, old->st_gid) != 0)
        errno = 0; /* only root may give files away: then it is ours */
    return fchmod(file, old->st_mode & 0777) != 0 ? errno : 0;
}

/* Write beside, in an open folder, and rename; 0 or an errno. */
static int replace(int folder, const char *name, const struct stat *old, const void *data,
                   size_t bytes)
{
    char beside[NAME_BYTES + 32];
    int file = open_beside(folder, name, old ? 0600 : 0666, beside, sizeof beside);
    if (file < 0)
        return errno;
    int number = old ? resemble(file, old) : 0;
    if (!number)
        number = write_all(file, data, bytes);
    /* A network's file system may keep its complaint until now. */
    if (close(file) != 0 && !number && errno != EINTR)
        number = errno;
    if (!number && renameat(folder, beside, folder, name) != 0)
        number = errno;
    if (number) {
        unlinkat(folder, beside, 0);
        return number;
    }
    /* The file is whole either way; this makes the new one outlive a power cut at once. */
    int readable = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (readable >= 0) {
        fsync(readable);
        close(readable);
    }
    return 0;
}

ei_status eip_write_file(const char *path, const void *data, size_t bytes)
{
    char target[PATH_MAX];
    struct stat old;
    if (!follow(path, target))
        return cannot_write(path, errno);
    bool there = lstat(target, &old) == 0;
    if (!there && errno != ENOENT && errno != ENOTDIR)
        return cannot_write(path, errno);
    char *slash = strrchr(target, '/');
    const char *name = slash ? slash + 1 : target;
    if (there && S_ISDIR(old.st_mode))
        return eip_fail(EI_WRITE_FAILED, "cannot write %s: it is a folder; name a file in it",
                        path);
    if (there && !S_ISREG(old.st_mode)) /* such as /dev/null, which root could replace */
        return eip_fail(EI_WRITE_FAILED, "cannot write %s: it is not a regular file", path);
    if (!*name)
        return eip_fail(EI_WRITE_FAILED, "cannot write '%s': it names no file", path);
    /* One folder from beginning to end, wherever the host program moves meanwhile. */
    int folder;
    if (slash) {
        *slash = 0;
        folder = open(slash == target ? "/" : target, O_PATH | O_DIRECTORY | O_CLOEXEC);
    } else {
        folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    if (folder < 0)
        return errno == ENOENT
                   ? eip_fail(EI_WRITE_FAILED, "cannot write %s: there is no folder %s", path,
                              target)
                   : cannot_write(path, errno);
    int number = replace(folder, name, there ? &old : NULL, data, bytes);
    close(folder);
    return number ? cannot_write(path, number) : EI_OK;
}
