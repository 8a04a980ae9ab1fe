/* Engines start dstack-runner somewhere. One table of functions each, no NULL entries.
 *
 * errors:  submit has started nothing when it fails.
 * trust:   an engine is never trusted to be alive: a run's status comes from the store; the engine
 *          is asked only whether its job can still make progress.
 */
#pragma once

#include "runner/run.h"
#include "storage/store.h"

/* ROOT as another process opens it: credentials come from the environment and the profile. */
struct run_root {
    const char *url;
    struct store_options options;
};

enum engine_state { ENGINE_UNKNOWN, ENGINE_QUEUED, ENGINE_ALIVE, ENGINE_GONE };

struct engine {
    const char *name;
    /* Starts a runner for RUN. JOB is the engine's name for it, for status and cancel. */
    bool (*submit)(const struct run_root *root, const struct run *run, char **job, GError **error);
    bool (*status)(const struct run *run, enum engine_state *state, GError **error);
    /* Ends the job at once, without the runner's cooperation. One that is gone is a success. */
    bool (*cancel)(const struct run *run, GError **error);
};

extern const struct engine engine_local;

/* NULL and ENOENT, with the names there are, for one that is not known. */
const struct engine *engine_find(const char *name, GError **error);
