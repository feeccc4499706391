/* SPDX-License-Identifier: Apache-2.0 */
/* The contract of docs/contract.md: flat metadata -> what a device must know. Strict, limits
 * first, as `edge_imprint_runtime.contract` reads it. */
#ifndef EIP_CONTRACT_H
#define EIP_CONTRACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

#define EIP_PREFIX "edge_imprint."
#define EIP_NOTE_PREFIX EIP_PREFIX "note."
#define EIP_UNKNOWN "unknown"
#define EIP_MAX_LABELS 65536
#define EIP_MAX_LABEL_BYTES 1024
#define EIP_MAX_TEXT_BYTES 4096
#define EIP_MAX_SIDE 8192
#define EIP_EPSILON 1e-12

typedef enum { EIP_NORM_NONE, EIP_NORM_L2 } eip_norm;
typedef enum { EIP_MAX, EIP_MNN } eip_aggregation;
typedef enum {
    EIP_INNER_PRODUCT,
    EIP_COSINE,
    EIP_EUCLIDEAN,
    EIP_MANHATTAN,
    EIP_MAHALANOBIS
} eip_distance;
typedef enum { EIP_UNIFORM, EIP_BY_DISTANCE } eip_weighting;
typedef enum { EIP_CROP, EIP_STRETCH, EIP_PAD } eip_resize;
typedef enum {
    EIP_NEAREST,
    EIP_BILINEAR,
    EIP_BICUBIC,
    EIP_LANCZOS,
    EIP_BOX,
    EIP_HAMMING,
    EIP_LINEAR
} eip_interpolation;
typedef enum { EIP_INPUT_UINT8, EIP_INPUT_FLOAT32, EIP_INPUT_EMBEDDING, EIP_INPUT_FRAME } eip_input;
typedef enum { EIP_TEACHABLE_NO, EIP_TEACHABLE_DEFAULT, EIP_TEACHABLE_INPUT } eip_teachable;

typedef struct eip_rule {
    eip_norm embedding_norm;
    eip_aggregation aggregation;
    eip_distance distance;
    int32_t neighbors;
    eip_weighting weighting;
} eip_rule;

typedef struct eip_preprocess {
    int32_t height, width;
    eip_resize resize;
    int32_t resize_height, resize_width;
    eip_interpolation interpolation;
    double mean[3], std[3];
} eip_preprocess;

typedef struct eip_frame {
    ei_format format; /* EI_RGB8, EI_BGR8, EI_NV12 or EI_YUYV */
    int32_t height, width; /* 0, 0: any */
} eip_frame;

/* One line of metadata; key and value are NUL-terminated. */
typedef struct eip_entry {
    char *key;
    char *value;
} eip_entry;

/* Metadata of ours. What other tools wrote, keys without EIP_PREFIX, is left out when it is added:
 * nobody looks at it, and Python does not write it again either. */
typedef struct eip_metadata {
    eip_entry *entries;
    size_t count;
    size_t capacity;
} eip_metadata;

/* Add a copy of key and value (their lengths in bytes). A NUL within becomes a byte that UTF-8 has
 * not, so that eip_contract_read refuses it in its turn; a note (EIP_NOTE_PREFIX) with NUL or of
 * no UTF-8 is left out. Keys that are there twice are found by eip_contract_read too. Fails with
 * EI_OUT_OF_MEMORY. */
ei_status eip_metadata_add(eip_metadata *metadata, const char *key, size_t key_bytes,
                           const char *value, size_t value_bytes);

/* Sort by key; returns a key that is there twice, or NULL. */
const char *eip_metadata_sort(eip_metadata *metadata);

/* Return a value, or NULL; the key without EIP_PREFIX. */
const char *eip_metadata_get(const eip_metadata *metadata, const char *key);

/* Free what it holds, and make it empty. */
void eip_metadata_clear(eip_metadata *metadata);

typedef struct eip_contract {
    size_t classes;
    char **labels; /* classes of them; pointers and names are one block of memory */
    eip_rule rule;
    int32_t embedding_size;
    const char *recipe; /* into the metadata it was read from, as all const char * here */
    bool has_backbone;
    const char *backbone;
    const char *backbone_digest;
    const char *preprocess_line; /* as written: equal lines, equal preprocessing */
    eip_preprocess preprocess;
    bool has_graph; /* of a model; the rest up to `calibrated` is there only then */
    eip_input input;
    eip_frame frame;
    int32_t slots;
    const char *precision;
    const char *target;
    eip_teachable teachable;
    int32_t max_classes, taught_proxies;
    bool calibrated;
    double temperature;
} eip_contract;

/* Read a contract of metadata, which must outlive it.
 *
 *   model  whether of a model (graph required) or of a head
 *   where  the file's name, for messages; NULL or "": the caller says where
 *
 * Checked in the order of docs/contract.md: is there any, version, keys, sizes, values. Fails
 * with EI_NO_CONTRACT to EI_CONTRACT_VALUE, EI_OUT_OF_MEMORY; `contract` is zero then. */
ei_status eip_contract_read(const eip_metadata *metadata, bool model, const char *where,
                            eip_contract *contract);

/* Free the labels, and make it zero. */
void eip_contract_clear(eip_contract *contract);

/* Check one class name as the contract does: EI_CONTRACT_VALUE. */
ei_status eip_check_label(const char *label);

/* Write labels as the contract has them, a JSON array; NULL sets EI_OUT_OF_MEMORY's error. */
char *eip_write_labels(char *const *labels, size_t count);

#endif
