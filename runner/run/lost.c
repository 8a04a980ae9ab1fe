#include "runner/run/lost.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/engine/engine.h"
#include "runner/machine.h"
#include "runner/provider/provider.h"
#include "runner/run/restart.h"
#include "runner/run/run_store.h"
#include "runner/work_dir.h"
#include <signal.h>
#include <string.h>

enum { KILL_MS = 5000, MOUNT_SAVE_MS = 60000 };

/* Whether the run's object SUFFIX was written longer ago than LIMIT_MS. */
static bool is_older(struct store *root, const struct run *run, const char *suffix,
                     int64_t limit_ms, bool *older, GError **error)
{
    g_autofree char *key = g_strdup_printf("runs/%s/%s.%s", run->repo, run->name, suffix);
    int64_t age_ms;

    if (!store_age(root, key, &age_ms, error))
        return false;
    *older = age_ms > limit_ms;
    return true;
}

/* A runner that has just taken the run has not had time for a beat. */
static bool beat_is_old(struct store *root, const struct run *run, bool *old, GError **error)
{
    g_autoptr(GError) missing = NULL;

    if (is_older(root, run, "beat", BEAT_LOST_MS, old, &missing))
        return true;
    if (error_is(missing, ENOENT))
        return is_older(root, run, "json", BEAT_LOST_MS, old, error);
    g_propagate_error(error, g_steal_pointer(&missing));
    return false;
}

/* What the engine says; one that cannot be asked knows nothing. */
static void ask_engine(const struct run *run, struct engine_answer *answer)
{
    g_autoptr(GError) error = NULL;
    const struct engine *engine = engine_of(run, &error);

    *answer = (struct engine_answer){.state = ENGINE_UNKNOWN, .ended = RUN_FAILED};
    if (engine && engine->status(run, answer, &error))
        return;
    answer->state = ENGINE_UNKNOWN;
    log_info("%s", error->message);
}

static bool engine_requeues(const struct run *run)
{
    const struct engine *engine = engine_of(run, NULL);

    return engine && engine->requeues;
}

/* It was claimed and never given to its engine, or given to one that knows nothing of it now and
 * has no queue where it could wait. */
static bool find_untaken(struct store *root, const struct run *run,
                         const struct engine_answer *answer, struct run_fate *fate, GError **error)
{
    bool is_pending = run->status == RUN_PENDING;

    if (!is_pending && (answer->state != ENGINE_UNKNOWN || engine_requeues(run)))
        return true;
    if (!is_older(root, run, "json", UNTAKEN_LOST_MS, &fate->is_lost, error))
        return false;
    if (fate->is_lost)
        fate->reason =
            g_strdup_printf("%s within %d minutes",
                            is_pending ? "its engine was not given it" : "no runner took it",
                            UNTAKEN_LOST_MS / 60000);
    return true;
}

/* Nobody owns it: it waits for its engine, for the first time or once more. */
static bool find_unowned(struct store *root, struct run *run, const struct engine_answer *answer,
                         struct run_fate *fate, GError **error)
{
    fate->ends = answer->ended;
    if (answer->state == ENGINE_QUEUED)
        run->waiting = g_strdup(answer->reason);
    fate->is_lost = answer->state == ENGINE_GONE && run->status != RUN_PENDING;
    if (run->status != RUN_INTERRUPTED)
        return fate->is_lost || find_untaken(root, run, answer, fate, error);
    run->is_idle = fate->is_lost ? answer->ended == RUN_INTERRUPTED
                                 : answer->state == ENGINE_UNKNOWN && !engine_requeues(run);
    fate->is_lost = fate->is_lost && !run->is_idle;
    return true;
}

static bool owner_is_here(const struct run *run)
{
    g_autofree char *machine = machine_id();

    return g_strcmp0(run->owner.machine, machine) == 0;
}

/* The process is gone, or elsewhere: an engine that keeps books says most; then the beat. */
static bool find_owned(struct store *root, const struct run *run,
                       const struct engine_answer *answer, struct run_fate *fate, GError **error)
{
    if (answer->state == ENGINE_QUEUED || answer->state == ENGINE_GONE) {
        fate->is_lost = true;
        fate->ends = answer->state == ENGINE_QUEUED ? RUN_INTERRUPTED : answer->ended;
        if (answer->state == ENGINE_QUEUED)
            fate->reason = g_strdup("its node went away");
        return true;
    }
    if (answer->state == ENGINE_ALIVE) /* it will find out */
        return true;
    if (owner_is_here(run)) {
        fate->is_lost = true;
        return true;
    }
    return beat_is_old(root, run, &fate->is_lost, error);
}

/* A machine's process says most. */
static bool owner_lives_here(const struct run *run)
{
    return owner_is_here(run) && process_is_alive((pid_t)run->owner.pid, run->owner.start_ticks);
}

bool run_fate_asks_engine(const struct run *run)
{
    return !run_status_is_final(run->status) && !owner_lives_here(run) && engine_requeues(run);
}

bool run_find_fate(struct store *root, struct run *run, struct run_fate *fate, GError **error)
{
    struct engine_answer answer = {.state = ENGINE_UNKNOWN};
    bool fine = true;

    *fate = (struct run_fate){.ends = RUN_INTERRUPTED};
    if (run_status_is_final(run->status) || owner_lives_here(run))
        return true;
    if (!run->owner.host || engine_requeues(run))
        ask_engine(run, &answer);
    fine = run->owner.host ? find_owned(root, run, &answer, fate, error)
                           : find_unowned(root, run, &answer, fate, error);
    if (fate->is_lost && !fate->reason && answer.state == ENGINE_GONE)
        fate->reason = g_steal_pointer(&answer.reason);
    g_free(answer.reason);
    return fine;
}

static void detach_mounts(const struct run *run)
{
    for (guint i = 0; i < run->deps->len; i++) {
        const struct run_dep *dep = run->deps->pdata[i];
        g_autofree char *path = work_dir_path(run, dep->path);

        if (path && dep->mount)
            mounts_detach(path);
    }
    for (guint i = 0; i < run->artifacts->len; i++) {
        const struct run_artifact *artifact = run->artifacts->pdata[i];
        g_autofree char *path = work_dir_path(run, artifact->path);

        if (path && artifact->mount)
            mounts_detach(path);
    }
}

/* The runner died before it had the run: it may have made its directory. */
static void clean_unowned(const struct run *run)
{
    g_autofree char *path = work_dir_default(run);
    g_autoptr(GError) error = NULL;

    if (!tree_remove(path, &error))
        log_warning("%s", error->message);
}

void run_clean_remains(const struct run *run)
{
    const struct provider *provider = provider_find(run->provider, NULL);
    g_autofree char *machine = machine_id();
    g_autoptr(GError) error = NULL;

    if (!run->owner.host) {
        clean_unowned(run);
        return;
    }
    if (g_strcmp0(run->owner.machine, machine) != 0)
        return;
    processes_end(JOB_VARIABLE, run->id, SIGKILL, KILL_MS);
    if (provider)
        provider->clean(run);
    if (!processes_end(MOUNT_VARIABLE, run->id, SIGTERM, MOUNT_SAVE_MS)) {
        log_warning("%s: a mount did not end in %d s and is killed", run->name,
                    MOUNT_SAVE_MS / 1000);
        processes_end(MOUNT_VARIABLE, run->id, SIGKILL, KILL_MS);
    }
    if (!work_dir_is_ours(run)) /* never act on a path only because a document names it */
        return;
    detach_mounts(run);
    mounts_detach(run->owner.work_dir);
    if (!tree_remove(run->owner.work_dir, &error))
        log_warning("%s", error->message);
}

char *run_lost_reason(const struct run *run)
{
    if (work_dir_is_kept(run))
        return g_strdup_printf("runner lost; artifacts that were not saved are kept in %s",
                               run->owner.work_dir);
    return g_strdup("runner lost");
}

static bool stop_lost(struct store *root, struct run *run, const char *reason, GError **error)
{
    return (run->status == RUN_STOPPING ||
            run_store_move(root, run, RUN_STOPPING, reason, error)) &&
           run_store_move(root, run, RUN_STOPPED, reason, error);
}

static bool settle(struct store *root, struct run *run, const struct run_fate *fate, GError **error)
{
    g_autofree char *lost = run_lost_reason(run);
    const char *reason = fate && fate->reason ? fate->reason : lost;
    g_autofree char *why_not = NULL, *both = NULL;
    bool kept = work_dir_is_kept(run);

    run_clean_remains(run);
    if (run->status == RUN_ABORTING)
        return run_store_move(root, run, RUN_ABORTED, reason, error);
    if (fate && fate->ends == RUN_STOPPED)
        return stop_lost(root, run, reason, error);
    if ((!fate || fate->ends == RUN_INTERRUPTED) && !kept && run->status != RUN_STOPPING &&
        run_wants_restarts(run)) {
        if (run_may_restart(run, &why_not))
            return run_interrupt(root, run, reason, error);
        both = g_strdup_printf("%s, and %s", reason, why_not);
    }
    return run_store_move(root, run, RUN_FAILED, both ? both : reason, error);
}

bool run_settle_lost(struct store *root, struct run *run, const struct run_fate *fate,
                     GError **error)
{
    if (!settle(root, run, fate, error))
        return false;
    run_store_remove_signs(root, run);
    return true;
}
