/* SPDX-License-Identifier: Apache-2.0 */
/* How a photo is turned: EXIF's tag 0x0112, else XMP's tiff:Orientation, as Pillow takes them. */
#include <string.h>

#include "photo_parts.h"

#define ORIENTATION 0x0112

static uint32_t number(const uint8_t *at, int bytes, bool little)
{
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint32_t)at[i] << 8 * (little ? i : bytes - 1 - i);
    return value;
}

/* Read the first directory of a TIFF file; *found says whether the tag is there. */
static int from_exif(const uint8_t *data, size_t bytes, bool *found)
{
    while (bytes >= 6 && !memcmp(data, "Exif\0\0", 6)) {
        data += 6;
        bytes -= 6;
    }
    if (!bytes)
        return 0;
    bool little = data[0] == 'I';
    if (bytes < 8 || (memcmp(data, "II", 2) && memcmp(data, "MM", 2)) ||
        (data[2] + data[3] != 42 && data[2] + data[3] != 43) || (data[2] && data[3]))
        return -1;
    size_t at = number(data + 4, 4, little);
    if (at > bytes || bytes - at < 2)
        return 0;
    size_t entries = number(data + at, 2, little);
    int orientation = 0;
    for (at += 2; entries && bytes - at >= 12; entries--, at += 12) {
        const uint8_t *entry = data + at;
        if (number(entry, 2, little) != ORIENTATION)
            continue;
        *found = true;
        uint32_t type = number(entry + 2, 2, little), count = number(entry + 4, 4, little);
        bool is_short = type == 3 || type == 8, is_long = type == 4 || type == 9;
        orientation = 0;
        if (count == 1 && (is_short || is_long)) {
            uint32_t value = number(entry + 8, is_short ? 2 : 4, little);
            orientation = value <= 8 ? (int)value : 0;
        }
    }
    return orientation;
}

static int from_xmp(const uint8_t *data, size_t bytes)
{
    static const char tag[] = "tiff:Orientation";
    size_t length = sizeof tag - 1;
    for (size_t at = 0; at + length + 3 <= bytes; at++) {
        if (memcmp(data + at, tag, length))
            continue;
        const uint8_t *after = data + at + length;
        size_t skip = !memcmp(after, "=\"", 2) ? 2 : after[0] == '>' ? 1 : 0;
        if (skip && after[skip] >= '0' && after[skip] <= '9')
            return after[skip] <= '8' ? after[skip] - '0' : 0;
    }
    return 0;
}

int photo_orientation(const photo_turn *turn)
{
    bool found = false;
    int orientation = 0;
    if (turn->exif)
        orientation = from_exif(turn->exif, turn->exif_bytes, &found);
    if (!found && orientation == 0 && turn->xmp)
        orientation = from_xmp(turn->xmp, turn->xmp_bytes);
    return orientation;
}
