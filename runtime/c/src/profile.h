/* SPDX-License-Identifier: Apache-2.0 */
/* Which shapes a model's inputs may have, for TensorRT; as `engine.shapes` makes them. */
#ifndef EIP_PROFILE_H
#define EIP_PROFILE_H

#include <stdbool.h>

#include "contract.h"
#include "errors.h"
#include "session.h"

/* Make the profile of a model.
 *
 *   made  becomes false where the file does not bound the shapes: frames of any size, or classes
 *         that are to be taught to a default
 *
 * Fails with EI_MODEL_FILE (the note `profile` is malformed), EI_OUT_OF_MEMORY. */
ei_status eip_profile_make(const eip_metadata *metadata, const eip_contract *contract,
                           const char *where, eip_profile *profile, bool *made);
void eip_profile_clear(eip_profile *profile);

#endif
