/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ort.h"

#define BLANKS " \t\r\n\v\f"
#define LONGEST 4096 /* words that are looked at; a signature of CUDA's provider has hundreds */
#define LOG_ERROR 3  /* ORT_LOGGING_LEVEL_ERROR */

/* Copy words, blanks and line breaks as one blank each, cut to fit. */
static void copy_words(const char *text, char *words, size_t room)
{
    size_t written = 0;
    for (text += strspn(text, BLANKS); *text && written + 1 < room;) {
        size_t bytes = strcspn(text, BLANKS);
        if (bytes > room - 1 - written)
            bytes = room - 1 - written;
        memcpy(words + written, text, bytes);
        written += bytes;
        text += bytes;
        text += strspn(text, BLANKS);
        if (*text && written + 1 < room)
            words[written++] = ' ';
    }
    words[written] = 0;
}

/* Whether a word is FILE.cc:LINE. */
static bool is_place(const char *word, size_t bytes)
{
    static const char *const endings[] = {".cc", ".cu", ".h", ".hpp"};
    size_t digits = bytes;
    while (digits && word[digits - 1] >= '0' && word[digits - 1] <= '9')
        digits--;
    if (digits == bytes || !digits || word[digits - 1] != ':')
        return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t length = strlen(endings[i]);
        if (digits - 1 > length && !memcmp(word + digits - 1 - length, endings[i], length))
            return true;
    }
    return false;
}

/* Return where the words behind a place in ONNX Runtime's source begin: FILE.cc:LINE, then the
 * function's signature. NULL where there is none. */
static const char *behind_place(const char *word, size_t bytes)
{
    if (!is_place(word, bytes) || word[bytes] != ' ')
        return NULL;
    for (const char *at = strchr(word + bytes, ')'); at; at = strchr(at + 1, ')')) {
        const char *behind = at + 1;
        if (!strncmp(behind, " const ", 7))
            behind += 6;
        if (!strncmp(behind, " [with ", 7) && strstr(behind, "] "))
            behind = strstr(behind, "] ") + 1;
        if (behind[0] == ' ' && behind[1])
            return behind + 1;
    }
    return NULL;
}

/* Take the places in ONNX Runtime's source out of its words. */
static void drop_places(char *words)
{
    char *to = words;
    for (const char *from = words; *from;) {
        size_t bytes = strcspn(from, " ");
        const char *behind = behind_place(from, bytes);
        if (behind) {
            from = behind;
            continue;
        }
        bytes += from[bytes] == ' ';
        memmove(to, from, bytes);
        to += bytes;
        from += bytes;
    }
    *to = 0;
}

/* Whether words hold a text of small letters, whatever their case; no locale has a say. */
static bool holds(const char *words, const char *text)
{
    for (; *words; words++) {
        size_t same = 0;
        while (text[same] && (words[same] == text[same] ||
                              (text[same] >= 'a' && words[same] == text[same] - 'a' + 'A')))
            same++;
        if (!text[same])
            return true;
    }
    return false;
}

static bool has_any(const char *words, const char *const *wanted)
{
    while (*wanted && !holds(words, *wanted))
        wanted++;
    return *wanted != NULL;
}

/* How ONNX Runtime, CUDA and TensorRT say that memory ran out, and that a device failed: no
 * release has a code of its own for either. */
static const char *const no_memory[] = {"failed to allocate memory",
                                        "out of memory",
                                        "outofmemory",
                                        "bad_alloc",
                                        "bad allocation",
                                        "alloc_failed",
                                        NULL};
static const char *const device_failed[] = {"cuda",     "cudnn",           "cublas",
                                            "tensorrt", "no kernel image", NULL};
static const char *const provider[] = {"provider", NULL};

static void read_words(const char *text, eip_words *words)
{
    char all[LONGEST];
    copy_words(text, all, sizeof all);
    words->no_memory = has_any(all, no_memory);
    words->device_failed = has_any(all, device_failed);
    words->provider = has_any(all, provider);
    drop_places(all);
    size_t bytes = strlen(all);
    if (bytes >= sizeof words->text)
        bytes = sizeof words->text - 1;
    while (bytes && (all[bytes] & 0xc0) == 0x80) /* within a letter */
        bytes--;
    memcpy(words->text, all, bytes);
    words->text[bytes] = 0;
}

void eip_ort_take_words(const eip_ort *ort, OrtStatus *status, eip_words *words)
{
    read_words(ort->GetErrorMessage(status), words);
    ort->ReleaseStatus(status);
}

/* ----------------------------------------------------------------------------------- log -- */

static _Thread_local eip_words logged;

void eip_ort_keep_logged(void *unused, unsigned severity, const char *category, const char *id,
                         const char *place, const char *message)
{
    (void)unused, (void)category, (void)id, (void)place;
    if (severity >= LOG_ERROR && message)
        read_words(message, &logged);
}

const char *eip_ort_logged(void)
{
    return logged.text;
}

void eip_ort_forget_logged(void)
{
    logged.text[0] = 0;
}
