/* The directory of its own in which a run works: $DSTACK_HOME/work/RUN-ID/, or RUN-ID.N/ for
 * attempt N.
 *
 * shape:  code/ (the snapshot, the commands' working directory is in it), job (this run's id: the
 *         proof that the directory is this run's; renamed to kept by work_dir_keep), script,
 * mount-N.json. Mode 0700.
 */
#pragma once

#include "runner/run/run.h"

/* Where it is, if RUN works on this machine: named by the beginning of its random id, so that it
 * can be found and removed although its runner died before it could say so. The caller's. */
char *work_dir_default(const struct run *run);

/* That of another attempt of RUN. The caller's. */
char *work_dir_of_attempt(const struct run *run, unsigned attempt);

/* Makes it and notes it in RUN's owner. An earlier attempt's that is still there is removed. */
bool work_dir_create(struct run *run, GError **error);

/* Whether owner.work_dir exists and holds RUN's id. */
bool work_dir_is_ours(const struct run *run);

/* It holds what could not be saved: from now on it is a person's, and nobody's to remove. */
bool work_dir_keep(const struct run *run, GError **error);
bool work_dir_is_kept(const struct run *run);

/* Where an artifact or dep of path PATH is on this machine: absolute, below ~, or below the working
 * directory. NULL when RUN has no work directory. */
char *work_dir_path(const struct run *run, const char *path);

/* On this machine, beside it: the runner's own messages, and output that could not be saved. The
 * caller's. */
char *work_dir_messages(const struct run *run);
char *work_dir_output(const struct run *run);

/* Where the commands run. */
char *work_dir_commands(const struct run *run);
