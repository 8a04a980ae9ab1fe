#include "runner/cli/cli.h"

#include "config/artifact_path.h"
#include "config/error.h"
#include "config/units.h"
#include "runner/cli/cli_transfer.h"
#include "runner/run/kept.h"
#include "storage/keys.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] = "usage: dstack tags [--json | add RUN TAG [-y] | add TAG -a PATH… [-y] "
                            "| delete TAG [-y]]\n";

/* --- listing --- */

static gint newest_first(gconstpointer a, gconstpointer b)
{
    const struct tag *x = *(struct tag *const *)a, *y = *(struct tag *const *)b;

    return x->created_ms != y->created_ms ? (x->created_ms < y->created_ms ? 1 : -1)
                                          : strcmp(x->name, y->name);
}

struct found {
    GPtrArray *all;
    GHashTable *seen;
};

/* A tag that was pushed is shown once. */
static bool add_tags(struct cli_roots *roots, struct store *root, void *user, GError **error)
{
    g_autoptr(GPtrArray) tags = tags_load(root, roots->repo.id, NULL, error);
    struct found *found = user;

    for (guint i = 0; tags && i < tags->len; i++) {
        struct tag *tag = tags->pdata[i];

        if (!g_hash_table_add(found->seen, tag->name))
            continue;
        tags->pdata[i] = NULL;
        g_ptr_array_add(found->all, tag);
    }
    return tags != NULL;
}

static void print_json(GPtrArray *tags)
{
    json_t *list = json_array();
    char *text;

    for (guint i = 0; i < tags->len; i++) {
        const struct tag *tag = tags->pdata[i];

        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:s?, s:s?}", "tag", tag->name, "created_ms",
                                        (json_int_t)tag->created_ms, "run",
                                        tag->is_folder ? NULL : tag->run, "owner", tag->owner));
    }
    text = json_dumps(list, JSON_INDENT(2));
    puts(text);
    free(text);
    json_decref(list);
}

static void print_table(GPtrArray *tags)
{
    static const char *const heads[] = {"TAG", "CREATED", "RUN", "OWNER"};
    struct cli_table table;

    cli_table_init(&table, G_N_ELEMENTS(heads));
    for (guint i = 0; i < G_N_ELEMENTS(heads); i++)
        cli_table_add(&table, heads[i]);
    for (guint i = 0; i < tags->len; i++) {
        const struct tag *tag = tags->pdata[i];
        g_autofree char *ago = ago_format(tag->created_ms, run_now_ms());

        cli_table_add(&table, tag->name);
        cli_table_add(&table, ago);
        cli_table_add(&table, tag->is_folder ? "" : tag->run);
        cli_table_add(&table, tag->owner ? tag->owner : "");
    }
    cli_table_print(&table);
}

static bool list(struct cli_roots *roots, bool json)
{
    g_autoptr(GPtrArray) tags = g_ptr_array_new_with_free_func((GDestroyNotify)tag_free);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    struct found found = {tags, seen};
    bool complete = cli_each_root(roots, add_tags, &found);

    if (!complete && !tags->len)
        return false;
    g_ptr_array_sort(tags, newest_first);
    if (json)
        print_json(tags);
    else
        print_table(tags);
    return complete;
}

/* --- adding --- */

/* The seed writes `tags add RUN TAG`, the original took TAG RUN: the one that is a run is the run.
 */
static bool add(struct cli_roots *roots, const char *first, const char *second, bool move,
                GError **error)
{
    g_autoptr(GError) why = NULL;
    struct store *root = cli_find_run(roots, first, &why);
    const char *name = first, *tag = second;
    g_autoptr(Run) run = NULL;

    if (!root && error_is(why, ENOENT)) {
        g_clear_error(&why);
        root = cli_find_run(roots, second, &why);
        name = second;
        tag = first;
    }
    if (!root && error_is(why, ENOENT))
        return error_set(error, ENOENT, "neither %s nor %s is a run; see dstack ps -a", first,
                         second);
    if (!root) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    run = run_store_load(root, roots->repo.id, name, error);
    return run && kept_tag_run(root, run, tag, move, error);
}

/* Paths as artifacts: checked before anything is uploaded. */
static bool add_paths(struct tag *tag, char **folders, GError **error)
{
    tag->artifacts = g_new0(char *, g_strv_length(folders) + 1);
    for (guint i = 0; folders[i]; i++) {
        tag->artifacts[i] = artifact_path_normalise(folders[i]);
        if (!tag->artifacts[i])
            return error_set(error, EINVAL, "-a %s: name a directory, not above this one and not /",
                             folders[i]);
        if (!g_file_test(folders[i], G_FILE_TEST_IS_DIR))
            return error_set(error, ENOTDIR, "-a %s: there is no such directory", folders[i]);
        for (guint j = 0; j < i; j++)
            if (artifact_paths_clash(tag->artifacts[i], tag->artifacts[j]))
                return error_set(error, EINVAL, "-a %s and -a %s would be stored in one place",
                                 folders[j], folders[i]);
    }
    return true;
}

static bool upload(struct store *root, const char *repo, const struct tag *tag, char **folders,
                   GError **error)
{
    for (guint i = 0; folders[i]; i++) {
        g_autofree char *prefix = run_artifact_prefix(repo, tag->run, tag->artifacts[i]);
        g_autofree char *label = g_strdup_printf("Uploading %s", folders[i]);
        struct cli_transfer transfer;
        bool ok;

        cli_transfer_begin(&transfer, label);
        transfer.options.only_changed = false;
        ok = transfer_upload(folders[i], root, prefix, &transfer.options, NULL, error);
        cli_transfer_end(&transfer);
        if (!ok)
            return false;
    }
    return true;
}

/* The tag appears when everything is there; what failed leaves nothing. */
static bool add_folders(struct cli_roots *roots, const char *name, char **folders, bool move,
                        GError **error)
{
    g_autofree char *place = g_strdup_printf("TAG.%08x%08x", g_random_int(), g_random_int());
    g_autofree char *prefix = keys_artifacts(roots->repo.id, place);
    g_autoptr(Tag) tag = tag_new(name, place);

    tag->is_folder = true;
    if (!add_paths(tag, folders, error) ||
        (!move && !tag_check_free(roots->local, roots->repo.id, name, error)))
        return false;
    if (upload(roots->local, roots->repo.id, tag, folders, error) &&
        kept_tag_save(roots->local, roots->repo.id, tag, move, error))
        return true;
    store_delete_prefix(roots->local, prefix, NULL, NULL);
    return false;
}

/* --- deleting --- */

/* It is damaged, and keeps every run: only the document goes. */
static bool remove_unreadable(struct store *root, const char *repo, const char *name,
                              const GError *why, GError **error)
{
    g_autofree char *key = keys_tag(repo, name);

    fprintf(stderr, "%s: deleted; what it held is not known, and stays\n", why->message);
    return store_delete(root, key, error);
}

static bool delete_tag(struct cli_roots *roots, const char *name, GError **error)
{
    bool found = false;

    for (unsigned i = 0; i < cli_roots_count(roots); i++) {
        struct store *root = cli_root(roots, i, error);
        g_autoptr(GError) why = NULL;
        g_autoptr(Tag) tag = root ? tag_load(root, roots->repo.id, name, &why) : NULL;

        if (!root)
            return false;
        if (!tag && error_is(why, EINVAL) && keys_name_is_valid(name)) {
            if (!remove_unreadable(root, roots->repo.id, name, why, error))
                return false;
        } else if (!tag && !error_is(why, ENOENT)) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        if (tag && !kept_remove_tag(root, roots->repo.id, tag, error))
            return false;
        found = found || tag || error_is(why, EINVAL);
    }
    return found ? true : error_set(error, ENOENT, "no tag %s; see dstack tags", name);
}

struct options {
    gboolean yes, json;
    char **folders;
};

/* -1: called wrongly. */
static int act(struct cli_roots *roots, int argc, char **argv, const struct options *options,
               GError **error)
{
    const char *verb = argc > 1 ? argv[1] : "list";

    if (strcmp(verb, "add") != 0 && options->folders)
        return -1;
    if (argc == 1)
        return list(roots, options->json);
    if (strcmp(verb, "add") == 0 && argc == 4 && !options->folders)
        return add(roots, argv[2], argv[3], options->yes, error);
    if (strcmp(verb, "add") == 0 && argc == 3 && options->folders)
        return add_folders(roots, argv[2], options->folders, options->yes, error);
    if (strcmp(verb, "delete") != 0 || argc != 3)
        return -1;
    if (!options->yes && !cli_confirm("Delete the tag?", true))
        return error_set(error, ECANCELED, "tag %s stays", argv[2]);
    return delete_tag(roots, argv[2], error);
}

static int run(const struct command *command, int argc, char **argv)
{
    struct options options = {0};
    const GOptionEntry entries[] = {
        {"artifact", 'a', 0, G_OPTION_ARG_FILENAME_ARRAY, &options.folders,
         "Tag this directory, without a run", "PATH"},
        {"yes", 'y', 0, G_OPTION_ARG_NONE, &options.yes,
         "Do not ask; take the tag from another run", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "Print JSON", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    struct cli_roots roots;
    GError *error = NULL;
    int status, ok = false;

    if (!cli_parse(command, entries, &argc, &argv, 0, 3, &status))
        return status;
    if (cli_roots_open(&roots, &error))
        ok = act(&roots, argc, argv, &options, &error);
    cli_roots_clear(&roots);
    g_strfreev(options.folders);
    if (ok < 0)
        fputs(usage, stderr);
    return ok < 0 ? 2 : ok ? 0 : cli_fail(error);
}

const struct command cmd_tags = {"tags", "[add RUN TAG | add TAG -a PATH… | delete TAG]",
                                 "Lists, adds and deletes tags.", run};
