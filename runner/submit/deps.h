/* From a workflow's deps to the artifacts that they mean, when the run is made.
 *
 * shape:  a dep is a workflow (its last done run), a tag or a run, of this repo or, as
 *         USER/REPO/NAME or REPO/NAME, of another. Each artifact of it becomes one struct run_dep,
 *         at the path where its producer had it.
 * errors: ENOENT: no such tag or run, no done run; EBUSY: it is not finished; EINVAL: two that
 *         would land in one place, or one and an artifact of the run itself.
 */
#pragma once

#include "runner/run/run.h"
#include "storage/store.h"

struct workflow_dep;

/* Adds what DEP means to RUN. */
bool deps_add(struct run *run, struct store *root, const struct workflow_dep *dep, GError **error);

/* Deps and artifacts of RUN, all known by now, keep out of each other's way. */
bool deps_check(const struct run *run, GError **error);
