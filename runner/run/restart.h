/* Runs that were interrupted and may begin again: whether, and with what in their document.
 *
 * shape:  interrupted → pending → submitted → downloading …, the attempt being one higher from
 *         pending on. While a run is interrupted nobody owns it.
 */
#pragma once

#include "runner/engine/engine.h"
#include "storage/store.h"

/* Whether RUN was made to begin again after an interruption: interruptible, or with retry. */
bool run_wants_restarts(const struct run *run);

/* Whether it may do so once more. WHY_NOT (the caller's; may be NULL): what bounds it. */
bool run_may_restart(const struct run *run, char **why_not);

/* This process has it. */
void run_own(struct run *run);

/* Nobody has it any more. */
void run_disown(struct run *run);

/* RUN to interrupted; nobody owns it any more. */
bool run_interrupt(struct store *root, struct run *run, const char *reason, GError **error);

/* An interrupted RUN to pending, as the next attempt. */
bool run_begin_again(struct store *root, struct run *run, GError **error);
