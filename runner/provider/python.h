/* The Python that a workflow wants: an interpreter of this machine in an environment of the run's
 * own, so that `python`, `python3` and `pip` are that version, and what pip installs goes away with
 * the run. What is installed for that interpreter is there too.
 */
#pragma once

#include "runner/job/launch.h"

/* VERSION NULL: whatever there is. ENOENT, with the versions there are, when this one is not. */
bool python_check(const char *version, GError **error);

/* Makes the environment and puts it first in PATH; nothing when the workflow wants no version. */
bool python_prepare(struct launch *launch, GError **error);
