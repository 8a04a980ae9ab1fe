#include "runner/run/kept.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/job/left_over.h"
#include "runner/run/run_store.h"
#include "runner/submit/code.h"
#include "runner/work_dir.h"
#include "storage/keys.h"
#include <glib/gstdio.h>
#include <string.h>

/* A document in tags/ that cannot be read may hold any run: EBUSY, unless another tag does. */
static bool is_tagged(struct store *root, const char *repo, const char *run, bool *tagged,
                      GError **error)
{
    g_autoptr(GPtrArray) unread = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) tags = tags_load(root, repo, unread, error);

    *tagged = false;
    for (guint i = 0; tags && i < tags->len; i++)
        if (strcmp(((const struct tag *)tags->pdata[i])->run, run) == 0)
            *tagged = true;
    if (tags && !*tagged && unread->len)
        return error_set(error, EBUSY, "the artifacts of %s stay, since a tag may hold them: %s",
                         run, (const char *)unread->pdata[0]);
    return tags != NULL;
}

/* COUNT (may be NULL): how many objects went. */
static bool release(struct store *root, const char *repo, const char *run, bool *tagged,
                    uint64_t *count, GError **error)
{
    g_autofree char *prefix = keys_artifacts(repo, run);
    g_autoptr(GError) why = NULL;
    bool has_run;

    if (!run_store_has(root, repo, run, &has_run, error) ||
        !is_tagged(root, repo, run, tagged, error))
        return false;
    if (has_run || *tagged)
        return true;
    if (!store_abort_uploads(root, prefix, &why)) /* of a mount that ended badly */
        log_warning("uploads that were not finished may stay below %s: %s", prefix, why->message);
    return store_delete_prefix(root, prefix, count, error);
}

static char **paths_of_run(const struct run *run)
{
    char **paths = g_new0(char *, run->artifacts->len + 1);

    for (guint i = 0; i < run->artifacts->len; i++)
        paths[i] = g_strdup(((const struct run_artifact *)run->artifacts->pdata[i])->path);
    return paths;
}

/* The run was removed at the same moment: a tag of nothing must not stay. */
static bool check_still_there(struct store *root, const struct run *run, const struct tag *tag,
                              GError **error)
{
    bool has;

    if (!run_store_has(root, run->repo, run->name, &has, error))
        return false;
    if (has)
        return true;
    return kept_remove_tag(root, run->repo, tag, error) &&
           error_set(error, ENOENT, "run %s was removed just now", run->name);
}

bool kept_tag_save(struct store *root, const char *repo, const struct tag *tag, bool move,
                   GError **error)
{
    g_autoptr(Tag) old = move ? tag_load(root, repo, tag->name, NULL) : NULL;
    bool tagged;

    return tag_save(root, repo, tag, move, error) &&
           (!old || release(root, repo, old->run, &tagged, NULL, error));
}

bool kept_tag_run(struct store *root, const struct run *run, const char *name, bool move,
                  GError **error)
{
    g_autoptr(Tag) tag = tag_new(name, run->name);

    tag->artifacts = paths_of_run(run);
    return kept_tag_save(root, run->repo, tag, move, error) &&
           check_still_there(root, run, tag, error);
}

bool kept_remove_tag(struct store *root, const char *repo, const struct tag *tag, GError **error)
{
    g_autofree char *key = keys_tag(repo, tag->name);
    bool tagged;

    return store_delete(root, key, error) && release(root, repo, tag->run, &tagged, NULL, error);
}

/* What the run left on this machine: its runner's messages, and a work directory kept because it
 * could not be saved. */
static bool remove_local_remains(const struct run *run, GError **error)
{
    g_autofree char *messages = work_dir_messages(run), *output = work_dir_output(run);

    g_unlink(messages); /* of another machine's runner there is none */
    g_unlink(output);
    return left_over_remove(run, error);
}

/* The document last: whoever is cut off can begin again. */
static bool remove_document(struct store *root, const struct run *run, GError **error)
{
    if (run_status_is_final(run->status) &&
        (!remove_local_remains(run, error) ||
         (run->code_sha256 && !code_release(root, run->code_sha256, run->id, error))))
        return false;
    return run_store_remove(root, run->repo, run->name, error);
}

bool kept_remove_run(struct store *root, const char *repo, const char *name, bool *tagged,
                     GError **error)
{
    g_autoptr(GError) missing = NULL;
    g_autoptr(Run) run = run_store_refresh(root, repo, name, &missing);
    uint64_t count = 0;

    if (!run && !error_is(missing, ENOENT)) {
        g_propagate_error(error, g_steal_pointer(&missing));
        return false;
    }
    if (run && (!is_tagged(root, repo, name, tagged, error) || /* before anything goes */
                !remove_document(root, run, error)))
        return false;
    if (!release(root, repo, name, tagged, &count, error))
        return false;
    if (run || count)
        return true;
    g_propagate_error(error, g_steal_pointer(&missing));
    return false;
}

/* --- which there are --- */

struct found {
    size_t skip;
    GPtrArray *paths;
};

static bool add_path(const struct store_object *object, void *user, GError **error)
{
    struct found *found = user;

    if (g_str_has_suffix(object->key, "/"))
        g_ptr_array_add(found->paths, g_strndup(object->key + found->skip,
                                                strlen(object->key) - found->skip - 1));
    return true;
}

char **kept_artifacts(struct store *root, const char *repo, const char *name, const struct tag *tag,
                      GError **error)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *top = keys_artifacts(repo, name);
    struct found found = {strlen(top), paths};
    g_autoptr(GError) missing = NULL;
    g_autoptr(Run) run = NULL;

    if (tag && tag->artifacts)
        return g_strdupv(tag->artifacts);
    run = run_store_load(root, repo, name, &missing);
    if (run)
        return paths_of_run(run);
    if (!error_is(missing, ENOENT)) {
        g_propagate_error(error, g_steal_pointer(&missing));
        return NULL;
    }
    if (!store_list(root, top, true, add_path, &found, error))
        return NULL;
    g_ptr_array_add(paths, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&paths), FALSE);
}
