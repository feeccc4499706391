/* SPDX-License-Identifier: Apache-2.0 */
#include "class_tensors.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "contract_values.h"
#include "numbers.h"

#define FLOOR 1e-6           /* of a vote's distance: this share of the proxies' own spread */
#define SMALLEST_FLOOR 1e-30 /* as many votes as there can be, divided by it, are float32 */
#define ROWS 4               /* are brought into the graph's form at once */
#define MOST_BYTES 0x7fffffffu /* of proxies as laid out, unless the head's own come near */
#define MOST_ROOM 64           /* times the head's own, then */
#define COLUMNS 64           /* are written at once: whole lines of cache, row by row */
#define LARGE 1000000        /* numbers: below, a second thread costs more than it is worth */

/* How a head's proxies are laid out: class c has columns c K to c K + K - 1, and where it has
 * fewer proxies its first fills them. */
typedef struct {
    const eip_head *head;
    size_t slots, columns; /* K, C * K */
    size_t width;          /* E, or F under mahalanobis */
    const float *points;   /* (P, width) as the graph compares them */
    float *made;           /* the same, where they are not the head's own */
    double *squares;       /* (P) their squared lengths, where the graph wants them */
    double *mean;          /* (E), likewise */
} layout;

/* What a column holds. */
typedef struct {
    size_t class_, slot, first, count;
} place;

static void begin(const layout *laid, size_t class_, place *at)
{
    *at = (place){.class_ = class_};
    at->first = eip_head_first(laid->head, class_, &at->count);
}

/* Return the proxy of this column, and step to the next; *padding where it is repeated. */
static size_t next(const layout *laid, place *at, bool *padding)
{
    *padding = at->slot >= at->count;
    size_t proxy = at->first + (*padding ? 0 : at->slot);
    if (++at->slot == laid->slots && ++at->class_ < laid->head->contract.classes) {
        at->slot = 0;
        at->first = eip_head_first(laid->head, at->class_, &at->count);
    }
    return proxy;
}

static ei_status check_slots(const eip_head *head, size_t slots)
{
    size_t most = 0, widest = 0;
    for (size_t c = 0; c < head->contract.classes; c++) {
        size_t count;
        eip_head_first(head, c, &count);
        if (count > most) {
            most = count;
            widest = c;
        }
    }
    if (most <= slots)
        return EI_OK;
    const char *label = head->contract.labels[widest];
    char quoted[EIP_QUOTED];
    return eip_fail(EI_HEAD_MISMATCH,
                    "class %s has %zu proxies, the model has room for %zu a class; export the "
                    "model again from this head",
                    eip_quote(label, strlen(label), quoted), most, slots);
}

/* Refuse what neither a file of a model could hold nor the head's own proxies justify: a few bytes
 * may claim a million slots a class. */
static ei_status check_room(const layout *laid)
{
    const eip_head *head = laid->head;
    size_t width = head->metric ? head->metric_width : head->width, numbers, bytes;
    size_t own_bytes = head->proxy_count * width * sizeof(float); /* less than memory holds */
    if (!__builtin_mul_overflow(laid->columns, width, &numbers) &&
        !__builtin_mul_overflow(numbers, sizeof(float), &bytes) &&
        (bytes <= MOST_BYTES || bytes / MOST_ROOM <= own_bytes))
        return EI_OK;
    return eip_fail(EI_HEAD_MISMATCH,
                    "%zu classes of %zu slots each are more than a model holds; export the model "
                    "again from this head",
                    head->contract.classes, laid->slots);
}

static float *add(eip_class_tensors *made, const char *name, size_t rows, size_t columns)
{
    size_t numbers;
    if (__builtin_mul_overflow(rows, columns ? columns : 1, &numbers))
        numbers = SIZE_MAX; /* which there is no memory for */
    float *data = eip_allocate_array(numbers, sizeof(float));
    if (data) {
        eip_tensor *tensor = &made->tensors[made->count++];
        tensor->name = name;
        tensor->data = data;
        tensor->dimensions = columns ? 2 : 1;
        tensor->shape[0] = (int64_t)rows;
        tensor->shape[1] = (int64_t)columns;
    }
    return data;
}

static ei_status add_copy(eip_class_tensors *made, const char *name, const float *values,
                          size_t rows, size_t columns)
{
    if (!values)
        return EI_OK;
    float *data = add(made, name, rows, columns);
    if (!data)
        return EI_OUT_OF_MEMORY;
    memcpy(data, values, rows * (columns ? columns : 1) * sizeof(float));
    return EI_OK;
}

/* The mean proxy, in float64. */
static void mean_of(const eip_head *head, double *row, double *mean)
{
    memset(mean, 0, head->width * sizeof(double));
    for (size_t p = 0; p < head->proxy_count; p++) {
        eip_widen(head->proxies + p * head->width, head->width, row);
        eip_add_row(mean, row, head->width);
    }
    for (size_t e = 0; e < head->width; e++)
        mean[e] /= (double)head->proxy_count;
}

/* Bring some rows into the graph's form: `rows` is used up, `mapped` is for mahalanobis. */
static void make_points(layout *laid, size_t from, size_t count, double *rows, double *mapped)
{
    const eip_head *head = laid->head;
    size_t width = head->width;
    eip_widen(head->proxies + from * width, count * width, rows);
    if (head->contract.rule.distance == EIP_COSINE) {
        for (size_t i = 0; i < count; i++)
            eip_make_unit(rows + i * width, width);
    } else {
        for (size_t i = 0; i < count; i++)
            for (size_t e = 0; e < width; e++)
                rows[i * width + e] -= laid->mean[e];
    }
    if (head->metric) {
        eip_multiply(rows, count, width, head->metric, laid->width, mapped);
        rows = mapped;
    }
    float *points = laid->made + from * laid->width;
    eip_narrow(rows, count * laid->width, points);
    if (!laid->squares)
        return;
    eip_widen(points, count * laid->width, rows);
    for (size_t i = 0; i < count; i++)
        laid->squares[from + i] = eip_sum_squares(rows + i * laid->width, laid->width);
}

/* Bring the proxies into the form in which the graph compares them. */
static ei_status compare(layout *laid)
{
    const eip_head *head = laid->head;
    eip_distance distance = head->contract.rule.distance;
    bool squares = distance == EIP_EUCLIDEAN || distance == EIP_MAHALANOBIS;
    laid->points = head->proxies;
    laid->width = head->metric ? head->metric_width : head->width;
    if (!squares && distance != EIP_COSINE)
        return EI_OK;
    ei_status status = EI_OUT_OF_MEMORY;
    size_t widest = laid->width > head->width ? laid->width : head->width;
    double *rows = eip_allocate_array(ROWS * widest, sizeof(double));
    double *mapped = rows ? eip_allocate_array(ROWS * widest, sizeof(double)) : NULL;
    if (mapped)
        laid->made = eip_allocate_array(head->proxy_count * laid->width, sizeof(float));
    if (!laid->made)
        goto done;
    if (squares) {
        laid->squares = eip_allocate(head->proxy_count, sizeof(double));
        laid->mean = laid->squares ? eip_allocate(head->width, sizeof(double)) : NULL;
        if (!laid->mean)
            goto done;
        mean_of(head, rows, laid->mean);
        for (size_t e = 0; e < head->width; e++)
            laid->mean[e] = (float)laid->mean[e]; /* as the graph has it */
    }
    for (size_t p = 0; p < head->proxy_count; p += ROWS) {
        size_t left = head->proxy_count - p;
        make_points(laid, p, left < ROWS ? left : ROWS, rows, mapped);
    }
    laid->points = laid->made;
    status = EI_OK;
done:
    free(rows);
    free(mapped);
    return status;
}

/* A stretch of classes to be written; one thread's work. */
typedef struct {
    const layout *laid;
    float *to;
    size_t first, last; /* classes */
} stretch;

static void *write_stretch(void *work)
{
    const stretch *wanted = work;
    const layout *laid = wanted->laid;
    bool transposed = laid->head->contract.rule.distance != EIP_MANHATTAN;
    const float *from[COLUMNS];
    size_t waiting = 0, last = wanted->last * laid->slots;
    bool padding;
    place at;
    begin(laid, wanted->first, &at);
    for (size_t column = wanted->first * laid->slots; column < last; column++) {
        const float *point = laid->points + next(laid, &at, &padding) * laid->width;
        if (!transposed) {
            memcpy(wanted->to + column * laid->width, point, laid->width * sizeof(float));
            continue;
        }
        from[waiting++] = point;
        if (waiting == COLUMNS || column + 1 == last) {
            eip_transpose(from, waiting, laid->width, wanted->to + column + 1 - waiting,
                          laid->columns);
            waiting = 0;
        }
    }
    return NULL;
}

/* Start a thread that no signal of the program's is given to. */
static bool start_quietly(pthread_t *thread, stretch *work)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = !pthread_create(thread, NULL, write_stretch, work);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static ei_status add_proxies(const layout *laid, eip_class_tensors *made)
{
    bool transposed = laid->head->contract.rule.distance != EIP_MANHATTAN;
    size_t rows = transposed ? laid->width : laid->columns;
    size_t classes = laid->head->contract.classes;
    float *to = add(made, "proxies", rows, transposed ? laid->columns : laid->width);
    if (!to)
        return EI_OUT_OF_MEMORY;
    /* Large heads are bound by memory that is touched for the first time: two threads touch it
     * in half the time. Where there is no second, the first does it all. */
    size_t middle = laid->columns * laid->width < LARGE ? 0 : classes / 2 / COLUMNS * COLUMNS;
    stretch halves[2] = {{laid, to, 0, middle}, {laid, to, middle, classes}};
    pthread_t other;
    bool is_shared = middle && start_quietly(&other, &halves[0]);
    if (!is_shared)
        halves[1].first = 0;
    write_stretch(&halves[1]);
    if (is_shared)
        pthread_join(other, NULL);
    return EI_OK;
}

/* What is added to the product: -|p|^2, and in padding that would be counted the lowest number. */
static ei_status add_columns(const layout *laid, eip_class_tensors *made)
{
    bool votes = laid->head->contract.rule.aggregation == EIP_MNN;
    if (!votes && !laid->squares)
        return EI_OK;
    if (laid->squares) {
        float *mean = add(made, "head/mean", laid->head->width, 0);
        if (!mean)
            return EI_OUT_OF_MEMORY;
        eip_narrow(laid->mean, laid->head->width, mean);
    }
    float *to = add(made, laid->squares ? "head/squares" : "head/mask", laid->columns, 0);
    if (!to)
        return EI_OUT_OF_MEMORY;
    place at;
    begin(laid, 0, &at);
    for (size_t column = 0; column < laid->columns; column++) {
        bool padding;
        size_t proxy = next(laid, &at, &padding);
        float value = laid->squares ? (float)-laid->squares[proxy] : 0.0f;
        to[column] = padding && votes ? -FLT_MAX : value;
    }
    return EI_OK;
}

/* The mean of the squared distances from the mean proxy, under manhattan. */
static ei_status manhattan_spread(const eip_head *head, double *spread)
{
    double *work = eip_allocate(2 * head->width + head->proxy_count, sizeof(double));
    if (!work)
        return EI_OUT_OF_MEMORY;
    double *row = work, *mean = work + head->width, *gaps = mean + head->width;
    mean_of(head, row, mean);
    for (size_t p = 0; p < head->proxy_count; p++) {
        eip_widen(head->proxies + p * head->width, head->width, row);
        gaps[p] = eip_absolute_gap(row, mean, head->width);
    }
    *spread = eip_sum_squares(gaps, head->proxy_count) / (double)head->proxy_count;
    free(work);
    return EI_OK;
}

/* The smallest distance that divides a vote. */
static ei_status add_vote_floor(const layout *laid, eip_class_tensors *made)
{
    const eip_head *head = laid->head;
    if (head->contract.rule.weighting != EIP_BY_DISTANCE)
        return EI_OK;
    double least = FLOOR;
    if (head->contract.rule.distance != EIP_COSINE) {
        double spread = 0;
        if (laid->squares)
            spread = eip_sum(laid->squares, head->proxy_count) / (double)head->proxy_count;
        else if (manhattan_spread(head, &spread))
            return EI_OUT_OF_MEMORY;
        least = FLOOR * spread;
        if (least == 0)
            least = EIP_EPSILON;
        if (least < SMALLEST_FLOOR)
            least = SMALLEST_FLOOR;
    }
    float value = (float)least;
    return add_copy(made, "head/vote_floor", &value, 1, 0);
}

static ei_status add_all(layout *laid, eip_class_tensors *made)
{
    const eip_head *head = laid->head;
    const eip_contract *contract = &head->contract;
    size_t size = (size_t)contract->embedding_size;
    float temperature = (float)contract->temperature;
    ei_status status = compare(laid);
    if (!status)
        status = add_proxies(laid, made);
    if (!status)
        status = add_columns(laid, made);
    if (!status)
        status = add_vote_floor(laid, made);
    if (!status)
        status = add_copy(made, "center", head->center, size, 0);
    if (!status)
        status = add_copy(made, "transform", head->transform, size, head->width);
    if (!status)
        status = add_copy(made, "metric", head->metric, head->width, head->metric_width);
    if (!status)
        status = add_copy(made, "threshold", head->threshold, contract->classes, 0);
    if (!status && contract->calibrated)
        status = add_copy(made, "temperature", &temperature, 1, 0);
    return status;
}

ei_status eip_class_tensors_make(const eip_head *head, int32_t slots, eip_class_tensors *made)
{
    memset(made, 0, sizeof *made);
    layout laid = {.head = head, .slots = slots > 0 ? (size_t)slots : 0};
    ei_status status = check_slots(head, laid.slots);
    if (status)
        return status;
    if (__builtin_mul_overflow(head->contract.classes, laid.slots, &laid.columns))
        laid.columns = SIZE_MAX;
    status = check_room(&laid);
    if (!status)
        status = add_all(&laid, made);
    free(laid.made);
    free(laid.squares);
    free(laid.mean);
    if (status)
        eip_class_tensors_clear(made);
    return status;
}

void eip_class_tensors_clear(eip_class_tensors *made)
{
    for (size_t i = 0; i < made->count; i++)
        free(made->tensors[i].data);
    memset(made, 0, sizeof *made);
}

static bool same_three(const double *a, const double *b)
{
    return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static bool same_preprocess(const eip_preprocess *a, const eip_preprocess *b)
{
    return a->height == b->height && a->width == b->width && a->resize == b->resize &&
           a->resize_height == b->resize_height && a->resize_width == b->resize_width &&
           a->interpolation == b->interpolation && same_three(a->mean, b->mean) &&
           same_three(a->std, b->std);
}

static bool same_rule(const eip_rule *a, const eip_rule *b)
{
    return a->embedding_norm == b->embedding_norm && a->aggregation == b->aggregation &&
           a->distance == b->distance && a->neighbors == b->neighbors &&
           a->weighting == b->weighting;
}

ei_status eip_head_fits(const eip_head *head, const eip_contract *model, const char *where)
{
    static const char again[] =
        "; put the head there that was exported with the model, or export it again";
    const eip_contract *own = &head->contract;
    bool both = own->has_backbone && model->has_backbone;
    if (own->has_backbone != model->has_backbone ||
        (both && strcmp(own->backbone_digest, model->backbone_digest) != 0))
        return eip_fail(EI_HEAD_MISMATCH,
                        "%s was made with another backbone than the model%s", where, again);
    if (both && !same_preprocess(&own->preprocess, &model->preprocess))
        return eip_fail(EI_HEAD_MISMATCH,
                        "%s was made with other preprocessing than the model's%s", where,
                        again);
    if (own->embedding_size != model->embedding_size || !same_rule(&own->rule, &model->rule))
        return eip_fail(EI_HEAD_MISMATCH,
                        "%s has another embedding size or rule than the model%s", where, again);
    if (own->calibrated != model->calibrated)
        return eip_fail(EI_HEAD_MISMATCH, "of %s and its model only one is calibrated%s", where,
                        again);
    if (own->classes > (size_t)model->max_classes)
        return eip_fail(EI_HEAD_MISMATCH,
                        "%s has %zu classes, the model holds %d; export it again with a higher "
                        "--max-classes",
                        where, own->classes, (int)model->max_classes);
    return eip_where(check_slots(head, (size_t)model->slots), where);
}
