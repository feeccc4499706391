/* SPDX-License-Identifier: Apache-2.0 */
/* ei-teach: a class more, better or less, on the device; written beside the model. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "edge_imprint.h"
#include "feed.h"
#include "head.h"
#include "model.h"
#include "options.h"
#include "print.h"

#define SHOWN 20 /* classes; of more only the one that changed */

static struct {
    run_options run;
    const char *label;
    int64_t proxies; /* 0: as many as there is room for */
    bool forget;
    bool json;
} given;

static const option_row options[] = {
    {"--class", "NAME", "The class's name, new or known.", OPTION_TEXT, &given.label, 0, 0, NULL,
     NULL},
    {"--proxies", "K", "Taught proxies of the class, at most.", OPTION_WHOLE, &given.proxies, 1,
     65536, NULL, NULL},
    {"--forget", NULL, "Take the class away instead.", OPTION_FLAG, &given.forget, 0, 0, NULL,
     NULL},
    {"--json", NULL, "Print the result as JSON, as 'edge-imprint teach --json'.", OPTION_FLAG,
     &given.json, 0, 0, NULL, NULL},
    RUN_OPTIONS(&given.run),
};

static const program ei_teach_program = {
    "ei-teach", "MODEL --class NAME [PHOTO|FOLDER]...",
    "Teach MODEL a class from photos (JPEG, PNG, PPM), or folders of photos.\n"
    "A class that MODEL knows gets better, another is added. What it knows then is\n"
    "written beside it, as MODEL.head. MODEL must be exported with --teachable.\n",
    options, sizeof options / sizeof *options};

/* What came of it. */
typedef struct result {
    const char *model;
    bool is_new;
    size_t photos;
    size_t recognized;
    const char *head; /* the file that was written */
} result;

/* ----------------------------------------------------------------------------- teaching -- */

/* Read a photo for the model; false: it can't be, and the reason is printed. */
static bool read_photo(feed *feed, const char *path, photo *photo, ei_image *image)
{
    char message[PHOTO_MESSAGE];
    if (photo_read(path, photo, message)) {
        print_error("%s", message);
        return false;
    }
    if (feed_photo(feed, photo, image, message))
        return true;
    print_error("%s: %s", path, message);
    photo_free(photo);
    return false;
}

/* Embed the photos, each alone: what is taught does not depend on which lie side by side. */
static int embed_all(feed *feed, const photo_files *files, float *rows)
{
    size_t broken = 0, size = (size_t)feed->about.embedding_size;
    for (size_t i = 0; i < files->count; i++) {
        photo photo;
        ei_image image;
        if (!read_photo(feed, files->paths[i], &photo, &image)) {
            broken++;
            continue;
        }
        ei_status status = ei_embed(feed->model, &image, 1, rows + i * size, size);
        photo_free(&photo);
        if (status)
            return failed_with(status);
    }
    if (!broken)
        return EXIT_WELL;
    print_error("%zu of %zu photos can't be read, and nothing was taught; leave them out", broken,
                files->count);
    return EXIT_FAILED;
}

/* Count the photos whose nearest class is the one just taught. */
static int count_recognized(feed *feed, const photo_files *files, size_t *recognized)
{
    ei_predictions *found = NULL;
    int status = EXIT_WELL;
    *recognized = 0;
    for (size_t i = 0; i < files->count && !status; i++) {
        photo photo;
        ei_image image;
        if (!read_photo(feed, files->paths[i], &photo, &image)) {
            status = EXIT_FAILED;
            break;
        }
        ei_status predicted = ei_predict(feed->model, &image, 1, &found);
        if (predicted)
            status = failed_with(predicted);
        else
            *recognized += !strcmp(ei_prediction_at(found, 0)->nearest, given.label);
        photo_free(&photo);
    }
    ei_free_predictions(found);
    return status;
}

static bool knows(const ei_model *model, const char *label)
{
    eip_knowledge *known = eip_know(model);
    bool found = false;
    for (size_t i = 0; i < known->classes && !found; i++)
        found = !strcmp(known->labels[i], label);
    eip_knowledge_release(known);
    return found;
}

static int teach(feed *feed, char **paths, int path_count, result *result)
{
    photo_files files = {0};
    char message[PHOTO_MESSAGE];
    float *rows = NULL;
    int status = EXIT_FAILED;
    for (int i = 0; i < path_count; i++)
        if (photo_files_add(&files, paths[i], message)) {
            print_error("%s", message);
            goto done;
        }
    result->photos = files.count;
    result->is_new = !knows(feed->model, given.label);
    rows = calloc(files.count, (size_t)feed->about.embedding_size * sizeof *rows);
    if (!rows) {
        print_error("there is not enough memory for %zu embeddings; teach fewer photos",
                    files.count);
        goto done;
    }
    status = embed_all(feed, &files, rows);
    if (status)
        goto done;
    ei_status taught = ei_teach_embeddings(feed->model, given.label, rows, files.count,
                                           (int32_t)given.proxies);
    status = taught ? failed_with(taught) : count_recognized(feed, &files, &result->recognized);
done:
    free(rows);
    photo_files_free(&files);
    return status;
}

/* Refuse what can't be taught before all photos are read. */
static int check_teachable(const feed *feed, const char *path)
{
    if (!feed->about.max_classes) {
        print_error("%s was exported without --teachable, so that its classes can't change; "
                    "export it again with it", path);
        return EXIT_FAILED;
    }
    eip_knowledge *known = eip_know(feed->model);
    bool has_head = known->head != NULL;
    eip_knowledge_release(known);
    if (has_head)
        return EXIT_WELL;
    print_error("teaching starts from the head beside the model, and there is no file %s.head; "
                "copy it from where the model was exported", path);
    return EXIT_FAILED;
}

/* ------------------------------------------------------------------------------ telling -- */

/* A class of the head: who made its proxies, and of how many photos. */
typedef struct told_class {
    const char *label;
    int64_t host_proxies, taught_proxies, taught_photos;
} told_class;

static told_class class_at(const eip_head *head, size_t index)
{
    size_t count, photos = 0;
    eip_head_first(head, index, &count);
    for (size_t i = 0; i < head->sample_count; i++)
        photos += head->sample_class[i] == (int64_t)index;
    int64_t host = head->host_proxies ? head->host_proxies[index] : (int64_t)count;
    return (told_class){head->contract.labels[index], host, (int64_t)count - host, (int64_t)photos};
}

static void tell_json(const result *result, const eip_head *head)
{
    putchar('{');
    print_json_member(stdout, "model", result->model);
    fputs(", ", stdout);
    print_json_member(stdout, "class", given.label);
    if (given.forget)
        fputs(", \"forgotten\": true", stdout);
    else
        printf(", \"new\": %s, \"photos\": %zu, \"recognized\": %zu",
               result->is_new ? "true" : "false", result->photos, result->recognized);
    fputs(", ", stdout);
    print_json_member(stdout, "head", result->head);
    fputs(", \"classes\": [", stdout);
    for (size_t i = 0; i < head->contract.classes; i++) {
        told_class one = class_at(head, i);
        fputs(i ? ", {" : "{", stdout);
        print_json_member(stdout, "label", one.label);
        printf(", \"host_proxies\": %" PRId64 ", \"taught_proxies\": %" PRId64
               ", \"taught_photos\": %" PRId64 ", \"threshold\": ",
               one.host_proxies, one.taught_proxies, one.taught_photos);
        if (head->threshold)
            print_json_number(stdout, head->threshold[i]);
        else
            fputs("null", stdout);
        putchar('}');
    }
    fputs("]}\n", stdout);
}

static void tell_class(told_class one)
{
    fputs("  ", stdout);
    print_quoted(stdout, one.label);
    fputs(": ", stdout);
    if (one.host_proxies)
        printf("%" PRId64 " proxies of the host%s", one.host_proxies,
               one.taught_photos ? ", " : "");
    if (one.taught_photos)
        printf("%" PRId64 " photos taught, %" PRId64 " proxies", one.taught_photos,
               one.taught_proxies);
    putchar('\n');
}

static void tell(const result *result, const eip_head *head)
{
    print_quoted(stdout, given.label);
    if (given.forget)
        puts(" is forgotten");
    else
        printf(", %s: %zu of %zu photos just taught are recognized\n",
               result->is_new ? "a new class" : "known before", result->recognized, result->photos);
    size_t classes = head->contract.classes, shown = 0;
    print_text(stdout, result->head);
    printf(": %zu classes\n", classes);
    for (size_t i = 0; i < classes; i++)
        if (classes <= SHOWN || !strcmp(head->contract.labels[i], given.label)) {
            tell_class(class_at(head, i));
            shown++;
        }
    if (classes > SHOWN)
        printf("  and %zu more\n", classes - shown);
}

static int check_use(int word_count)
{
    const program *self = &ei_teach_program;
    if (word_count < 1)
        return wrong_use(self, "name the model");
    if (!given.label)
        return wrong_use(self, "name the class with --class NAME");
    if (given.forget && (word_count > 1 || given.proxies))
        return wrong_use(self, "--forget takes no photos and no --proxies");
    if (!given.forget && word_count < 2)
        return wrong_use(self, "name photos, or folders of photos, of the class");
    return -1;
}

int main(int argc, char **argv)
{
    char **words;
    int word_count;
    int status = options_read(&ei_teach_program, argc, argv, &words, &word_count);
    if (status < 0)
        status = check_use(word_count);
    if (status >= 0)
        return status;
    ei_model *model = NULL;
    feed feed;
    status = open_with(&given.run, words[0], &model);
    if (status)
        return status;
    feed_open(&feed, model);
    result result = {.model = words[0]};
    status = check_teachable(&feed, words[0]);
    if (!status && given.forget) {
        ei_status forgotten = ei_forget(model, given.label);
        status = forgotten ? failed_with(forgotten) : EXIT_WELL;
    } else if (!status) {
        status = teach(&feed, words + 1, word_count - 1, &result);
    }
    if (status)
        goto done;
    /* Where --head named the file, that is what is taught. */
    result.head = given.run.head ? given.run.head : model->head_path;
    ei_status saved = ei_save_head(model, given.run.head);
    if (saved) {
        status = failed_with(saved);
        goto done;
    }
    eip_knowledge *known = eip_know(model);
    if (given.json)
        tell_json(&result, known->head);
    else
        tell(&result, known->head);
    eip_knowledge_release(known);
    status = answer_flush() ? EXIT_WELL : EXIT_FAILED;
done:
    feed_close(&feed);
    ei_close(model);
    return status;
}
