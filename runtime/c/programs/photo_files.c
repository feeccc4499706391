/* SPDX-License-Identifier: Apache-2.0 */
/* The photos of a folder, found and sorted as Python's `expand_photos` does. */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "photo.h"

/* The folders on the way down and those already seen, so that a loop of links ends. */
typedef struct visit {
    photo_files *files;
    struct stat *seen;
    size_t seen_count;
    char *message;
} visit;

static bool is_photo(const char *name)
{
    /* Python's, with those that are not read here: told, not passed over. */
    static const char *const suffixes[] = {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm",  ".pnm",  ".avif", ".bmp",
        ".dib", ".gif",  ".jp2", ".pbm",  ".tga", ".tif", ".tiff", ".webp", NULL};
    const char *suffix = strrchr(name, '.');
    /* A Mac writes a ._name beside each name on foreign disks; it is no image. */
    if (!suffix || suffix == name || !strncmp(name, "._", 2))
        return false;
    for (size_t i = 0; suffixes[i]; i++)
        if (!strcasecmp(suffix, suffixes[i]))
            return true;
    return false;
}

static photo_status no_memory(char *message)
{
    snprintf(message, PHOTO_MESSAGE, "there is not enough memory for so many files");
    return PHOTO_NO_MEMORY;
}

static photo_status add(photo_files *files, char *path, char *message)
{
    if (files->count == files->capacity) {
        size_t capacity = files->capacity ? files->capacity * 2 : 64;
        char **larger = path ? realloc(files->paths, capacity * sizeof *larger) : NULL;
        if (!larger) {
            free(path);
            return no_memory(message);
        }
        files->paths = larger;
        files->capacity = capacity;
    }
    if (!path)
        return no_memory(message);
    files->paths[files->count++] = path;
    return PHOTO_READ;
}

static photo_status walk(visit *visit, const char *folder);

static photo_status visit_entry(visit *visit, const char *folder, const char *name)
{
    size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = malloc(bytes);
    if (!path)
        return no_memory(visit->message);
    bool slash = *folder && folder[strlen(folder) - 1] == '/';
    snprintf(path, bytes, "%s%s%s", folder, slash ? "" : "/", name);
    struct stat facts;
    if (!stat(path, &facts) && S_ISDIR(facts.st_mode)) {
        photo_status status = walk(visit, path);
        free(path);
        return status;
    }
    if (is_photo(name))
        return add(visit->files, path, visit->message);
    free(path);
    return PHOTO_READ;
}

static photo_status walk(visit *visit, const char *folder)
{
    struct stat here;
    if (stat(folder, &here))
        return PHOTO_READ;
    for (size_t i = 0; i < visit->seen_count; i++)
        if (visit->seen[i].st_dev == here.st_dev && visit->seen[i].st_ino == here.st_ino)
            return PHOTO_READ;
    struct stat *seen = realloc(visit->seen, (visit->seen_count + 1) * sizeof *seen);
    if (!seen)
        return no_memory(visit->message);
    visit->seen = seen;
    seen[visit->seen_count++] = here;
    DIR *listing = opendir(folder);
    if (!listing) {
        snprintf(visit->message, PHOTO_MESSAGE, "cannot list the folder %.600s: %s", folder,
                 strerror(errno));
        return PHOTO_UNREADABLE;
    }
    photo_status status = PHOTO_READ;
    struct dirent *entry;
    while (!status && (entry = readdir(listing)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            status = visit_entry(visit, folder, entry->d_name);
    closedir(listing);
    return status;
}

static int by_bytes(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

photo_status photo_files_add(photo_files *files, const char *path, char message[PHOTO_MESSAGE])
{
    struct stat facts;
    if (stat(path, &facts) || !S_ISDIR(facts.st_mode))
        return add(files, strdup(path), message);
    size_t first = files->count;
    visit visit = {.files = files, .message = message};
    photo_status status = walk(&visit, path);
    free(visit.seen);
    if (status)
        return status;
    if (files->count == first) {
        snprintf(message, PHOTO_MESSAGE,
                 "%.600s holds no images; name photos, or a folder of photos", path);
        return PHOTO_UNREADABLE;
    }
    qsort(files->paths + first, files->count - first, sizeof *files->paths, by_bytes);
    return PHOTO_READ;
}

void photo_files_free(photo_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->paths[i]);
    free(files->paths);
    memset(files, 0, sizeof *files);
}
