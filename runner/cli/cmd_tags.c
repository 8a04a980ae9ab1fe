#include "runner/cli/cli.h"

#include "config/error.h"
#include "config/units.h"
#include "storage/keys.h"
#include "storage/remote.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct listing {
    struct cli_table table;
    struct store *root;
    const char *repo;
    GHashTable *seen;
};

static bool add_tag(const struct store_object *object, void *user, GError **error)
{
    struct listing *listing = user;
    g_autofree char *prefix = keys_tags(listing->repo), *tag = NULL, *run = NULL, *ago = NULL;

    if (!g_str_has_suffix(object->key, ".json"))
        return true;
    tag = g_strdup(object->key + strlen(prefix));
    tag[strlen(tag) - strlen(".json")] = '\0';
    if (!keys_name_is_valid(tag) || g_hash_table_contains(listing->seen, tag) ||
        !tag_load(listing->root, listing->repo, tag, &run, NULL))
        return true;
    ago = ago_format(object->mtime_ns / 1000000, run_now_ms());
    cli_table_add(&listing->table, tag);
    cli_table_add(&listing->table, ago);
    cli_table_add(&listing->table, run);
    g_hash_table_add(listing->seen, g_steal_pointer(&tag));
    return true;
}

static bool list_tags(struct cli_roots *roots, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autofree char *prefix = keys_tags(roots->repo.id);
    struct listing listing = {.repo = roots->repo.id, .seen = seen};
    bool ok = true;

    cli_table_init(&listing.table, 3);
    cli_table_add(&listing.table, "TAG");
    cli_table_add(&listing.table, "CREATED");
    cli_table_add(&listing.table, "RUN");
    for (unsigned i = 0; ok && i < cli_roots_count(roots); i++) {
        listing.root = cli_root(roots, i, error);
        ok = listing.root && store_list(listing.root, prefix, false, add_tag, &listing, error);
    }
    cli_table_print(&listing.table);
    return ok;
}

/* The seed writes `tags add RUN TAG`, the original took TAG RUN: the one that is a run is the run.
 */
static bool add(struct cli_roots *roots, const char *first, const char *second, bool move,
                GError **error)
{
    g_autoptr(GError) why = NULL;
    struct store *root = cli_find_run(roots, first, &why);
    const char *run = first, *tag = second;

    if (!root && error_is(why, ENOENT)) {
        g_clear_error(&why);
        root = cli_find_run(roots, second, &why);
        run = second;
        tag = first;
    }
    if (!root && error_is(why, ENOENT))
        return error_set(error, ENOENT, "neither %s nor %s is a run; see dstack ps -a", first,
                         second);
    if (!root) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    return tag_save(root, roots->repo.id, tag, run, move, error);
}

static bool delete_tag(struct cli_roots *roots, const char *tag, GError **error)
{
    g_autofree char *key = keys_tag(roots->repo.id, tag);
    bool found = false;

    for (unsigned i = 0; i < cli_roots_count(roots); i++) {
        struct store *root = cli_root(roots, i, error);
        g_autofree char *run = NULL;
        g_autoptr(GError) why = NULL;

        if (!root)
            return false;
        if (!tag_load(root, roots->repo.id, tag, &run, &why)) {
            if (error_is(why, ENOENT))
                continue;
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        found = true;
        if (!store_delete(root, key, error))
            return false;
    }
    return found ? true : error_set(error, ENOENT, "no tag %s; see dstack tags", tag);
}

static int run(const struct command *command, int argc, char **argv)
{
    gboolean move = FALSE;
    const GOptionEntry entries[] = {
        {"yes", 'y', 0, G_OPTION_ARG_NONE, &move, "Move a tag that another run has", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    struct cli_roots roots;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, entries, &argc, &argv, 0, 3, &status))
        return status;
    if (argc != 1 && !(argc == 4 && !strcmp(argv[1], "add")) &&
        !(argc == 3 && !strcmp(argv[1], "delete"))) {
        fprintf(stderr, "usage: dstack tags [add RUN TAG | delete TAG]\n");
        return 2;
    }
    ok = cli_roots_open(&roots, &error);
    if (ok && argc == 1)
        ok = list_tags(&roots, &error);
    else if (ok && argc == 4)
        ok = add(&roots, argv[2], argv[3], move, &error);
    else if (ok)
        ok = delete_tag(&roots, argv[2], &error);
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_tags = {"tags", "[add RUN TAG | delete TAG]",
                                 "Lists, adds and deletes tags.", run};
