/* push and pull: the same copy in two directions. */
#include "runner/cli/cli.h"

#include "config/error.h"
#include "storage/keys.h"
#include "storage/remote.h"
#include "storage/transfer.h"

#include <stdio.h>
#include <string.h>

/* Copies one object as it is, when it is there. */
static bool copy_document(struct store *from, struct store *to, const char *key, GError **error)
{
    g_autofree char *data = NULL;
    size_t size;

    return store_read(from, key, 16u << 20, &data, &size, NULL, error) &&
           store_write(to, key, data, size, NULL, NULL, error);
}

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
    if (*name == ':') {
        g_autofree char *tag = keys_tag(repo, name + 1);

        return copy_document(from, to, tag, error);
    }
    return true;
}

static struct store *open_remote(struct cli_roots *roots, GError **error)
{
    bool embedded;
    const struct remote *remote = settings_remote(&roots->settings, NULL, &embedded, error);

    if (embedded)
        fprintf(stderr, "No remote is configured: using the one under %s (see dstack config)\n",
                remote->storage);
    return remote ? remote_open(remote, error) : NULL;
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
    ok = cli_roots_open(&roots, &error);
    if (ok) {
        g_autoptr(Store) remote = open_remote(&roots, &error);
        struct cli_roots only = {.repo = roots.repo};
        g_autofree char *run = NULL;
        struct store *from = NULL;

        if (remote) {
            only.local = push ? roots.local : remote;
            from = cli_resolve(&only, argv[1], &run, &error);
        }
        ok = from && copy_run(from, push ? remote : roots.local, roots.repo.id, argv[1], run,
                              &result, &error);
    }
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
