/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "model.h"

void eip_file_release(eip_file *file)
{
    if (!file || atomic_fetch_sub(&file->holders, 1) > 1)
        return;
    eip_contract_clear(&file->contract);
    eip_metadata_clear(&file->metadata);
    free(file);
}

eip_knowledge *eip_know(const ei_model *model)
{
    pthread_mutex_t *swapping = (pthread_mutex_t *)&model->swapping;
    pthread_mutex_lock(swapping);
    eip_knowledge *known = model->known;
    atomic_fetch_add(&known->holders, 1);
    pthread_mutex_unlock(swapping);
    return known;
}

void eip_knowledge_release(eip_knowledge *known)
{
    if (!known || atomic_fetch_sub(&known->holders, 1) > 1)
        return;
    for (size_t i = 0; i < known->tensors.count; i++)
        eip_value_free(known->session, known->values[i]);
    eip_class_tensors_clear(&known->tensors);
    eip_head_free(known->head);
    eip_file_release(known->file);
    eip_session_release(known->session);
    free(known);
}

void eip_learn(ei_model *model, eip_knowledge *known)
{
    pthread_mutex_lock(&model->swapping);
    eip_knowledge *before = model->known;
    model->known = known;
    pthread_mutex_unlock(&model->swapping);
    eip_knowledge_release(before);
}

ei_status eip_knowledge_own(const ei_model *model, eip_knowledge **known)
{
    eip_knowledge *made = eip_allocate(1, sizeof *made);
    *known = made;
    if (!made)
        return EI_OUT_OF_MEMORY;
    atomic_init(&made->holders, 1);
    made->session = eip_session_hold(model->session);
    made->file = model->file;
    atomic_fetch_add(&made->file->holders, 1);
    made->classes = model->file->contract.classes;
    made->labels = model->file->contract.labels;
    return EI_OK;
}

/* Find an input that takes a head's numbers: one of its own, or an initializer that may be
 * replaced. The first input takes the images. */
static const eip_port *find_port(const eip_session *session, const char *name)
{
    const eip_port *port = eip_session_input(session, name);
    return port && port != session->inputs ? port : eip_session_default(session, name);
}

static bool has_tensor(const eip_class_tensors *tensors, const char *name)
{
    for (size_t i = 0; i < tensors->count; i++)
        if (!strcmp(tensors->tensors[i].name, name))
            return true;
    return false;
}

static ei_status check_taken(const eip_port *ports, size_t count,
                             const eip_class_tensors *tensors, const char *where)
{
    for (size_t i = 0; i < count; i++)
        if (!has_tensor(tensors, ports[i].name))
            return eip_fail(EI_HEAD_MISMATCH,
                            "%s lacks %s, which the model takes; put the head there that was "
                            "exported with the model",
                            where, ports[i].name);
    return EI_OK;
}

/* Hold a head's tensors against what the graph takes: the same names, shapes that go with it. */
static ei_status check_tensors(const eip_session *session, const eip_class_tensors *tensors,
                               const char *where)
{
    for (size_t i = 0; i < tensors->count; i++) {
        const eip_tensor *tensor = tensors->tensors + i;
        const eip_port *port = find_port(session, tensor->name);
        if (!port)
            return eip_fail(EI_HEAD_MISMATCH,
                            "%s has %s, which the model does not take; put the head there that "
                            "was exported with the model",
                            where, tensor->name);
        bool fits = port->type == EIP_F32 && port->dimensions == tensor->dimensions;
        for (int k = 0; fits && k < tensor->dimensions; k++)
            fits = port->shape[k] < 0 || port->shape[k] == tensor->shape[k];
        if (!fits)
            return eip_fail(EI_HEAD_MISMATCH,
                            "%s has %s of another shape (%lld numbers along the first side) "
                            "than the model takes; put the head there that was exported with "
                            "the model",
                            where, tensor->name, (long long)tensor->shape[0]);
    }
    ei_status status =
        check_taken(session->inputs + 1, session->input_count - 1, tensors, where);
    return status ? status
                  : check_taken(session->defaults, session->default_count, tensors, where);
}

ei_status eip_knowledge_of_head(const ei_model *model, eip_head *head, const char *where,
                                eip_knowledge **known)
{
    const eip_contract *contract = &model->file->contract;
    eip_knowledge *made;
    ei_status status = eip_knowledge_own(model, &made);
    *known = NULL;
    if (status) {
        eip_head_free(head);
        return status;
    }
    made->head = head;
    made->classes = head->contract.classes;
    made->labels = head->contract.labels;
    status = eip_head_fits(head, contract, where);
    if (!status)
        status = eip_where(eip_class_tensors_make(head, contract->slots, &made->tensors), where);
    if (!status)
        status = check_tensors(model->session, &made->tensors, where);
    for (size_t i = 0; i < made->tensors.count && !status; i++) {
        const eip_tensor *tensor = made->tensors.tensors + i;
        status = eip_value_wrap(model->session, EIP_F32, tensor->data, tensor->shape,
                                tensor->dimensions, made->values + i);
    }
    if (status)
        eip_knowledge_release(made);
    else
        *known = made;
    return status;
}
