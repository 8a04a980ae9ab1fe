/* Runs whose runner is gone: noticing, cleaning up behind it, and saying so in the document.
 *
 * shape:  on the runner's own machine its process is looked at; from elsewhere the age of its
 *         heartbeat (RUN.beat, rewritten every 10 s) decides, unless its engine knows better; a run
 *         that nobody owns is asked about at its engine.
 * clocks: ages are the store's own: that of the machine where somebody looks may be wrong.
 * limits: from elsewhere, a loss is noticed after two minutes; that nobody took a run, after ten.
 */
#pragma once

#include "runner/run/run.h"
#include "storage/store.h"

enum { BEAT_EVERY_MS = 10000, BEAT_LOST_MS = 120000, UNTAKEN_LOST_MS = 600000 };

struct run_fate {
    bool is_lost;         /* it is not finished, and who had it is gone */
    enum run_status ends; /* as what, should it be lost: failed, stopped or interrupted */
    char *reason;         /* the caller's; NULL: nothing special */
};

/* RUN was just loaded. Sets its waiting and is_idle. */
bool run_find_fate(struct store *root, struct run *run, struct run_fate *fate, GError **error);

/* Whether that asks an engine's programs, maybe over ssh: not to be done all the time. */
bool run_fate_asks_engine(const struct run *run);

/* Ends what RUN's dead runner left on this machine: processes, then mounts (they get a moment to
 * save), then the work directory, unless it is kept. Does nothing on another machine. */
void run_clean_remains(const struct run *run);

/* What to say of it: where its unsaved artifacts are, too. The caller's. */
char *run_lost_reason(const struct run *run);

/* Cleans, and moves RUN to what FATE says, or failed ("runner lost"); to aborted when it was to be
 * aborted; to interrupted when it may begin again. */
bool run_settle_lost(struct store *root, struct run *run, const struct run_fate *fate,
                     GError **error);
