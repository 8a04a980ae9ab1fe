#include "runner/cli/cli.h"

#include "config/error.h"
#include "runner/run/kept.h"

#include <stdio.h>

static void say_tagged(const char *name)
{
    fprintf(stderr, "A tag still holds the artifacts of %s: they stay\n", name);
}

/* The first root that has it, or what an earlier removal left of it. */
static bool remove_one(struct cli_roots *roots, const char *name, GError **error)
{
    g_autoptr(GError) missing = NULL;
    bool tagged = false;

    for (unsigned i = 0; i < cli_roots_count(roots); i++) {
        struct store *root = cli_root(roots, i, error);

        if (!root)
            return false;
        g_clear_error(&missing);
        if (kept_remove_run(root, roots->repo.id, name, &tagged, &missing)) {
            if (tagged)
                say_tagged(name);
            return true;
        }
        if (!error_is(missing, ENOENT))
            break;
    }
    g_propagate_error(error, g_steal_pointer(&missing));
    return false;
}

/* Every finished run; one that started again or was removed by somebody else meanwhile is passed
 * over. */
static bool remove_in(struct cli_roots *roots, struct store *root, void *user, GError **error)
{
    const char *repo = roots->repo.id;
    g_autoptr(GPtrArray) runs = run_store_list(root, repo, error);

    for (guint i = 0; runs && i < runs->len; i++) {
        const struct run_summary *summary = runs->pdata[i];
        g_autoptr(GError) why = NULL;
        bool tagged = false;

        if (!run_status_is_final(summary->status))
            continue;
        if (!kept_remove_run(root, repo, summary->name, &tagged, &why)) {
            if (error_is(why, EPERM) || error_is(why, ENOENT))
                continue;
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        printf("%s\n", summary->name);
        if (tagged)
            say_tagged(summary->name);
    }
    return runs != NULL;
}

static int run_rm(const struct command *command, int argc, char **argv)
{
    gboolean all = FALSE, yes = FALSE;
    const GOptionEntry entries[] = {
        {"all", 'a', 0, G_OPTION_ARG_NONE, &all, "Every finished run", NULL},
        {"yes", 'y', 0, G_OPTION_ARG_NONE, &yes, "Do not ask", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    struct cli_roots roots;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, entries, &argc, &argv, 0, 1, &status))
        return status;
    if ((argc > 1) == (all != FALSE)) {
        cli_say("dstack rm", "name a run, or give -a for all finished ones");
        return 2;
    }
    if (!yes && !cli_confirm(all ? "Remove all finished runs and their artifacts?"
                                 : "Remove the run and its artifacts?",
                             true))
        return 1;
    ok = cli_roots_open(&roots, &error) &&
         (all ? cli_each_root(&roots, remove_in, NULL) : remove_one(&roots, argv[1], &error));
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_rm = {"rm", "[RUN]", "Removes runs; artifacts that a tag holds stay.",
                               run_rm};
