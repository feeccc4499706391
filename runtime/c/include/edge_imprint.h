/* SPDX-License-Identifier: Apache-2.0 */
/*
 * edge_imprint.h: run a fused edge-imprint model from C. This header is the library's whole
 * documentation; docs/c.md shows it at work.
 *
 *   ei_model *model = NULL;
 *   ei_predictions *found = NULL;
 *   if (ei_open("shop.onnx", NULL, &model)) { fputs(ei_last_error(), stderr); return 1; }
 *   ei_image image = {.data = pixels, .width = 224, .height = 224, .format = EI_RGB8};
 *   if (ei_predict(model, &image, 1, &found)) { fputs(ei_last_error(), stderr); return 1; }
 *   puts(ei_prediction_at(found, 0)->label);
 *   ei_free_predictions(found);
 *   ei_close(model);
 *
 * Errors. Every function that can fail returns an ei_status, EI_OK being 0, and leaves what it
 * was to change as it was; only what ei_embed and ei_prepare fill may be filled in part.
 * ei_last_error() is one sentence: what was wrong, where, and what to
 * do. It belongs to the thread, and stays until that thread's next failing call.
 *
 * Memory. What the library hands out by pointer, it owns; each function says for how long. What
 * is passed in is read during the call only, and may be freed after it.
 *
 * Threads. Any number of threads may use one model at once, also while one of them teaches it:
 * an answer is that of the classes before or of those after, never of both. One ei_predictions
 * belongs to one thread at a time; give each thread its own. ei_close wants that no other
 * thread is still inside a call with that model. After fork(), the child opens models of its
 * own: ONNX Runtime's threads stay with the parent.
 *
 * Strings are UTF-8. Structs whose first member is `size` grow with later releases: set it to
 * sizeof the struct, everything else to zero, and what you don't know keeps its default.
 *
 * ONNX Runtime, 1.16 or newer, is opened at run time (dlopen), so that one binary runs with
 * each of its releases. Its official builds from 1.29 on report sessions to their maker; the
 * library sets ORT_DISABLE_TELEMETRY=1 before it opens ONNX Runtime, unless you set it.
 */
#ifndef EDGE_IMPRINT_H
#define EDGE_IMPRINT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32) || !defined(__GNUC__)
#define EI_API
#else
#define EI_API __attribute__((visibility("default")))
#endif

/* The release that this header belongs to; ei_version() is that of the library at hand. */
#define EI_VERSION_TEXT "0.1.0"

/* What a call came to. Numbers are never given another meaning. */
typedef enum ei_status {
    EI_OK = 0,

    /* The call. */
    EI_INVALID_ARGUMENT = 1, /* NULL where it may not be, or a number out of its range */
    EI_CLOSED_MODEL = 2,     /* the model was closed; found out in debug builds only */
    EI_OUT_OF_MEMORY = 3,    /* an allocation failed */

    /* ONNX Runtime. */
    EI_LIBRARY_MISSING = 10, /* no ONNX Runtime could be opened */
    EI_LIBRARY_TOO_OLD = 11, /* it is older than 1.16 */
    EI_PROVIDER = 12,        /* the provider asked for is not there, or does not take the model */
    EI_RUN_FAILED = 13,      /* ONNX Runtime could not run the model */
    EI_DEVICE = 14,          /* the GPU failed */
    EI_DEVICE_MEMORY = 15,   /* the device has not enough memory */

    /* A model file. */
    EI_FILE_MISSING = 20,     /* it is not there, or can't be read */
    EI_MODEL_FILE = 21,       /* it is no ONNX model, or one that contradicts itself */
    EI_UNSAFE_MODEL = 22,     /* it claims what it does not hold, or wants other files */
    EI_NO_CONTRACT = 23,      /* it carries no edge-imprint metadata: it is not ours */
    EI_CONTRACT_VERSION = 24, /* the metadata are of a version that this release does not know */
    EI_CONTRACT_KEY = 25,     /* a metadata key is missing, or unknown */
    EI_CONTRACT_VALUE = 26,   /* a metadata value is malformed or above its limit */
    EI_LABEL_COUNT = 27,      /* the labels don't match the matrix */

    /* What goes in and comes out. */
    EI_INPUT_SIZE = 30,       /* an image of another width or height than the model takes */
    EI_INPUT_STRIDE = 31,     /* a stride below the length of a row, or not of whole numbers */
    EI_INPUT_FORMAT = 32,     /* a pixel format that the model does not take */
    EI_INPUT_VALUE = 33,      /* NaN or infinity where a number is needed */
    EI_OUTPUT_MISSING = 34,   /* the model was exported without the output asked for */
    EI_NON_FINITE = 35,       /* the model answered NaN or infinity */

    /* Heads and teaching. */
    EI_NOT_TEACHABLE = 40,  /* the model, or its head's recipe, can't be taught */
    EI_HEAD_FILE = 41,      /* the head file is missing, or is no head file */
    EI_HEAD_VALUE = 42,     /* its arrays contradict each other, or hold NaN or infinity */
    EI_HEAD_MISMATCH = 43,  /* it does not fit this model */
    EI_ZERO_EMBEDDING = 44, /* an embedding is zero where only its direction counts */
    EI_NO_SUCH_CLASS = 45,  /* there is no class of that name, or it can't be spared */
    EI_NO_ROOM = 46,        /* the model has no room for that many classes, proxies or photos */

    /* Writing. */
    EI_WRITE_FAILED = 50 /* a file can't be written; what was there still is */
} ei_status;

/* Return the name of a status, such as "EI_PROVIDER"; never NULL, never freed. */
EI_API const char *ei_status_name(ei_status status);

/* Return what went wrong in this thread's last failing call; never NULL ("" before any). It
 * stays until the next failing call of this thread. */
EI_API const char *ei_last_error(void);

/* Return the library's release, such as "0.1.0"; never freed. */
EI_API const char *ei_version(void);

/* ------------------------------------------------------------------------------- opening -- */

/* A fused model, ready to run. */
typedef struct ei_model ei_model;

/* What runs the model. The one asked for is the one that runs, or ei_open fails. */
typedef enum ei_provider {
    EI_CPU = 0,
    EI_CUDA = 1,    /* ONNX Runtime's CUDA provider */
    EI_TENSORRT = 2 /* ONNX Runtime's TensorRT provider, its engines kept in cache_folder */
} ei_provider;

typedef struct ei_options {
    size_t size;              /* sizeof(ei_options) */
    ei_provider provider;     /* EI_CPU */
    int32_t threads;          /* CPU threads of one run, up to 1024; 0: ONNX Runtime's choice */
    int32_t device;           /* which GPU, from 0 */
    const char *library;      /* ONNX Runtime's shared library; NULL: $EDGE_IMPRINT_ONNXRUNTIME,
                                 else what the system's loader finds */
    const char *head;         /* a teachable model's head file; NULL: MODEL.head beside the model,
                                 where there is one; "": none, the model's own classes */
    const char *cache_folder; /* for TensorRT's engines; NULL: $XDG_CACHE_HOME/edge-imprint or
                                 ~/.cache/edge-imprint */
} ei_options;

/* Open a model file.
 *
 *   path     the ONNX file that `edge-imprint export` wrote.
 *   options  NULL: all defaults.
 *   model    becomes the model; to be closed with ei_close. NULL after a failure.
 *
 * The file is checked before ONNX Runtime sees it. Who updates a model renames the new file over
 * the old one: a file that is cut short while it is checked ends the process (SIGBUS), and one
 * that is replaced just then is refused, EI_FILE_MISSING. Fails with EI_LIBRARY_*, EI_PROVIDER,
 * EI_FILE_MISSING to EI_LABEL_COUNT, EI_HEAD_*, EI_NOT_TEACHABLE (a head was named, and the model
 * takes none), EI_INVALID_ARGUMENT, EI_DEVICE*, EI_OUT_OF_MEMORY. On a GPU one image
 * of zeros is run to prove that its provider took the model, in a folder of $TMPDIR: also with
 * EI_RUN_FAILED, and with EI_WRITE_FAILED where that folder or TensorRT's can't be made. */
EI_API ei_status ei_open(const char *path, const ei_options *options, ei_model **model);

/* Open a model that lies in memory, as ei_open does; the memory may be freed afterwards. No head
 * is looked for beside it: name one in the options, or call ei_load_head. */
EI_API ei_status ei_open_buffer(const void *data, size_t bytes, const ei_options *options,
                                ei_model **model);

/* Close a model; NULL is let pass. Predictions made with it stay readable until they are freed. */
EI_API void ei_close(ei_model *model);

/* ---------------------------------------------------------------------------- describing -- */

/* How pixels lie in memory. */
typedef enum ei_format {
    EI_RGB8 = 0,   /* 3 bytes a pixel: red, green, blue */
    EI_BGR8 = 1,   /* 3 bytes a pixel: blue, green, red, as OpenCV has it */
    EI_NV12 = 2,   /* a plane of Y, then one of U and V in turns at half the height */
    EI_YUYV = 3,   /* 2 bytes a pixel: Y and U, Y and V */
    EI_FLOAT32 = 4 /* float32 as the model takes it: 3 planes (R, G, B), normalised; or, of a
                      model without backbone, an embedding: width its length, height 1 */
} ei_format;

/* What a model is. Strings stay as long as the model is open. */
typedef struct ei_description {
    size_t size;              /* sizeof(ei_description), set by the caller */
    ei_format format;         /* what it takes; of EI_RGB8 and EI_BGR8 the other will do too, and a
                                 model of normalised float32 takes both as well */
    int32_t width;            /* pixels; 0: frames of any size. Of an embedding its length */
    int32_t height;           /* pixels; 0: frames of any size. Of an embedding 1 */
    int32_t embedding_size;   /* D */
    int32_t max_batch;        /* the most images in one run; 0: no limit. ei_predict takes more,
                                 and runs them in parts */
    int32_t can_embed;        /* 1: ei_embed works */
    int32_t calibrated;       /* 1: predictions have known and probability */
    int32_t teachable;        /* 1: ei_teach works, given a head */
    int32_t max_classes;      /* of a teachable model, else 0 */
    int32_t taught_proxies;   /* of a teachable model, proxies a taught class may have, else 0 */
    const char *recipe;       /* how the proxies were made, such as "l2 kmeans:20 l2 l2 max" */
    const char *backbone;     /* such as "timm/resnet18"; "" where none is known */
    const char *precision;    /* of the backbone: "fp32", "fp16" or "int8" */
    const char *target;       /* what it was exported for, such as "portable" */
    const char *provider;     /* ONNX Runtime's name of what runs it */
    const char *library;      /* "onnxruntime 1.23.2" */
} ei_description;

/* Describe a model. */
EI_API ei_status ei_describe(const ei_model *model, ei_description *description);

/* Return how many classes the model knows now, those that were taught included; 0 for NULL. */
EI_API size_t ei_class_count(const ei_model *model);

/* Copy a class's name.
 *
 *   index  from 0; another thread that teaches or forgets may change what it means.
 *   text   takes the name and its NUL, at most 1,025 bytes; cut to fit otherwise.
 *   bytes  the length of text, at least 1.
 *
 * Fails with EI_NO_SUCH_CLASS, EI_INVALID_ARGUMENT. */
EI_API ei_status ei_class_name(const ei_model *model, size_t index, char *text, size_t bytes);

/* ---------------------------------------------------------------------------- predicting -- */

/* An image, or a row of numbers. */
typedef struct ei_image {
    const void *data;    /* the first row */
    int32_t width;       /* pixels */
    int32_t height;      /* pixels */
    ei_format format;
    size_t stride_bytes; /* from a row to the next; 0: rows follow each other. Of EI_FLOAT32 0 */
    const void *chroma;  /* EI_NV12: the plane of U and V, of the same stride; NULL: it follows
                            the plane of Y */
} ei_image;

/* The answers of one call; reused from call to call. */
typedef struct ei_predictions ei_predictions;

/* The answer for one image. Strings stay as the ei_predictions they came with. */
typedef struct ei_prediction {
    const char *label;   /* the class's name, or "unknown" where known is 0 */
    const char *nearest; /* the nearest class's name, known or not */
    int32_t index;       /* its position among the classes */
    float score;         /* its score, higher is nearer */
    int32_t known;       /* 1, 0, or -1 where the model is not calibrated */
    float probability;   /* that it is this class, among those it knows; -1 where not calibrated */
    int32_t proxy;       /* which of the head's proxies is nearest; -1 where not exported */
} ei_prediction;

/* A class and its score. */
typedef struct ei_ranked {
    const char *label; /* stays as the ei_predictions it came with */
    int32_t index;
    float score;
    float probability; /* -1 where the model is not calibrated */
} ei_ranked;

/* Classify images.
 *
 *   images  of the width, height and format of ei_describe; see ei_prepare for others. One frame
 *           size a call, where the model takes any.
 *   count   at least 1.
 *   found   *found NULL: becomes new predictions, to be freed with ei_free_predictions; else
 *           those are used again, and with as many images of the same place nothing is
 *           allocated.
 *
 * Rows that follow each other in the model's own format are read where they lie; else they are
 * copied once. Several images are best laid one after the other in memory.
 *
 * Fails with EI_INPUT_*, EI_RUN_FAILED, EI_DEVICE*, EI_NON_FINITE; then *found holds no answer. */
EI_API ei_status ei_predict(ei_model *model, const ei_image *images, size_t count,
                            ei_predictions **found);

/* Free predictions; NULL is let pass. In any order with ei_close. */
EI_API void ei_free_predictions(ei_predictions *found);

/* Return for how many images there are answers; 0 for NULL. */
EI_API size_t ei_prediction_count(const ei_predictions *found);

/* Return the answer for one image, or NULL where there is none. It stays until the next
 * ei_predict with these predictions, or until they are freed; the following likewise. */
EI_API const ei_prediction *ei_prediction_at(const ei_predictions *found, size_t image);

/* Return the scores of all classes for one image, ei_predicted_classes() of them; NULL: none. */
EI_API const float *ei_scores_at(const ei_predictions *found, size_t image);

/* Return the probabilities of all classes; NULL where the model is not calibrated. */
EI_API const float *ei_probabilities_at(const ei_predictions *found, size_t image);

/* Return how many classes these answers are of; 0 for NULL. */
EI_API size_t ei_predicted_classes(const ei_predictions *found);

/* Return the name of a class of these answers, whatever was taught since; NULL: none. */
EI_API const char *ei_predicted_label(const ei_predictions *found, size_t index);

/* Rank the classes of one image, the best first; of equal scores the lower index.
 *
 *   best   takes k of them.
 *   k      at least 1.
 *   ranked becomes how many there are: k, or all classes where there are fewer. */
EI_API ei_status ei_top(const ei_predictions *found, size_t image, ei_ranked *best, size_t k,
                        size_t *ranked);

/* Embed images: the backbone's answer, before normalisation.
 *
 *   images, count  as in ei_predict.
 *   embeddings     takes count * embedding_size floats, a row an image.
 *   floats         how many it has room for.
 *
 * Fails with EI_OUTPUT_MISSING where the model was exported without, and as ei_predict, but for
 * EI_NON_FINITE: numbers are handed on as they are. */
EI_API ei_status ei_embed(ei_model *model, const ei_image *images, size_t count,
                          float *embeddings, size_t floats);

/* Resize and cut a photo to what the network takes, as `edge-imprint build` did: pixel for pixel
 * what Pillow makes of it.
 *
 *   photo   EI_RGB8 or EI_BGR8, of any size, upright.
 *   pixels  takes width * height * 3 bytes, EI_RGB8, of ei_describe's size.
 *   bytes   how many it has room for.
 *
 * Fails with EI_INPUT_FORMAT for models of camera frames and of embeddings, EI_INPUT_SIZE for a
 * photo so thin that resized it is above 179 megapixels. */
EI_API ei_status ei_prepare(const ei_model *model, const ei_image *photo, uint8_t *pixels,
                            size_t bytes);

/* ------------------------------------------------------------------------------ teaching -- */

/* Add a class to a teachable model, or improve one. Deterministic, and the same as Python's
 * `Model.teach`: the order of the photos does not matter, one taught twice counts once, and five
 * photos and then five more are ten. Nothing is written: see ei_save_head.
 *
 *   label    the class's name, new or known.
 *   images   as in ei_predict, at least one; each is embedded alone. Of a model without backbone
 *            these are embeddings.
 *   proxies  taught proxies of the class at most; 0: as many as the model has room for.
 *
 * Fails with EI_NOT_TEACHABLE, EI_HEAD_FILE (no head was loaded), EI_NO_ROOM, EI_ZERO_EMBEDDING,
 * EI_CONTRACT_VALUE (the name can't be one), EI_HEAD_VALUE (numbers too large for the head),
 * EI_OUTPUT_MISSING, EI_INPUT_*, and as ei_predict; the model knows then what it knew. */
EI_API ei_status ei_teach(ei_model *model, const char *label, const ei_image *images,
                          size_t count, int32_t proxies);

/* Teach what ei_embed gave: `count` rows of embedding_size floats. Otherwise as ei_teach. */
EI_API ei_status ei_teach_embeddings(ei_model *model, const char *label, const float *embeddings,
                                     size_t count, int32_t proxies);

/* Take a class away, whoever made it. Fails with EI_NO_SUCH_CLASS where there is none of that
 * name, or it is the last, or fewer proxies would be left than vote; EI_NOT_TEACHABLE,
 * EI_HEAD_FILE. */
EI_API ei_status ei_forget(ei_model *model, const char *label);

/* Write what the model knows as a head file, the very bytes that Python writes: beside, then
 * renamed, so that a power cut leaves the old file or the new one. Teaching waits meanwhile.
 *
 *   path  NULL: MODEL.head beside the model, which ei_open reads.
 *
 * Fails with EI_WRITE_FAILED, EI_NOT_TEACHABLE, EI_HEAD_FILE. */
EI_API ei_status ei_save_head(ei_model *model, const char *path);

/* Replace what the model knows by a head file, whole, while other threads go on predicting.
 *
 *   path  NULL: MODEL.head beside the model.
 *
 * Fails with EI_HEAD_*, EI_NO_CONTRACT to EI_LABEL_COUNT, EI_NOT_TEACHABLE. */
EI_API ei_status ei_load_head(ei_model *model, const char *path);

#ifdef __cplusplus
}
#endif

#endif /* EDGE_IMPRINT_H */
