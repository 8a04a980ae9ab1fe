/* Saving later what a run could not save at its end.
 *
 * shape:  a failed save leaves the work directory (work_dir_keep) and says so in the run's reason.
 *         A rescue uploads what is missing to where it belongs, says so in the reason, and removes
 *         the directory. The run stays failed: its end was not what it should have been.
 */
#pragma once

#include "runner/run/run.h"
#include "storage/transfer.h"

/* Whether this machine has what RUN could not save. */
bool run_can_be_rescued(struct run *run);

bool run_rescue(struct store *root, struct run *run, const struct transfer_options *options,
                GError **error);
