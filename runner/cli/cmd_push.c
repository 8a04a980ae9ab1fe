/* push and pull: the same copy in two directions. */
#include "runner/cli/cli.h"

#include "config/error.h"
#include "runner/cli/cli_transfer.h"
#include "runner/job/rescue.h"
#include "runner/run/kept.h"
#include "storage/keys.h"
#include "storage/remote.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* One copy: a run, or a tag whose run may be gone. */
struct copying {
    struct store *from, *to;
    const char *repo;
    char *run;
    struct tag *tag; /* NULL: no tag was asked for */
    bool has_run;    /* there is a document */
};

struct count {
    uint64_t objects, bytes;
};

static bool count_object(const struct store_object *object, void *user, GError **error)
{
    struct count *count = user;

    if (keys_is_of_mount(object->key)) /* stays where it is */
        return true;
    count->objects++;
    count->bytes += object->size_bytes;
    return true;
}

/* Each object was checked on its way; here, that none is missing or too many. */
static bool verify(const struct copying *copying, const char *prefix, GError **error)
{
    struct count here = {0}, there = {0};

    return store_list(copying->from, prefix, false, count_object, &here, error) &&
           store_list(copying->to, prefix, false, count_object, &there, error) &&
           ((here.objects == there.objects && here.bytes == there.bytes) ||
            error_set(error, EIO,
                      "%s%s has %" PRIu64 " files of %" PRIu64 " bytes, the copy %" PRIu64
                      " of %" PRIu64 ": remove the copy and try again",
                      store_url(copying->from), prefix, here.objects, here.bytes, there.objects,
                      there.bytes));
}

static bool note_one(const struct store_object *object, void *user, GError **error)
{
    *(bool *)user = true;
    return false;
}

static bool copy_artifacts(const struct copying *copying, const struct transfer_options *options,
                           struct transfer_result *result, GError **error)
{
    g_autofree char *prefix = keys_artifacts(copying->repo, copying->run);
    struct transfer_options own = *options;
    bool begun = false;

    if (!store_list(copying->to, prefix, false, note_one, &begun, error))
        return false;
    own.only_changed = begun; /* with nothing over there, nothing needs a comparison */
    return transfer_copy(copying->from, prefix, copying->to, prefix, &own, result, error) &&
           verify(copying, prefix, error);
}

/* The document last: a run that can be seen is there whole. */
static bool copy_run(const struct copying *copying, GError **error)
{
    static const char *const kinds[] = {"logs/%s/%s/", "runs/%s/%s!", "runs/%s/%s."};
    const struct transfer_options options = {.only_changed = true};

    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_auto(GStrv) parts = g_strsplit(kinds[i], "%s", 3);
        g_autofree char *prefix =
            g_strconcat(parts[0], copying->repo, parts[1], copying->run, parts[2], NULL);

        if (!transfer_copy(copying->from, prefix, copying->to, prefix, &options, NULL, error))
            return false;
    }
    return true;
}

static bool copy_all(const struct copying *copying, struct transfer_result *result, GError **error)
{
    g_autofree char *label = g_strdup_printf("Copying %s", copying->run);
    struct cli_transfer transfer;
    bool ok;

    cli_transfer_begin(&transfer, label);
    ok = copy_artifacts(copying, &transfer.options, result, error) &&
         (!copying->has_run || copy_run(copying, error));
    cli_transfer_end(&transfer);
    return ok &&
           (!copying->tag || tag_save(copying->to, copying->repo, copying->tag, false, error));
}

/* Refuses what would be wrong over there: a run that goes on here, and mixing two runs that have
 * the same name by chance. */
static bool check(struct copying *copying, GError **error)
{
    g_autoptr(GError) gone = NULL, missing = NULL;
    g_autoptr(Run) run = run_store_refresh(copying->from, copying->repo, copying->run, &gone);
    g_autoptr(Run) other = NULL;

    copying->has_run = run != NULL;
    if (!run && !(copying->tag && error_is(gone, ENOENT))) {
        g_propagate_error(error, g_steal_pointer(&gone));
        return false;
    }
    if (run && !run_status_is_final(run->status))
        return error_set(error, EBUSY, "run %s is %s: copy it when it is finished", run->name,
                         run_status_name(run->status));
    other = run_store_load(copying->to, copying->repo, copying->run, &missing);
    if (!other && !error_is(missing, ENOENT)) {
        g_propagate_error(error, g_steal_pointer(&missing));
        return false;
    }
    return !other || (run && strcmp(other->id, run->id) == 0) ||
           error_set(error, EEXIST, "%s has another run called %s: remove one of the two",
                     store_url(copying->to), copying->run);
}

/* A tag is not moved by a copy: said before anything is copied. */
static bool check_tag(const struct copying *copying, GError **error)
{
    g_autoptr(Tag) theirs =
        copying->tag ? tag_load(copying->to, copying->repo, copying->tag->name, NULL) : NULL;

    return !theirs || strcmp(theirs->run, copying->run) == 0 ||
           tag_check_free(copying->to, copying->repo, copying->tag->name, error);
}

static bool copy_between(struct cli_roots *roots, const char *name, bool push,
                         struct transfer_result *result, GError **error)
{
    struct copying copying = {.repo = roots->repo.id};
    bool embedded, ok;
    const struct remote *where = settings_remote(&roots->settings, NULL, &embedded, error);
    g_autoptr(Store) remote = where ? remote_open(where, error) : NULL;

    if (!remote)
        return false;
    copying.from = push ? roots->local : remote;
    copying.to = push ? remote : roots->local;
    ok = cli_resolve_in(copying.from, copying.repo, name, &copying.run, &copying.tag, error) &&
         check(&copying, error) && check_tag(&copying, error);
    if (ok && embedded)
        fprintf(stderr, "No remote is configured: using the one under %s (see dstack config)\n",
                where->storage);
    ok = ok && copy_all(&copying, result, error);
    tag_free(copying.tag);
    g_free(copying.run);
    return ok;
}

/* What a run could not save at its end is saved now. ROOT has it; *SAVED: there was something. */
static bool rescue(struct store *root, const char *repo, const char *name, bool *saved,
                   GError **error)
{
    g_autofree char *label = g_strdup_printf("Saving %s", name);
    g_autoptr(Run) run = run_store_refresh(root, repo, name, error);
    struct cli_transfer transfer;
    bool ok;

    *saved = run && run_can_be_rescued(run);
    if (!*saved)
        return run != NULL;
    cli_transfer_begin(&transfer, label);
    ok = run_rescue(root, run, &transfer.options, error);
    cli_transfer_end(&transfer);
    if (ok)
        fprintf(stderr, "Saved what %s could not save at its end\n", name);
    return ok;
}

/* A run here is copied; one that is a remote's has at most something to be saved. */
static bool push(struct cli_roots *roots, const char *name, struct transfer_result *result,
                 GError **error)
{
    g_autofree char *run = NULL;
    g_autoptr(Tag) tag = NULL;
    struct store *root = cli_resolve(roots, name, &run, &tag, error);
    g_autoptr(GError) gone = NULL;
    bool saved = false;

    if (!root)
        return false;
    if (!rescue(root, roots->repo.id, run, &saved, &gone) && !(tag && error_is(gone, ENOENT))) {
        g_propagate_error(error, g_steal_pointer(&gone));
        return false;
    }
    if (root == roots->local)
        return copy_between(roots, name, true, result, error);
    return saved || error_set(error, EEXIST, "%s is on %s already", name, store_url(root));
}

static int copy(const struct command *command, int argc, char **argv, bool is_push)
{
    struct transfer_result result = {0};
    struct cli_roots roots;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, NULL, &argc, &argv, 1, 1, &status))
        return status;
    ok = cli_roots_open(&roots, &error) &&
         (is_push ? push(&roots, argv[1], &result, &error)
                  : copy_between(&roots, argv[1], false, &result, &error));
    cli_roots_clear(&roots);
    if (ok)
        fprintf(stderr, "%" PRIu64 " files copied, %" PRIu64 " already there\n", result.files,
                result.skipped);
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
