#include "runner/submit.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/code.h"
#include "runner/provider.h"
#include "runner/run_store.h"

/* Something went wrong after the run was made: it must not look alive. */
static void give_up(struct store *root, struct run *run, const GError *why)
{
    g_autoptr(GError) error = NULL;

    if (!run_store_move(root, run, RUN_FAILED, why->message, &error))
        log_warning("run %s may look pending for some minutes: %s", run->name, error->message);
}

static bool start(struct run *run, struct store *root, const struct run_root *where,
                  const struct engine *engine, GError **error)
{
    if (!engine->submit(where, run, &run->engine_job, error))
        return false;
    return run_store_move(root, run, RUN_SUBMITTED, NULL, error);
}

bool submit_prepared(struct run *run, struct store *root, const struct run_root *where,
                     const char *code_dir, GError **error)
{
    const struct engine *engine = engine_find(run->engine ? run->engine : "local", error);
    g_autoptr(GError) failed = NULL;

    if (!engine || !provider_find(run->provider, error))
        return false;
    if (code_dir && !code_save(root, code_dir, &run->code_sha256, error))
        return false;
    run->submitted_ms = run_now_ms();
    if (!run_store_create(root, run, error))
        return false;
    if (start(run, root, where, engine, &failed))
        return true;
    give_up(root, run, failed);
    g_propagate_error(error, g_steal_pointer(&failed));
    return false;
}
