/* SPDX-License-Identifier: Apache-2.0 */
/* ei-classify: photos, or frames of a pipe or a camera, -> a line an answer. */
#include <stdio.h>
#include <string.h>

#include "answer.h"
#include "edge_imprint.h"
#include "feed.h"
#include "options.h"
#include "source.h"

static struct {
    run_options run;
    bool json;
    int64_t top;
    int32_t size[2]; /* of a frame; 0: not given */
    int format;      /* an ei_format; -1: not given */
    frame_colour colour;
    const char *colour_text;
    const char *pipe;
    const char *camera;
    int64_t count;
} given = {.format = -1};

static const char *read_colour_text(const char *text, void *value)
{
    *(const char **)value = text;
    return read_colour(text, &given.colour);
}

static const option_row options[] = {
    RUN_OPTIONS(&given.run),
    {"--json", NULL, "One JSON object a line, as 'edge-imprint predict --json'.", OPTION_FLAG,
     &given.json, 0, 0, NULL, NULL},
    {"--top", "K", "List the K nearest classes, too.", OPTION_WHOLE, &given.top, 1, 1000, NULL,
     NULL},
    {"--frame", "WxH", "Size of the frames of a pipe or camera, such as 640x480;\n"
     "else the model's, or the camera's.", OPTION_READ, given.size, 0, 0, NULL, read_size},
    {"--format", "FORMAT", "rgb, bgr, nv12 or yuyv; else the model's, rgb, or what the\n"
     "camera can.", OPTION_CHOICE, &given.format, 0, 0, frame_formats, NULL},
    {"--frame-colour", "C", "What Y, U and V mean where the model takes RGB: bt601 or\n"
     "bt709, limited or full; bt601,limited, or what the camera says.", OPTION_READ,
     &given.colour_text, 0, 0, NULL, read_colour_text},
    {"--pipe", "PATH", "Read frames from a named pipe, made if it is not there, and\n"
     "wait for the next writer when one has gone.", OPTION_TEXT, &given.pipe, 0, 0, NULL, NULL},
    {"--camera", "DEVICE", "Read frames from a camera, such as /dev/video0.", OPTION_TEXT,
     &given.camera, 0, 0, NULL, NULL},
    {"--count", "N", "End after N frames.", OPTION_WHOLE, &given.count, 1, 1e15, NULL, NULL},
};

static const program ei_classify = {
    "ei-classify", "MODEL [PHOTO|FOLDER]... | MODEL -",
    "Classify photos (JPEG, PNG, PPM) with MODEL, a file of 'edge-imprint export'.\n"
    "With - frames are read from stdin, one after the other, and answered one by one.\n",
    options, sizeof options / sizeof *options};

/* ------------------------------------------------------------------------------- photos -- */

/* Classify one file; false: it has no answer, and `reason` says why, its name included. */
static bool classify_photo(feed *feed, const char *path, ei_predictions **found, char *reason,
                           size_t reason_bytes)
{
    char message[PHOTO_MESSAGE];
    photo photo;
    ei_image image;
    if (photo_read(path, &photo, message)) {
        snprintf(reason, reason_bytes, "%s", message);
        return false;
    }
    bool good = feed_photo(feed, &photo, &image, message);
    if (good && ei_predict(feed->model, &image, 1, found)) {
        good = false;
        snprintf(message, sizeof message, "%s", ei_last_error());
    }
    if (!good)
        snprintf(reason, reason_bytes, "%s: %s", path, message);
    photo_free(&photo);
    return good;
}

static int classify_photos(feed *feed, ei_predictions **found, char **paths, int path_count)
{
    photo_files files = {0};
    char reason[8192];
    int status = EXIT_WELL;
    size_t broken = 0;
    for (int i = 0; i < path_count && !status; i++)
        if (photo_files_add(&files, paths[i], reason)) {
            print_error("%s", reason);
            status = EXIT_FAILED;
        }
    for (size_t i = 0; i < files.count && !status; i++) {
        const char *path = files.paths[i];
        if (classify_photo(feed, path, found, reason, sizeof reason)) {
            answer_print((answer_of){.path = path}, *found, given.json, given.top);
        } else {
            broken++;
            if (given.json)
                answer_print_error(path, reason);
            print_error("%s", reason);
        }
        if (!answer_flush())
            status = EXIT_FAILED;
    }
    if (broken && !status) {
        print_error("%zu of %zu photos could not be classified", broken, files.count);
        status = EXIT_FAILED;
    }
    photo_files_free(&files);
    return status;
}

/* ------------------------------------------------------------------------------- frames -- */

/* Say what the frames are: as asked, else as the model takes them. -1, or the exit status. */
static int choose_form(const feed *feed, frame_form *form)
{
    const ei_description *about = &feed->about;
    *form = (frame_form){EI_RGB8, given.size[0], given.size[1], given.colour};
    if (feed->takes_embeddings) {
        print_error("the model has no backbone and takes embeddings, not frames");
        return EXIT_FAILED;
    }
    if (feed->takes_frames) {
        form->format = about->format;
        if (!form->width) {
            form->width = about->width;
            form->height = about->height;
        }
    }
    if (given.format >= 0)
        form->format = (ei_format)given.format;
    if (!given.camera && !form->width)
        return wrong_use(&ei_classify, "say with --frame WIDTHxHEIGHT how large the frames are");
    bool yuv = feed->takes_frames && frame_is_yuv(about->format);
    if (yuv && form->format != about->format)
        return wrong_use(&ei_classify, "the model takes frames of %s, not of %s",
                         frame_formats[about->format], frame_formats[form->format]);
    if (feed->takes_frames && about->width &&
        (form->width != about->width || form->height != about->height))
        return wrong_use(&ei_classify, "the model takes frames of %d x %d pixels, not of %d x %d",
                         about->width, about->height, form->width, form->height);
    if (yuv && given.colour_text)
        return wrong_use(&ei_classify, "the model says itself what the colours of its frames are");
    if (form->width && !frame_bytes(form->format, form->width, form->height))
        return wrong_use(&ei_classify, "frames of %s have even sides, not %d x %d",
                         frame_formats[form->format], form->width, form->height);
    return -1;
}

/* Answer one frame. */
static int classify_frame(feed *feed, const ei_image *frame, frame_colour colour, int64_t number,
                          ei_predictions **found)
{
    ei_image image;
    char message[FEED_MESSAGE];
    if (!feed_frame(feed, frame, colour, &image, message)) {
        print_error("frame %lld: %s", (long long)number, message);
        return EXIT_FAILED;
    }
    ei_status status = ei_predict(feed->model, &image, 1, found);
    if (status)
        return failed_with(status);
    answer_print((answer_of){.frame = number}, *found, given.json, given.top);
    return answer_flush() ? EXIT_WELL : EXIT_FAILED;
}

static int classify_pipe(feed *feed, ei_predictions **found, const frame_form *form)
{
    pipe_source source;
    char message[SOURCE_MESSAGE];
    ei_image frame;
    int status = EXIT_WELL;
    if (!pipe_open(&source, given.pipe, form, message)) {
        print_error("%s", message);
        return EXIT_FAILED;
    }
    while (!status && (!given.count || source.count < given.count)) {
        switch (pipe_next(&source, form, &frame, message)) {
        case SOURCE_FRAME:
            status = classify_frame(feed, &frame, form->colour, source.count - 1, found);
            break;
        case SOURCE_END:
            if (!given.pipe)
                goto done;
            break;
        case SOURCE_TORN: /* of a named pipe the next writer begins anew */
            print_error("%s", message);
            status = given.pipe ? EXIT_WELL : EXIT_FAILED;
            break;
        case SOURCE_FAILED:
            print_error("%s", message);
            status = EXIT_FAILED;
        }
    }
done:
    pipe_close(&source);
    return status;
}

static int classify_camera(feed *feed, ei_predictions **found, const frame_form *form)
{
    camera camera;
    char message[SOURCE_MESSAGE];
    ei_image frame;
    bool own = feed->takes_frames && frame_is_yuv(feed->about.format);
    int only = given.format >= 0 || own ? (int)form->format : -1;
    if (!camera_open(&camera, given.camera, form->width, form->height, only, message)) {
        print_error("%s", message);
        return EXIT_FAILED;
    }
    frame_colour colour = given.colour_text ? form->colour : camera.form.colour;
    int status = EXIT_WELL;
    for (int64_t number = 0; !status && (!given.count || number < given.count); number++) {
        if (camera_next(&camera, &frame, message) == SOURCE_FRAME) {
            status = classify_frame(feed, &frame, colour, number, found);
        } else {
            print_error("%s", message);
            status = EXIT_FAILED;
        }
    }
    camera_close(&camera);
    return status;
}

int main(int argc, char **argv)
{
    char **words;
    int word_count;
    int status = options_read(&ei_classify, argc, argv, &words, &word_count);
    if (status >= 0)
        return status;
    bool from_stdin = false;
    for (int i = 1; i < word_count; i++)
        from_stdin = from_stdin || !strcmp(words[i], "-");
    bool frames = from_stdin || given.pipe || given.camera;
    if (word_count < 1)
        return wrong_use(&ei_classify, "name the model");
    if (word_count < 2 && !frames)
        return wrong_use(&ei_classify, "name photos, or folders of photos");
    if (from_stdin + (given.pipe != NULL) + (given.camera != NULL) > 1 ||
        (frames && word_count > 1 + from_stdin))
        return wrong_use(&ei_classify, "name photos, or -, or --pipe, or --camera");
    if (!frames && (given.size[0] || given.format >= 0 || given.colour_text || given.count))
        return wrong_use(&ei_classify, "--frame, --format, --frame-colour and --count are for "
                                       "frames: name -, --pipe or --camera, too");
    ei_model *model = NULL;
    ei_predictions *found = NULL;
    feed feed;
    frame_form form;
    /* Who writes frames finds the pipe, and waits, also while an engine is built for minutes. */
    char message[SOURCE_MESSAGE];
    if (given.pipe && !pipe_make(given.pipe, message)) {
        print_error("%s", message);
        return EXIT_FAILED;
    }
    status = open_with(&given.run, words[0], &model);
    if (status)
        return status;
    feed_open(&feed, model);
    if (!frames)
        status = classify_photos(&feed, &found, words + 1, word_count - 1);
    else if ((status = choose_form(&feed, &form)) < 0)
        status = given.camera ? classify_camera(&feed, &found, &form)
                              : classify_pipe(&feed, &found, &form);
    feed_close(&feed);
    ei_free_predictions(found);
    ei_close(model);
    return status;
}
