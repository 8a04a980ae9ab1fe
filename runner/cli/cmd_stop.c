#include "runner/cli/cli.h"

#include "config/error.h"

#include <stdio.h>

static bool stop_all(struct cli_roots *roots, bool abort, unsigned *count, GError **error)
{
    for (unsigned i = 0; i < cli_roots_count(roots); i++) {
        struct store *root = cli_root(roots, i, error);
        g_autoptr(GPtrArray) runs = root ? run_store_list(root, roots->repo.id, error) : NULL;

        if (!runs)
            return false;
        for (guint j = 0; j < runs->len; j++) {
            const struct run_summary *summary = runs->pdata[j];
            g_autoptr(GError) why = NULL;

            if (run_status_is_final(summary->status))
                continue;
            if (!run_store_request_stop(root, roots->repo.id, summary->name, abort, &why)) {
                if (error_is(why, EPERM) || error_is(why, ENOENT)) /* it ended meanwhile */
                    continue;
                g_propagate_error(error, g_steal_pointer(&why));
                return false;
            }
            printf("%s\n", summary->name);
            (*count)++;
        }
    }
    return true;
}

static int run(const struct command *command, int argc, char **argv)
{
    gboolean all = FALSE, abort = FALSE, yes = FALSE;
    const GOptionEntry entries[] = {
        {"all", 'a', 0, G_OPTION_ARG_NONE, &all, "Every unfinished run", NULL},
        {"abort", 'x', 0, G_OPTION_ARG_NONE, &abort, "Save nothing that is not mounted", NULL},
        {"yes", 'y', 0, G_OPTION_ARG_NONE, &yes, "Do not ask", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    struct cli_roots roots;
    GError *error = NULL;
    unsigned count = 0;
    int status;
    bool ok;

    if (!cli_parse(command, entries, &argc, &argv, 0, 1, &status))
        return status;
    if ((argc > 1) == (all != FALSE)) {
        cli_say("dstack stop", "name a run, or give -a for all of them");
        return 2;
    }
    if (!yes && !cli_confirm(abort ? "Abort, without saving artifacts?" : "Stop?", true))
        return 1;
    ok = cli_roots_open(&roots, &error);
    if (ok && all) {
        ok = stop_all(&roots, abort, &count, &error);
    } else if (ok) {
        struct store *root = cli_find_run(&roots, argv[1], &error);

        ok = root && run_store_request_stop(root, roots.repo.id, argv[1], abort, &error);
    }
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_stop = {"stop", "[RUN]", "Stops a run and saves its artifacts.", run};
