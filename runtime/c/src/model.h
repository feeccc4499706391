/* SPDX-License-Identifier: Apache-2.0 */
/* An open model: its session, and what it knows, which is swapped whole. */
#ifndef EIP_MODEL_H
#define EIP_MODEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "class_tensors.h"
#include "contract.h"
#include "errors.h"
#include "head.h"
#include "pixels.h"
#include "session.h"

/* What a model knows at one time. Never changes; freed when the last who holds it lets go. */
typedef struct eip_knowledge {
    atomic_int holders;
    eip_session *session;      /* held, since the values are its */
    size_t classes;
    char *const *labels;       /* into the head, or into the model's metadata (shared below) */
    eip_head *head;            /* NULL: it lies in the model alone */
    struct eip_file *file;     /* what the labels lie in where there is no head; held */
    eip_class_tensors tensors;
    eip_value *values[EIP_MAX_TENSORS]; /* of tensors, in their order */
} eip_knowledge;

/* What a model's file says: metadata and contract. Never changes; counted like knowledge. */
typedef struct eip_file {
    atomic_int holders;
    eip_metadata metadata;
    eip_contract contract;
} eip_file;

struct ei_model {
    uint32_t magic; /* EIP_OPEN, or in debug builds EIP_CLOSED */
    eip_file *file;
    eip_session *session;
    eip_intake intake;
    char *head_path; /* MODEL.head; NULL for a model that lies in memory */
    char *where;     /* its name, for messages */
    bool can_embed, has_proxy;
    pthread_mutex_t swapping; /* guards `known`; held for a few instructions */
    eip_knowledge *known;
    pthread_mutex_t teaching; /* one who teaches, forgets, saves or loads at a time */
    struct ei_model *next_closed; /* debug builds keep the shells of closed models */
};

/* Hold what a model knows now; to be let go. */
eip_knowledge *eip_know(const ei_model *model);
void eip_knowledge_release(eip_knowledge *known);

/* Say what a model knows without a head file: its own classes. */
ei_status eip_knowledge_own(const ei_model *model, eip_knowledge **known);

/* Lay a head out for a model, once it is known to fit.
 *
 *   head   taken over, also after a failure
 *   where  its name, for messages
 *
 * Fails with EI_HEAD_MISMATCH, EI_OUT_OF_MEMORY, EI_DEVICE*. */
ei_status eip_knowledge_of_head(const ei_model *model, eip_head *head, const char *where,
                                eip_knowledge **known);

/* Replace what a model knows; takes `known` over. */
void eip_learn(ei_model *model, eip_knowledge *known);

/* Let go of what a model's file says; NULL is let pass. */
void eip_file_release(eip_file *file);

/* Check a handle: EI_INVALID_ARGUMENT for NULL, EI_CLOSED_MODEL in debug builds. */
ei_status eip_check_model(const ei_model *model);

/* Embed images with the model as it is.
 *
 *   batch  the most that go into one run; 0: as many as the model takes
 *   rows   takes (count, embedding_size)
 *
 * Fails with EI_OUTPUT_MISSING, EI_INPUT_*, EI_RUN_FAILED, EI_DEVICE*. */
ei_status eip_embed_rows(ei_model *model, const ei_image *images, size_t count, size_t batch,
                         float *rows);

#endif
