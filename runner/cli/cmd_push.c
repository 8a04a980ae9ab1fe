/* push and pull: the same copy in two directions. */
#include "runner/cli/cli.h"

#include "config/error.h"
#include "storage/keys.h"
#include "storage/remote.h"
#include "storage/transfer.h"

#include <stdio.h>
#include <string.h>

/* Artifacts first: a run that can be seen is there whole. */
static bool copy_run(struct store *from, struct store *to, const char *repo, const char *name,
                     const char *run, struct transfer_result *result, GError **error)
{
    const struct transfer_options options = {.only_changed = true};
    g_autofree char *artifacts = keys_artifacts(repo, run);
    g_autofree char *state = g_strdup_printf("runs/%s/%s.", repo, run);
    g_autofree char *logs = g_strdup_printf("logs/%s/%s/", repo, run);

    if (!transfer_copy(from, artifacts, to, artifacts, &options, result, error) ||
        !transfer_copy(from, logs, to, logs, &options, NULL, error) ||
        !transfer_copy(from, state, to, state, &options, NULL, error))
        return false;
    return *name != ':' || tag_save(to, repo, name + 1, run, false, error);
}

/* Refuses what would be wrong over there: a run that goes on here, and mixing two runs that have
 * the same name by chance. */
static bool check(struct store *from, struct store *to, const char *repo, const char *name,
                  GError **error)
{
    g_autoptr(Run) run = run_store_refresh(from, repo, name, error), other = NULL;
    g_autoptr(GError) missing = NULL;

    if (!run)
        return false;
    if (!run_status_is_final(run->status))
        return error_set(error, EBUSY, "run %s is %s: copy it when it is finished", name,
                         run_status_name(run->status));
    other = run_store_load(to, repo, name, &missing);
    if (!other && !error_is(missing, ENOENT)) {
        g_propagate_error(error, g_steal_pointer(&missing));
        return false;
    }
    return !other || strcmp(other->id, run->id) == 0 ||
           error_set(error, EEXIST, "%s has another run called %s: remove one of the two",
                     store_url(to), name);
}

static bool copy_between(struct cli_roots *roots, const char *name, bool push,
                         struct transfer_result *result, GError **error)
{
    bool embedded;
    const struct remote *where = settings_remote(&roots->settings, NULL, &embedded, error);
    g_autoptr(Store) remote = where ? remote_open(where, error) : NULL;
    struct store *from = push ? roots->local : remote, *to = push ? remote : roots->local;
    g_autofree char *run = NULL;

    if (!remote || !cli_resolve_in(from, roots->repo.id, name, &run, error) ||
        !check(from, to, roots->repo.id, run, error))
        return false;
    if (embedded)
        fprintf(stderr, "No remote is configured: using the one under %s (see dstack config)\n",
                where->storage);
    return copy_run(from, to, roots->repo.id, name, run, result, error);
}

static int copy(const struct command *command, int argc, char **argv, bool push)
{
    struct transfer_result result = {0};
    struct cli_roots roots;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, NULL, &argc, &argv, 1, 1, &status))
        return status;
    ok = cli_roots_open(&roots, &error) && copy_between(&roots, argv[1], push, &result, &error);
    cli_roots_clear(&roots);
    if (ok)
        fprintf(stderr, "%" G_GUINT64_FORMAT " files copied, %" G_GUINT64_FORMAT " already there\n",
                result.files, result.skipped);
    return ok ? 0 : cli_fail(error);
}

static int run_push(const struct command *command, int argc, char **argv)
{
    return copy(command, argc, argv, true);
}

static int run_pull(const struct command *command, int argc, char **argv)
{
    return copy(command, argc, argv, false);
}

const struct command cmd_push = {"push", "RUN|:TAG", "Copies a local run to the remote.", run_push};
const struct command cmd_pull = {"pull", "RUN|:TAG", "Copies a remote run here.", run_pull};
