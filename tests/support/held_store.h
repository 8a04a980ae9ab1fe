/* A layer over a store that answers chosen calls late, never, or with an error.
 *
 * shape:   a rule names a verb (STORE_VERBS: every one) and a key's end (NULL: every key). There is
 *          one for what is held and one for what fails.
 *          A held HEAD answers with what was true when it was asked; other held calls are carried
 *          out when they are released, unless only their answers are held. store_cancel ends a held
 *          call with ECANCELED.
 * threads: any.
 */
#pragma once

#include "storage/store.h"

struct store *held_store_new(struct store *below); /* holds a reference */
void held_store_hold(struct store *store, enum store_verb verb, const char *key_end);
/* The same for answers: the call is carried out at once. */
void held_store_hold_answers(struct store *store, enum store_verb verb, const char *key_end);
/* What is held goes on, and nothing is held any more. */
void held_store_release(struct store *store);
/* What is held fails with CODE, and nothing is held any more. */
void held_store_drop(struct store *store, int code);
unsigned held_store_waiting(struct store *store);
/* CODE 0: nothing fails any more. */
void held_store_fail(struct store *store, enum store_verb verb, const char *key_end, int code);
unsigned held_store_calls(struct store *store, enum store_verb verb);
