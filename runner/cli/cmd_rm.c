#include "runner/cli/cli.h"

#include "config/error.h"
#include "storage/keys.h"
#include "storage/remote.h"

#include <stdio.h>
#include <string.h>

struct search {
    struct store *root;
    const char *repo, *run;
    bool tagged;
};

static bool look_at_tag(const struct store_object *object, void *user, GError **error)
{
    struct search *search = user;
    g_autofree char *prefix = keys_tags(search->repo), *tag = NULL, *run = NULL;

    if (!g_str_has_suffix(object->key, ".json"))
        return true;
    tag = g_strndup(object->key + strlen(prefix),
                    strlen(object->key) - strlen(prefix) - strlen(".json"));
    if (!tag_load(search->root, search->repo, tag, &run, error))
        return false;
    search->tagged = search->tagged || strcmp(run, search->run) == 0;
    return true;
}

static int run_rm(const struct command *command, int argc, char **argv)
{
    gboolean yes = FALSE;
    const GOptionEntry entries[] = {
        {"yes", 'y', 0, G_OPTION_ARG_NONE, &yes, "Do not ask", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    struct cli_roots roots;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, entries, &argc, &argv, 1, 1, &status))
        return status;
    if (!yes && !cli_confirm("Remove the run and its artifacts?", true))
        return 1;
    ok = cli_roots_open(&roots, &error);
    if (ok) {
        struct store *root = cli_find_run(&roots, argv[1], &error);
        struct search search = {root, roots.repo.id, argv[1], false};
        g_autofree char *tags = keys_tags(roots.repo.id);
        g_autofree char *artifacts = keys_artifacts(roots.repo.id, argv[1]);

        ok = root && store_list(root, tags, false, look_at_tag, &search, &error) &&
             run_store_remove(root, roots.repo.id, argv[1], &error);
        if (ok && search.tagged)
            fprintf(stderr, "A tag still holds the artifacts of %s: they stay\n", argv[1]);
        else if (ok)
            ok = store_delete_prefix(root, artifacts, NULL, &error);
    }
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_rm = {"rm", "RUN", "Removes a run; artifacts that a tag holds stay.",
                               run_rm};
