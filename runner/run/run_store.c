#include "runner/run/run_store.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/engine/engine.h"
#include "runner/run/lost.h"
#include "runner/run/run_marker.h"
#include "runner/run/run_name.h"
#include <stdatomic.h>
#include <string.h>

enum { DOCUMENT_MAX = 4 * 1024 * 1024, NAME_TRIES = 100 };

static char *run_key(const char *repo, const char *name, const char *suffix)
{
    return g_strdup_printf("runs/%s/%s.%s", repo, name, suffix);
}

static bool check_names(const char *repo, const char *name, GError **error)
{
    if (!run_name_is_valid(repo))
        return error_set(error, EINVAL, "\"%s\" cannot be the name of a repo", repo);
    if (!run_name_is_valid(name))
        return error_set(error, EINVAL, "\"%s\" cannot be the name of a run", name);
    return true;
}

/* --- writing the document --- */

/* What a store without conditional writes leaves us: compare, then write. */
static bool compare_first(struct store *root, const char *key, const char *condition,
                          GError **error)
{
    static atomic_flag warned = ATOMIC_FLAG_INIT;
    g_autoptr(GError) missing = NULL;
    struct store_object object = {0};
    bool same;

    if (!atomic_flag_test_and_set(&warned))
        log_warning("%s has no conditional writes: two writers of one run at the same instant are "
                    "not told apart",
                    store_url(root));
    if (!store_head(root, key, &object, &missing)) {
        if (error_is(missing, ENOENT) && !*condition)
            return true;
        g_propagate_error(error, g_steal_pointer(&missing));
        return false;
    }
    same = g_strcmp0(object.etag, condition) == 0;
    store_object_clear(&object);
    if (same)
        return true;
    return error_set(error, *condition ? ESTALE : EEXIST, "%s was written by someone else", key);
}

/* One try, over what run->etag says is there. */
static bool try_write(struct store *root, struct run *run, GError **error)
{
    const struct store_caps *caps = store_caps(root);
    g_autofree char *key = run_key(run->repo, run->name, "json");
    const char *condition = run->etag ? run->etag : "";
    g_autofree char *text = NULL, *etag = NULL;
    size_t size;

    if (run->etag ? !caps->has_put_if_match : !caps->has_put_if_absent) {
        if (!compare_first(root, key, condition, error))
            return false;
        condition = NULL;
    }
    run->revision++;
    text = run_format(run, &size);
    if (!store_write(root, key, text, size, condition, &etag, error)) {
        run->revision--;
        return false;
    }
    g_free(run->etag);
    run->etag = g_steal_pointer(&etag);
    return true;
}

/* A try that was answered with an error may have been carried out all the same, then or later: what
 * is there is our own word. The next one goes over it. */
static bool find_landed(struct store *root, struct run *run, const GError *refused)
{
    g_autofree char *key = run_key(run->repo, run->name, "json");
    g_autofree char *data = NULL, *etag = NULL;
    g_autoptr(Run) there = NULL;
    size_t size;

    if ((!error_is(refused, ESTALE) && !error_is(refused, EEXIST)) ||
        !store_read(root, key, DOCUMENT_MAX, &data, &size, &etag, NULL))
        return false;
    there = run_parse(run->repo, run->name, data, size, NULL);
    if (!there || g_strcmp0(there->write_id, run->write_id) != 0)
        return false;
    g_free(run->etag);
    run->etag = g_steal_pointer(&etag);
    run->revision = there->revision;
    return true;
}

static bool write_document(struct store *root, struct run *run, GError **error)
{
    g_autoptr(GError) refused = NULL;

    if (!run->write_id)
        run->write_id = g_uuid_string_random();
    if (!try_write(root, run, &refused) &&
        !(find_landed(root, run, refused) && try_write(root, run, error))) {
        if (!error || !*error)
            g_propagate_error(error, g_steal_pointer(&refused));
        return false;
    }
    g_clear_pointer(&run->write_id, g_free);
    return true;
}

/* The document is written; a marker that is behind is repaired by the next listing. */
static void write_marker(struct store *root, const struct run *run)
{
    g_autoptr(GError) error = NULL;

    if (!run_marker_write(root, run, &error))
        log_warning("the listing of runs is behind for a moment: %s", error->message);
}

static bool same(char **read, char **written)
{
    char *none[] = {NULL};

    return g_strv_equal((const char *const *)read, (const char *const *)(written ? written : none));
}

bool run_store_check(struct run *run, GError **error)
{
    bool unnamed = run->name == NULL, readable;
    g_autofree char *text = NULL;
    g_autoptr(Run) read = NULL;
    size_t size;

    if (unnamed)
        run->name = g_strdup("unnamed");
    text = run_format(run, &size);
    read = run_parse(run->repo, run->name, text, size, error);
    readable = read && same(read->commands, run->commands) && same(read->args, run->args) &&
               same(read->env, run->env);
    if (read && !readable)
        error_set(error, EILSEQ, "commands, arguments and environment of a run must be UTF-8");
    if (unnamed)
        g_clear_pointer(&run->name, g_free);
    return readable;
}

bool run_store_create(struct store *root, struct run *run, GError **error)
{
    bool choose = run->name == NULL;

    for (int i = 0; i < NAME_TRIES; i++) {
        g_autoptr(GError) taken = NULL;

        if (choose) {
            g_free(run->name);
            run->name = run_name_choose(root, run->repo, error);
        }
        if (!run->name || !check_names(run->repo, run->name, error) || !run_store_check(run, error))
            return false;
        if (write_document(root, run, &taken)) {
            write_marker(root, run);
            return true;
        }
        if (!choose || !error_is(taken, EEXIST)) {
            g_propagate_error(error, g_steal_pointer(&taken));
            return false;
        }
    }
    return error_set(error, EEXIST, "no free name for a run was found in %d tries", NAME_TRIES);
}

bool run_store_save(struct store *root, struct run *run, GError **error)
{
    return write_document(root, run, error);
}

bool run_store_move(struct store *root, struct run *run, enum run_status to, const char *reason,
                    GError **error)
{
    enum run_status from = run->status;
    g_autofree char *old_reason = g_strdup(run->reason);

    if (!run_status_may(from, to))
        return error_set(error, EPERM, "run %s is %s: it cannot become %s", run->name,
                         run_status_name(from), run_status_name(to));
    run->status = to;
    if (reason) {
        g_free(run->reason);
        run->reason = g_strdup(reason);
    }
    if (run_status_is_final(to) && !run->finished_ms)
        run->finished_ms = run_now_ms();
    if (write_document(root, run, error)) {
        write_marker(root, run);
        return true;
    }
    run->status = from;
    g_free(run->reason);
    run->reason = g_steal_pointer(&old_reason);
    return false;
}

/* --- reading --- */

bool run_store_has(struct store *root, const char *repo, const char *name, bool *has,
                   GError **error)
{
    g_autofree char *key = run_key(repo, name, "json");

    return store_has(root, key, has, error);
}

struct run *run_store_load(struct store *root, const char *repo, const char *name, GError **error)
{
    g_autofree char *key = run_key(repo, name, "json");
    g_autofree char *data = NULL, *etag = NULL;
    g_autoptr(GError) missing = NULL;
    struct run *run;
    size_t size;

    if (!check_names(repo, name, error))
        return NULL;
    if (!store_read(root, key, DOCUMENT_MAX, &data, &size, &etag, &missing)) {
        if (error_is(missing, ENOENT))
            error_set(error, ENOENT, "there is no run %s in %s: see dstack ps -a", name, repo);
        else
            g_propagate_error(error, g_steal_pointer(&missing));
        return NULL;
    }
    run = run_parse(repo, name, data, size, error);
    if (!run)
        return NULL;
    run->etag = g_steal_pointer(&etag);
    g_clear_pointer(&run->write_id, g_free); /* another's; ours is made when we write */
    return run;
}

struct run *run_store_refresh(struct store *root, const char *repo, const char *name,
                              GError **error)
{
    g_autoptr(Run) run = run_store_load(root, repo, name, error);
    g_autoptr(GError) raced = NULL;
    struct run_fate fate = {0};
    bool settled;

    if (!run || !run_find_fate(root, run, &fate, error))
        return NULL;
    settled = !fate.is_lost || run_settle_lost(root, run, &fate, &raced);
    g_free(fate.reason);
    if (settled)
        return g_steal_pointer(&run);
    if (error_is(raced, ESTALE)) /* someone else settled it, or the runner came back */
        return run_store_load(root, repo, name, error);
    log_warning("run %s is lost, and that cannot be noted: %s", name, raced->message);
    run->status = RUN_FAILED; /* true all the same */
    g_free(run->reason);
    run->reason = run_lost_reason(run);
    return g_steal_pointer(&run);
}

/* --- the wish to stop --- */

bool run_store_stop_wish(struct store *root, const char *repo, const char *name,
                         enum stop_wish *wish, GError **error)
{
    g_autofree char *key = run_key(repo, name, "stop");
    g_autoptr(GError) missing = NULL;
    g_autofree char *data = NULL;
    size_t size;

    *wish = STOP_NONE;
    if (!store_read(root, key, 64, &data, &size, NULL, &missing)) {
        if (error_is(missing, ENOENT))
            return true;
        g_propagate_error(error, g_steal_pointer(&missing));
        return false;
    }
    *wish = strcmp(data, "abort") == 0 ? STOP_ABORT : STOP_GRACEFUL;
    return true;
}

void run_store_remove_signs(struct store *root, const struct run *run)
{
    static const char *const suffixes[] = {"beat", "stop"};
    guint count = run->status == RUN_INTERRUPTED ? 1 : 2; /* a wish outlives an interruption */

    for (guint i = 0; i < count; i++) {
        g_autofree char *key = run_key(run->repo, run->name, suffixes[i]);
        g_autoptr(GError) error = NULL;

        if (!store_delete(root, key, &error))
            log_warning("%s", error->message);
    }
    if (run->lifetime.nodes > 1) {
        g_autofree char *ranks = run_key(run->repo, run->name, "rank-");
        g_autoptr(GError) error = NULL;

        if (!store_delete_prefix(root, ranks, NULL, &error))
            log_warning("%s", error->message);
    }
}

/* Nobody has the run yet: end it here. ESTALE: somebody has it now. */
static bool end_unowned(struct store *root, struct run *run, bool abort, GError **error)
{
    enum run_status way = abort ? RUN_ABORTING : RUN_STOPPING;
    const struct engine *engine = run->engine_job ? engine_of(run, NULL) : NULL;
    g_autoptr(GError) queued = NULL;

    if (run->status != way && !run_store_move(root, run, way, NULL, error))
        return false;
    if (engine && engine->requeues && !engine->cancel(run, &queued))
        log_warning("%s; the job ends as soon as it starts", queued->message);
    if (!run_store_move(root, run, abort ? RUN_ABORTED : RUN_STOPPED, NULL, error))
        return false;
    run_store_remove_signs(root, run);
    return true;
}

/* The run may have ended between the look at it and the wish, which nobody heeds then. One that
 * ends from now on removes it. */
static bool withdraw_late(struct store *root, const struct run *run, GError **error)
{
    g_autoptr(Run) now = run_store_load(root, run->repo, run->name, error);

    if (!now)
        return false;
    if (!run_status_is_final(now->status))
        return true;
    run_store_remove_signs(root, now);
    return now->status == RUN_STOPPED || now->status == RUN_ABORTED ||
           error_set(error, EPERM, "run %s is finished already: %s", now->name,
                     run_status_name(now->status));
}

bool run_store_request_stop(struct store *root, const char *repo, const char *name, bool abort,
                            GError **error)
{
    g_autofree char *key = run_key(repo, name, "stop");
    g_autoptr(Run) run = run_store_refresh(root, repo, name, error);
    const char *text = abort ? "abort" : "stop";
    g_autoptr(GError) raced = NULL;
    enum stop_wish before;

    if (!run)
        return false;
    if (run_status_is_final(run->status))
        return error_set(error, EPERM, "run %s is finished already: %s", name,
                         run_status_name(run->status));
    if (!run_store_stop_wish(root, repo, name, &before, error))
        return false;
    if (before != STOP_ABORT && !store_write(root, key, text, strlen(text), NULL, NULL, error))
        return false;
    if (!run->owner.host && !end_unowned(root, run, abort || before == STOP_ABORT, &raced) &&
        !error_is(raced, ESTALE)) { /* else a runner has it since: it will see the wish */
        g_propagate_error(error, g_steal_pointer(&raced));
        return false;
    }
    return withdraw_late(root, run, error);
}

/* --- removing --- */

bool run_store_remove(struct store *root, const char *repo, const char *name, GError **error)
{
    g_autofree char *logs = g_strdup_printf("logs/%s/%s/", repo, name);
    g_autofree char *markers = g_strdup_printf("runs/%s/%s!", repo, name);
    g_autofree char *ranks = run_key(repo, name, "rank-");
    static const char *const SUFFIXES[] = {"stop", "beat", "progress", "json"};
    g_autoptr(Run) run = run_store_refresh(root, repo, name, error);

    if (!run)
        return false;
    if (!run_status_is_final(run->status))
        return error_set(error, EPERM, "run %s is %s: stop it first", name,
                         run_status_name(run->status));
    if (!store_delete_prefix(root, logs, NULL, error) ||
        !store_delete_prefix(root, markers, NULL, error) ||
        !store_delete_prefix(root, ranks, NULL, error))
        return false;
    for (guint i = 0; i < G_N_ELEMENTS(SUFFIXES); i++) {
        g_autofree char *key = run_key(repo, name, SUFFIXES[i]);

        if (!store_delete(root, key, error))
            return false;
    }
    return true;
}
