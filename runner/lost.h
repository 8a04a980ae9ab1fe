/* Runs whose runner is gone: noticing, cleaning up behind it, and saying so in the document.
 *
 * shape:  on the runner's own machine its process is looked at; from elsewhere the age of its
 *         heartbeat (RUN.beat, rewritten every 10 s) decides, and a runner that nobody owns yet is
 *         asked about at its engine.
 * limits: from elsewhere, a loss is noticed after two minutes, clocks being right to a minute.
 */
#pragma once

#include "runner/run.h"
#include "storage/store.h"

enum { BEAT_EVERY_MS = 10000, BEAT_LOST_MS = 120000 };

/* RUN was just loaded. *LOST: it is not finished and nobody can finish it. */
bool run_is_lost(struct store *root, const struct run *run, bool *lost, GError **error);

/* Ends what RUN's dead runner left on this machine: processes, then mounts (they get a moment to
 * save), then the work directory, unless it is kept. Does nothing on another machine. */
void run_clean_remains(const struct run *run);

/* What to say of it: where its unsaved artifacts are, too. The caller's. */
char *run_lost_reason(const struct run *run);

/* Cleans, and moves RUN to failed ("runner lost"); to aborted when it was to be aborted. */
bool run_settle_lost(struct store *root, struct run *run, GError **error);
