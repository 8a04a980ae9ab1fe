/* One job, from submitted to its end, on the machine where it runs.
 *
 * shape:   wait until it is submitted → take it (owner, downloading) → code, deps, artifact
 *          directories, mounts → running → uploading → done | failed, or by a wish stopped |
 * aborted. errors:  what goes wrong with the job ends up in its document; false and *ERROR only
 * when the document could not be taken or written. threads: called on the program's main thread,
 * which stays: children die with it.
 */
#pragma once

#include "runner/engine/engine.h"

/* SIGNALS is a signalfd for SIGCHLD, SIGTERM and SIGINT, which are blocked in all threads. */
bool job_run(struct store *root, const struct run_root *where, const char *repo, const char *name,
             int signals, GError **error);
