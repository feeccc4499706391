/* SPDX-License-Identifier: Apache-2.0 */
#include "answer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "options.h"
#include "print.h"

/* Rank one class after the other, without memory for all of them. */
static size_t rank(const ei_predictions *found, int64_t top, ei_ranked *best, size_t room)
{
    size_t ranked = 0;
    size_t wanted = (uint64_t)top < room ? (size_t)top : room;
    if (!wanted || ei_top(found, 0, best, wanted, &ranked))
        return 0;
    return ranked;
}

static void json_optional(const char *key, bool there, double value)
{
    printf(", \"%s\": ", key);
    if (there)
        print_json_number(stdout, value);
    else
        fputs("null", stdout);
}

static void print_json(answer_of of, const ei_predictions *found, const ei_ranked *best,
                       size_t ranked, bool with_top)
{
    const ei_prediction *one = ei_prediction_at(found, 0);
    bool calibrated = one->known >= 0;
    putchar('{');
    if (of.path)
        print_json_member(stdout, "path", of.path);
    else
        printf("\"frame\": %" PRId64, of.frame);
    fputs(", ", stdout);
    print_json_member(stdout, "label", one->label);
    printf(", \"index\": %" PRId32, one->index);
    json_optional("score", true, one->score);
    fputs(", ", stdout);
    print_json_member(stdout, "nearest", one->nearest);
    printf(", \"known\": %s", !calibrated ? "null" : one->known ? "true" : "false");
    json_optional("probability", calibrated, one->probability);
    if (one->proxy < 0)
        fputs(", \"proxy\": null", stdout);
    else
        printf(", \"proxy\": %" PRId32, one->proxy);
    if (with_top) {
        fputs(", \"top\": [", stdout);
        for (size_t i = 0; i < ranked; i++) {
            fputs(i ? ", {" : "{", stdout);
            print_json_member(stdout, "label", best[i].label);
            printf(", \"index\": %" PRId32, best[i].index);
            json_optional("score", true, best[i].score);
            json_optional("probability", calibrated, best[i].probability);
            putchar('}');
        }
        putchar(']');
    }
    fputs("}\n", stdout);
}

static void print_line(answer_of of, const ei_predictions *found, const ei_ranked *best,
                       size_t ranked)
{
    const ei_prediction *one = ei_prediction_at(found, 0);
    if (of.path) {
        print_text(stdout, of.path);
        fputs(": ", stdout);
    } else {
        printf("frame %" PRId64 ": ", of.frame);
    }
    if (one->known == 0) {
        print_text(stdout, one->label);
        fputs(" (nearest ", stdout);
        print_quoted(stdout, one->nearest);
        putchar(')');
    } else {
        print_quoted(stdout, one->label);
    }
    printf(" %.4f", (double)one->score);
    for (size_t i = 1; i < ranked; i++) {
        fputs(", ", stdout);
        print_quoted(stdout, best[i].label);
        printf(" %.4f", (double)best[i].score);
    }
    putchar('\n');
}

void answer_print(answer_of of, const ei_predictions *found, bool json, int64_t top)
{
    ei_ranked best[1000];
    size_t ranked = rank(found, top, best, sizeof best / sizeof *best);
    if (json)
        print_json(of, found, best, ranked, top > 0);
    else
        print_line(of, found, best, ranked);
}

void answer_print_error(const char *path, const char *message)
{
    putchar('{');
    print_json_member(stdout, "path", path);
    fputs(", ", stdout);
    print_json_member(stdout, "error", message);
    fputs("}\n", stdout);
}

bool answer_flush(void)
{
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout))
        return true;
    print_error("cannot write the answers: %s", errno ? strerror(errno) : "stdout is closed");
    return false;
}
