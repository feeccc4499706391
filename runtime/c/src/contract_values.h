/* SPDX-License-Identifier: Apache-2.0 */
/* The values of a contract's metadata, each read in one form only, whatever the locale. All fail
 * with EI_CONTRACT_VALUE. */
#ifndef EIP_CONTRACT_VALUES_H
#define EIP_CONTRACT_VALUES_H

#include "contract.h"

#define EIP_QUOTED 336

/* Write text in quotes for a message: its first 80 bytes, and what can't be printed as \xNN.
 *
 *   quoted  takes EIP_QUOTED bytes; returned */
const char *eip_quote(const char *text, size_t bytes, char *quoted);

/* Check a text of 1 to `limit` bytes of UTF-8. */
ei_status eip_check_text(const char *name, const char *text, size_t limit);

/* Read a whole number of 1 to 9 ASCII digits, from 1 to `limit`. */
ei_status eip_read_count(const char *name, const char *text, int32_t limit, int32_t *value);

/* Check that a text is one of the choices, such as "'fp32' or 'int8'". */
ei_status eip_read_choice(const char *name, const char *text, const char *choices, int *value);

ei_status eip_read_rule(const char *text, eip_rule *rule);
ei_status eip_read_preprocess(const char *text, eip_preprocess *preprocess);
ei_status eip_read_input(const char *text, eip_input *input, eip_frame *frame);
ei_status eip_read_teachable(const char *text, eip_contract *contract);
ei_status eip_read_temperature(const char *text, double *temperature);
ei_status eip_check_digest(const char *text);
ei_status eip_check_target(const char *text);

#endif
