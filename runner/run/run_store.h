/* Runs in the store: create, load, move from status to status, list, ask to stop.
 *
 * shape:   runs/REPO/RUN.json is the truth, written only over the ETag that was read. Beside it an
 *          empty object whose key says what `ps` shows (RUN.s-…), written after it, so that a
 *          listing reads documents of unfinished runs only. docs/runs.md has the protocol.
 * errors:  ESTALE: someone else wrote the run in between (load it again); ENOENT: no such run;
 *          EPERM: the run's status does not allow it.
 * threads: any, on different struct runs.
 * limits:  where the store has no has_put_if_match, the ETag is compared just before a plain write;
 *          two writers within that instant are not told apart. A warning says so, once.
 */
#pragma once

#include "runner/run/run.h"
#include "storage/store.h"

/* EINVAL, EILSEQ: RUN's document could not be read again, so it must not be written: nobody could
 * stop or remove it. RUN needs no name yet. */
bool run_store_check(struct run *run, GError **error);

/* Gives RUN a name nobody has (adjective-animal-N, unless it has one), claims it and writes the
 * first document. EEXIST when the given name is taken. */
bool run_store_create(struct store *root, struct run *run, GError **error);

/* Whether there is such a run. */
bool run_store_has(struct store *root, const char *repo, const char *name, bool *has,
                   GError **error);

struct run *run_store_load(struct store *root, const char *repo, const char *name, GError **error);

/* Writes what changed in RUN without changing its status. */
bool run_store_save(struct store *root, struct run *run, GError **error);

/* RUN goes to status TO (and what else changed in it is written too), in one conditional write.
 * REASON (may be NULL) replaces run->reason. On failure RUN keeps its old status. */
bool run_store_move(struct store *root, struct run *run, enum run_status to, const char *reason,
                    GError **error);

/* One line of `ps`. */
struct run_summary {
    char *name, *workflow;
    char *user; /* NULL: not known */
    enum run_status status;
    int64_t submitted_ms, finished_ms;
    int exit_code;
    char *reason; /* of unfinished and just lost runs only; NULL otherwise */
};
void run_summary_free(struct run_summary *summary);

/* GPtrArray of struct run_summary*, newest first. Costs a LIST, and a read for each unfinished run;
 * those whose runner is gone are moved to failed ("runner lost") on the way, and what is left of
 * them on this machine is cleaned. */
GPtrArray *run_store_list(struct store *root, const char *repo, GError **error);

/* Wants the run to stop; ABORT: without saving. A run that nobody runs yet is stopped here and now.
 * EPERM when it is finished already. A stop may become an abort, never the reverse. */
bool run_store_request_stop(struct store *root, const char *repo, const char *name, bool abort,
                            GError **error);

/* INTERRUPT never stands in the store: the machine goes, or the engine wants it back. */
enum stop_wish { STOP_NONE, STOP_INTERRUPT, STOP_GRACEFUL, STOP_ABORT };
bool run_store_stop_wish(struct store *root, const char *repo, const char *name,
                         enum stop_wish *wish, GError **error);

/* RUN is over, or interrupted: nobody looks for its pulse any more, and when it is over for no wish
 * either. */
void run_store_remove_signs(struct store *root, const struct run *run);

/* Loads the run, and settles what its dead runner could not (see run_store_list). For those who
 * wait for a run's end: `dstack run`, `logs -a`. */
struct run *run_store_refresh(struct store *root, const char *repo, const char *name,
                              GError **error);

/* Removes the document, its markers and its logs; artifacts stay. EPERM for an unfinished run. */
bool run_store_remove(struct store *root, const char *repo, const char *name, GError **error);
