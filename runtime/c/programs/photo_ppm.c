/* SPDX-License-Identifier: Apache-2.0 */
/* P5 and P6: a header in words, then the samples. */
#include <math.h>
#include <string.h>

#include "photo_parts.h"

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Read a number of at most 10 digits and the one blank after it; -1: there is none. */
static int64_t read_number(photo_job *job, size_t *at)
{
    int64_t value = 0;
    int digits = 0;
    while (*at < job->bytes) {
        uint8_t byte = job->data[(*at)++];
        if (byte == '#') {
            while (*at < job->bytes && job->data[*at] != '\n' && job->data[*at] != '\r')
                ++*at;
            if (*at < job->bytes)
                ++*at;
        } else if (is_blank(byte)) {
            if (digits)
                return value;
        } else if (byte >= '0' && byte <= '9' && digits < 10) {
            value = value * 10 + (byte - '0');
            digits++;
        } else {
            return -1;
        }
    }
    return -1;
}

/* What becomes of a sample: Pillow scales grey of 16 bits to 65,535 first, halves to the even. */
static uint8_t scale(unsigned sample, unsigned most, bool grey)
{
    double range = grey && most > 255 ? 65535 : 255;
    double value = nearbyint(sample / (double)most * range);
    unsigned whole = (unsigned)(value > range ? range : value);
    return (uint8_t)(grey && most > 255 ? whole / 257 : whole);
}

photo_status photo_ppm(photo_job *job)
{
    bool grey = job->data[1] == '5';
    size_t at = 3;
    if (!is_blank(job->data[2]))
        return photo_broken(job, "no JPEG, PNG or PPM file");
    int64_t width = read_number(job, &at), height = read_number(job, &at);
    int64_t most = width > 0 && height > 0 ? read_number(job, &at) : -1;
    if (most < 1 || most > 65535)
        return photo_broken(job, "its PPM header is damaged");
    photo_status status = photo_allocate(job, (uint64_t)width, (uint64_t)height);
    if (status)
        return status;
    size_t sample_bytes = most > 255 ? 2 : 1;
    size_t samples = (size_t)width * (size_t)height * (grey ? 1 : 3);
    if ((job->bytes - at) / sample_bytes < samples)
        return photo_broken(job, "image file is truncated");
    const uint8_t *from = job->data + at;
    uint8_t *to = job->photo->pixels;
    for (size_t i = 0; i < samples; i++, from += sample_bytes) {
        unsigned sample = photo_big(from, (int)sample_bytes);
        uint8_t value = most == 255 ? (uint8_t)sample : scale(sample, (unsigned)most, grey);
        if (grey) {
            memset(to, value, 3);
            to += 3;
        } else {
            *to++ = value;
        }
    }
    return PHOTO_READ;
}
