/* SPDX-License-Identifier: Apache-2.0 */
/* Looks into ONNX files as it is told on stdin, one command a line:
 *
 *   scan PATH          the metadata, KEY and VALUE in hex
 *   memory PATH        the same of the file's bytes in memory
 *   headless PATH OUT  writes what is left of the model
 *   sha256 PATH        the digest of its bytes, added in pieces of growing size, and at once
 *
 * Each answer begins with "STATUS: sentence" and ends with a line of one dot. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "onnx_scan.h"
#include "sha256.h"

static void say(ei_status status)
{
    printf("%s: %s\n", ei_status_name(status), status ? ei_last_error() : "");
}

static void show(eip_metadata *metadata)
{
    for (size_t i = 0; i < metadata->count; i++) {
        const char *texts[] = {metadata->entries[i].key, metadata->entries[i].value};
        for (int j = 0; j < 2; j++) {
            for (const char *at = texts[j]; *at; at++)
                printf("%02x", (unsigned char)*at);
            putchar(j ? '\n' : ' ');
        }
    }
    eip_metadata_clear(metadata);
}

static void scan(const char *path, int in_memory)
{
    eip_metadata metadata = {NULL, 0, 0};
    void *data = NULL;
    size_t bytes = 0;
    ei_status status;
    if (in_memory) {
        status = eip_read_file(path, SIZE_MAX, EI_FILE_MISSING, &data, &bytes);
        if (!status)
            status = eip_onnx_scan(data, bytes, path, &metadata);
    } else {
        status = eip_onnx_scan_file(path, &metadata);
    }
    free(data);
    say(status);
    show(&metadata);
}

static void headless(const char *path, const char *out)
{
    void *data = NULL, *cut = NULL;
    size_t bytes = 0, cut_bytes = 0;
    ei_status status = eip_read_file(path, SIZE_MAX, EI_FILE_MISSING, &data, &bytes);
    if (!status)
        status = eip_onnx_headless(data, bytes, "m", &cut, &cut_bytes);
    if (!status)
        status = eip_write_file(out, cut, cut_bytes);
    free(cut);
    free(data);
    say(status);
}

static void digest(const char *path)
{
    char hex[EIP_SHA256_HEX], at_once[EIP_SHA256_HEX];
    void *data = NULL;
    size_t bytes = 0, added = 0;
    ei_status status = eip_read_file(path, SIZE_MAX, EI_FILE_MISSING, &data, &bytes);
    say(status);
    if (status)
        return;
    eip_sha256_state state;
    eip_sha256_begin(&state);
    for (size_t part = 1; added < bytes; added += part, part = part * 3 % 131) {
        part = part < bytes - added ? part : bytes - added;
        eip_sha256_add(&state, (const char *)data + added, part);
    }
    eip_sha256_end(&state, hex);
    eip_sha256(data, bytes, at_once);
    printf("%s\n%s\n", hex, at_once);
    free(data);
}

int main(void)
{
    static char line[8192];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        char *command = strtok(line, "\t"), *path = strtok(NULL, "\t"), *out = strtok(NULL, "\t");
        if (!command || !path)
            return 2;
        if (!strcmp(command, "scan") || !strcmp(command, "memory"))
            scan(path, !strcmp(command, "memory"));
        else if (!strcmp(command, "headless") && out)
            headless(path, out);
        else if (!strcmp(command, "sha256"))
            digest(path);
        puts(".");
        fflush(stdout);
    }
    return 0;
}
