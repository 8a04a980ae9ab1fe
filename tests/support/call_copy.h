/* For layers over a store: a call is started once in its life, so the layer below gets a copy, and
 * its answer is moved back. */
#pragma once

#include "storage/store.h"

struct store_call *call_copy_request(const struct store_call *call);
void call_move_answer(struct store_call *to, struct store_call *from);
