/* A layer over a store that makes chosen calls fail or wait.
 *
 * shape:   calls are counted from 1 in the order they are started; VERB STORE_VERBS counts all.
 * threads: set what is to happen before the calls it concerns; counters may be read at any time.
 */
#pragma once

#include "storage/store.h"

struct store *faulty_store_new(struct store *below); /* holds a reference */
/* The N-th call of VERB from now on, and the COUNT-1 after it, fail with CODE. */
void faulty_store_fail(struct store *store, enum store_verb verb, unsigned n, unsigned count,
                       int code);
/* The same, but the calls are carried out: their answers alone are lost. */
void faulty_store_lose(struct store *store, enum store_verb verb, unsigned n, unsigned count,
                       int code);
/* Every call is answered DELAY_MS later. */
void faulty_store_delay(struct store *store, unsigned delay_ms);
/* Calls are carried out at once, and answered late. */
void faulty_store_delay_answers(struct store *store, unsigned delay_ms);
unsigned faulty_store_calls(struct store *store, enum store_verb verb);
uint64_t faulty_store_received(struct store *store); /* bytes of objects */
unsigned faulty_store_most_in_flight(struct store *store);
