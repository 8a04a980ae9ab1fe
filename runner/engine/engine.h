/* Engines start dstack-runner somewhere. One table of functions each, no NULL entries.
 *
 * errors:  submit has started nothing when it fails.
 * trust:   an engine is never trusted to be alive: a run's status comes from the store; the engine
 *          is asked only whether its job can still make progress.
 */
#pragma once

#include "config/settings.h"
#include "runner/run/run.h"
#include "storage/store.h"

/* ROOT as another process opens it: credentials come from the environment and the profile. */
struct run_root {
    const char *url;
    struct store_options options;
    const struct slurm_settings *slurm; /* for submitting; NULL: none */
};

enum engine_state { ENGINE_UNKNOWN, ENGINE_QUEUED, ENGINE_ALIVE, ENGINE_GONE };

/* What an engine knows of a job. */
struct engine_answer {
    enum engine_state state;
    /* GONE: what became of it, should its run not be finished: RUN_FAILED, RUN_STOPPED, or
     * RUN_INTERRUPTED (it could go on elsewhere). */
    enum run_status ended;
    char *reason; /* QUEUED: what it waits for. GONE: why. The caller's; NULL: nothing to say */
};

/* What the runner is told by its engine when that sends SIGTERM. */
struct engine_signal {
    bool is_interruption; /* else somebody wants the run to stop, or it has used up its time */
    enum run_status ends; /* not an interruption: RUN_STOPPED or RUN_FAILED */
    int64_t left_ms;      /* until the job is killed; -1: not known */
    char *why;            /* the caller's; NULL: nothing to say */
};

struct engine {
    const char *name;
    /* Whether it starts an interrupted job again by itself. */
    bool requeues;
    /* Whether RUN could run there at all, before anything is made of it. */
    bool (*check)(const struct run_root *root, const struct run *run, GError **error);
    /* Starts a runner for RUN. JOB is the engine's name for it, for status and cancel. */
    bool (*submit)(const struct run_root *root, const struct run *run, char **job, GError **error);
    bool (*status)(const struct run *run, struct engine_answer *answer, GError **error);
    /* Ends the job at once, without the runner's cooperation. One that is gone is a success. */
    bool (*cancel)(const struct run *run, GError **error);

    /* --- asked by the runner, from inside the job --- */

    /* Whether this is RUN's job: whoever submitted one may have been told that it failed, and have
     * submitted another. */
    bool (*is_ours)(const struct run *run);
    /* Whether this is RUN's job, started anew by the engine: whoever had the run before is gone. */
    bool (*is_restart)(const struct run *run);
    void (*explain_signal)(const struct run *run, struct engine_signal *signal);
    /* The job was interrupted and is to start again; it may be killed at once. */
    bool (*start_again)(const struct run *run, GError **error);
};

extern const struct engine engine_local, engine_slurm;

/* NULL and ENOENT, with the names there are, for one that is not known. */
const struct engine *engine_find(const char *name, GError **error);

/* RUN's own. */
const struct engine *engine_of(const struct run *run, GError **error);
