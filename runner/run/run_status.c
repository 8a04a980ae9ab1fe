/* The statuses of a run and the one table that says which may follow which.
 *
 *   pending      made, its document claimed the name         → submitted
 *   submitted    handed to an engine                         → downloading
 *   downloading  a runner has it: code, deps, mounts         → running
 *   running      its commands run                            → uploading
 *   uploading    its commands ended, artifacts are saved     → done | failed
 *   stopping     asked to stop: SIGTERM, grace, save         → stopped
 *   aborting     asked to abort: nothing more is saved       → aborted
 *   interrupted  the machine was taken away                  → pending
 *
 * invariants: final statuses (done, failed, stopped, aborted) are never left; whatever is not final
 * can fail, be stopped and be aborted; stopping may turn into aborting, never back.
 */
#include "runner/run/run.h"
#include <string.h>

#define BIT(status) (1u << (status))
#define ENDS        (BIT(RUN_FAILED) | BIT(RUN_STOPPING) | BIT(RUN_ABORTING))

static const struct {
    const char *name;
    unsigned next;
} STATUSES[RUN_STATUSES] = {
    [RUN_PENDING] = {"pending", BIT(RUN_SUBMITTED) | BIT(RUN_INTERRUPTED) | ENDS},
    [RUN_SUBMITTED] = {"submitted", BIT(RUN_DOWNLOADING) | BIT(RUN_INTERRUPTED) | ENDS},
    [RUN_DOWNLOADING] = {"downloading", BIT(RUN_RUNNING) | BIT(RUN_INTERRUPTED) | ENDS},
    [RUN_RUNNING] = {"running", BIT(RUN_UPLOADING) | BIT(RUN_INTERRUPTED) | ENDS},
    [RUN_UPLOADING] = {"uploading", BIT(RUN_DONE) | BIT(RUN_INTERRUPTED) | ENDS},
    [RUN_DONE] = {"done", 0},
    [RUN_FAILED] = {"failed", 0},
    [RUN_STOPPING] = {"stopping", BIT(RUN_STOPPED) | BIT(RUN_ABORTING) | BIT(RUN_FAILED)},
    [RUN_STOPPED] = {"stopped", 0},
    [RUN_ABORTING] = {"aborting", BIT(RUN_ABORTED)},
    [RUN_ABORTED] = {"aborted", 0},
    [RUN_INTERRUPTED] = {"interrupted", BIT(RUN_PENDING) | ENDS},
};

const char *run_status_name(enum run_status status)
{
    return STATUSES[status].name;
}

bool run_status_parse(const char *name, enum run_status *status)
{
    for (int i = 0; i < RUN_STATUSES; i++) {
        if (strcmp(STATUSES[i].name, name) == 0) {
            *status = i;
            return true;
        }
    }
    return false;
}

bool run_status_is_final(enum run_status status)
{
    return STATUSES[status].next == 0;
}

bool run_status_may(enum run_status from, enum run_status to)
{
    return STATUSES[from].next & BIT(to);
}
