/* The index of runs: one empty object for each, whose key says what `ps` shows.
 *
 * shape:  runs/REPO/RUN!STATUS!SUBMITTED_MS!FINISHED_MS!EXIT!REVISION!WORKFLOW, where WORKFLOW is
 *         percent-encoded and may be cut. A run may have two for an instant: the higher revision
 *         counts.
 * safety: keys are foreign: one that does not parse is no marker.
 */
#pragma once

#include "runner/run/run.h"
#include "storage/store.h"

struct run_marker {
    char *name, *workflow;
    char *user; /* NULL: not known */
    enum run_status status;
    int64_t submitted_ms, finished_ms;
    int exit_code;
    uint64_t revision;
};

char *run_marker_key(const struct run *run);

/* KEY as in the store, of repo REPO. False: not a marker; MARKER is untouched then. */
bool run_marker_parse(const char *repo, const char *key, struct run_marker *marker);
void run_marker_clear(struct run_marker *marker);

/* Writes RUN's marker and removes older ones. */
bool run_marker_write(struct store *root, const struct run *run, GError **error);
