/* The ranks of a run on several nodes: one runner on each, of which rank 0 has the run.
 *
 * shape:  runs/REPO/RUN.rank-0 names the start that rank 0 has taken the run for, so that others do
 * not join one that is over; RUN.rank-R is how rank R ended: "EXIT-CODE REASON". All are removed
 *         when the next start begins, and with the run.
 */
#pragma once

#include "runner/job_watch.h"
#include "runner/launch.h"

/* This process's; 0 for runs on one machine. */
unsigned ranks_own(const struct run *run);

/* DSTACK_NODES, DSTACK_NODE_RANK, DSTACK_MASTER_ADDR and DSTACK_MASTER_PORT. */
void ranks_set_environment(struct launch *launch);

/* Rank 0: the others may join. */
bool ranks_open(struct store *root, const struct run *run, GError **error);

/* Rank R: waits until rank 0 has the run, for a while; the run is the caller's. What is written
 * down of it is rank 0's: this one has an id, a work directory and a log of its own. */
struct run *ranks_join(struct store *root, const char *repo, const char *name, unsigned rank,
                       GError **error);

/* Rank R: how it ended. */
bool ranks_report(struct store *root, const struct run *run, int exit_code, const char *reason,
                  GError **error);

/* Rank 0: waits until all have ended, or it is time to end. FAILED (the caller's): what one said
 * that did not end well, or NULL. */
bool ranks_wait(struct store *root, const struct run *run, struct job_watch *watch, char **failed,
                GError **error);
