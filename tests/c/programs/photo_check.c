/* SPDX-License-Identifier: Apache-2.0 */
/* Reads photos: a path a line on stdin; for each "STATUS WIDTH HEIGHT MESSAGE" and the pixels.
 * With paths on the command line it lists the photos they stand for. */
#include <stdio.h>
#include <string.h>

#include "photo.h"

static int list(char *path)
{
    photo_files files = {0};
    char message[PHOTO_MESSAGE];
    photo_status status = photo_files_add(&files, path, message);
    for (size_t i = 0; i < files.count; i++)
        puts(files.paths[i]);
    if (status)
        puts(message);
    photo_files_free(&files);
    return (int)status;
}

int main(int argc, char **argv)
{
    char path[8192], message[PHOTO_MESSAGE];
    if (argc > 1)
        return list(argv[1]);
    while (fgets(path, sizeof path, stdin)) {
        path[strcspn(path, "\n")] = '\0';
        photo photo;
        message[0] = '\0';
        photo_status status = photo_read(path, &photo, message);
        printf("%d %d %d %s\n", (int)status, photo.width, photo.height, message);
        if (photo.pixels)
            fwrite(photo.pixels, 3, (size_t)photo.width * (size_t)photo.height, stdout);
        fflush(stdout);
        photo_free(&photo);
    }
    return 0;
}
