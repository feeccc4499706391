/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "head_write.h"

/* Return the bytes of the UTF-8 character at text, and it itself; 0: there is none. */
static size_t read_character(const char *text, unsigned *character)
{
    const unsigned char *bytes = (const unsigned char *)text;
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = bytes[0] < 0x80             ? 1
                    : (bytes[0] & 0xE0) == 0xC0 ? 2
                    : (bytes[0] & 0xF0) == 0xE0 ? 3
                    : (bytes[0] & 0xF8) == 0xF0 ? 4
                                                : 0;
    if (!length)
        return 0;
    unsigned found = length == 1 ? bytes[0] : bytes[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xC0) != 0x80) /* the NUL that ends the text, too */
            return 0;
        found = found << 6 | (bytes[i] & 0x3F);
    }
    if (found < least[length] || found > 0x10FFFF || (found >= 0xD800 && found < 0xE000))
        return 0;
    *character = found;
    return length;
}

static bool is_utf8(const char *text)
{
    unsigned character;
    size_t length;
    for (; *text; text += length)
        if (!(length = read_character(text, &character)))
            return false;
    return true;
}

void print_text(FILE *file, const char *text)
{
    unsigned character;
    while (*text) {
        size_t length = read_character(text, &character);
        if (length)
            fwrite(text, 1, length, file);
        else
            fprintf(file, "\\udc%02x", (unsigned char)*text);
        text += length ? length : 1;
    }
}

/* Whether a character can be seen: not the control characters, nor what Python's repr escapes of
 * the blanks and marks that programs mean, not people. */
static bool is_printable(unsigned c)
{
    return !(c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD || (c >= 0x2000 && c <= 0x200F) ||
             (c >= 0x2028 && c <= 0x202F) || (c >= 0x205F && c <= 0x206F) || c == 0x3000 ||
             c == 0xFEFF || (c >= 0xE000 && c <= 0xF8FF));
}

void print_quoted(FILE *file, const char *text)
{
    int quote = strchr(text, '\'') && !strchr(text, '"') ? '"' : '\'';
    putc(quote, file);
    while (*text) {
        unsigned c = 0;
        size_t length = read_character(text, &c);
        if (!length)
            fprintf(file, "\\udc%02x", (unsigned char)*text);
        else if (c == (unsigned)quote || c == '\\')
            fprintf(file, "\\%c", (int)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            fprintf(file, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (is_printable(c))
            fwrite(text, 1, length, file);
        else
            fprintf(file, c < 0x100 ? "\\x%02x" : "\\u%04x", c);
        text += length ? length : 1;
    }
    putc(quote, file);
}

void print_json_text(FILE *file, const char *text)
{
    bool ascii = !is_utf8(text);
    putc('"', file);
    while (*text) {
        static const char special[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
        unsigned c = 0;
        size_t length = read_character(text, &c);
        const char *found = c && c < 0x80 ? strchr(special, (int)c) : NULL;
        if (!length)
            fprintf(file, "\\udc%02x", (unsigned char)*text);
        else if (found)
            fprintf(file, "\\%c", letters[found - special]);
        else if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000))
            fprintf(file, "\\u%04x", c);
        else if (ascii && c >= 0x10000)
            fprintf(file, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                    0xDC00 + ((c - 0x10000) & 0x3FF));
        else
            fwrite(text, 1, length, file);
        text += length ? length : 1;
    }
    putc('"', file);
}

void print_json_member(FILE *file, const char *key, const char *text)
{
    fprintf(file, "\"%s\": ", key);
    print_json_text(file, text);
}

void print_json_number(FILE *file, double value)
{
    char text[EIP_NUMBER_BYTES];
    if (!isfinite(value)) {
        fputs(isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity", file);
        return;
    }
    eip_write_number(value, text);
    fputs(text, file);
}
