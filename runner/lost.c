#include "runner/lost.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/engine.h"
#include "runner/machine.h"
#include "runner/provider.h"
#include "runner/run_store.h"
#include "runner/work_dir.h"
#include <signal.h>
#include <string.h>

enum { PENDING_LOST_MS = 600000, KILL_MS = 5000, MOUNT_SAVE_MS = 60000 };

static bool beat_is_old(struct store *root, const struct run *run, bool *old, GError **error)
{
    g_autofree char *key = g_strdup_printf("runs/%s/%s.beat", run->repo, run->name);
    g_autoptr(GError) missing = NULL;
    struct store_object object = {0};

    if (store_head(root, key, &object, &missing)) {
        *old = run_now_ms() - object.mtime_ns / 1000000 > BEAT_LOST_MS;
        store_object_clear(&object);
        return true;
    }
    if (!error_is(missing, ENOENT)) {
        g_propagate_error(error, g_steal_pointer(&missing));
        return false;
    }
    *old = run_now_ms() - run->started_ms > BEAT_LOST_MS;
    return true;
}

bool run_is_lost(struct store *root, const struct run *run, bool *lost, GError **error)
{
    g_autofree char *machine = machine_id();
    enum engine_state state = ENGINE_UNKNOWN;
    const struct engine *engine;

    *lost = false;
    if (run_status_is_final(run->status) || run->status == RUN_INTERRUPTED)
        return true;
    if (run->owner.host && g_strcmp0(run->owner.machine, machine) == 0) {
        *lost = !process_is_alive((pid_t)run->owner.pid, run->owner.start_ticks);
        return true;
    }
    if (run->owner.host)
        return beat_is_old(root, run, lost, error);
    if (run->status == RUN_PENDING) {
        *lost = run_now_ms() - run->submitted_ms > PENDING_LOST_MS;
        return true;
    }
    engine = engine_find(run->engine ? run->engine : "local", error);
    if (!engine || !engine->status(run, &state, error))
        return false;
    *lost = state == ENGINE_GONE;
    return true;
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

bool run_settle_lost(struct store *root, struct run *run, GError **error)
{
    enum run_status to = run->status == RUN_ABORTING ? RUN_ABORTED : RUN_FAILED;
    g_autofree char *reason = run_lost_reason(run);

    run_clean_remains(run);
    if (!run->finished_ms)
        run->finished_ms = run_now_ms();
    return run_store_move(root, run, to, reason, error);
}
