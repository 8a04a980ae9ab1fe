#include "runner/cli/cli.h"

#include "config/units.h"
#include "storage/remote.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WATCH_S 2

struct options {
    gboolean all, verbose, watch, json;
};

static int newest_first(const void *a, const void *b)
{
    const struct run_summary *x = *(const struct run_summary *const *)a;
    const struct run_summary *y = *(const struct run_summary *const *)b;

    return x->submitted_ms < y->submitted_ms ? 1 : x->submitted_ms > y->submitted_ms ? -1 : 0;
}

/* Appends what ROOT has; a run that was pushed is shown once. */
static bool add_runs(struct store *root, const char *repo, const char *only, GPtrArray *runs,
                     GError **error)
{
    g_autoptr(GPtrArray) list = root ? run_store_list(root, repo, error) : NULL;

    if (!root)
        return true;
    if (!list)
        return false;
    for (guint i = 0; i < list->len; i++) {
        struct run_summary *summary = list->pdata[i];
        bool known = only && strcmp(only, summary->name) != 0;

        for (guint j = 0; !known && j < runs->len; j++)
            known = strcmp(((struct run_summary *)runs->pdata[j])->name, summary->name) == 0;
        if (known)
            continue;
        g_ptr_array_add(runs, summary);
        list->pdata[i] = NULL;
    }
    return true;
}

/* Without -a: the unfinished runs, or else the last one that finished. */
static void keep_current(GPtrArray *runs)
{
    guint unfinished = 0;

    for (guint i = 0; i < runs->len; i++)
        unfinished += !run_status_is_final(((struct run_summary *)runs->pdata[i])->status);
    for (guint i = runs->len; i-- > 0;) {
        const struct run_summary *summary = runs->pdata[i];
        bool keep = unfinished ? !run_status_is_final(summary->status) : i == 0;

        if (!keep)
            g_ptr_array_remove_index(runs, i);
    }
}

static void print_json(GPtrArray *runs)
{
    json_t *list = json_array();
    char *text;

    for (guint i = 0; i < runs->len; i++) {
        const struct run_summary *run = runs->pdata[i];

        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:s?}", "run", run->name,
                                        "workflow", run->workflow ? run->workflow : "", "status",
                                        run_status_name(run->status), "submitted_ms",
                                        (json_int_t)run->submitted_ms, "finished_ms",
                                        (json_int_t)run->finished_ms, "exit_code", run->exit_code,
                                        "reason", run->reason));
    }
    text = json_dumps(list, JSON_INDENT(2));
    puts(text);
    free(text);
    json_decref(list);
}

static void print_table(GPtrArray *runs, bool verbose)
{
    static const char *const heads[] = {"RUN", "WORKFLOW", "SUBMITTED", "STATUS", "EXIT", "REASON"};
    struct cli_table table;
    unsigned columns = verbose ? 6 : 4;

    cli_table_init(&table, columns);
    for (unsigned i = 0; i < columns; i++)
        cli_table_add(&table, heads[i]);
    for (guint i = 0; i < runs->len; i++) {
        const struct run_summary *run = runs->pdata[i];
        g_autofree char *ago = ago_format(run->submitted_ms, run_now_ms());
        g_autofree char *code = run->exit_code >= 0 ? g_strdup_printf("%d", run->exit_code) : NULL;

        cli_table_add(&table, run->name);
        cli_table_add(&table, run->workflow ? run->workflow : "");
        cli_table_add(&table, ago);
        cli_table_add(&table, run_status_name(run->status));
        if (verbose) {
            cli_table_add(&table, code ? code : "");
            cli_table_add(&table, run->reason ? run->reason : "");
        }
    }
    cli_table_print(&table);
}

static bool show(struct cli_roots *roots, const char *only, const struct options *options,
                 GError **error)
{
    g_autoptr(GPtrArray) runs = g_ptr_array_new_with_free_func((GDestroyNotify)run_summary_free);

    if (!add_runs(roots->local, roots->repo.id, only, runs, error) ||
        !add_runs(roots->remote, roots->repo.id, only, runs, error))
        return false;
    g_ptr_array_sort(runs, newest_first);
    if (!options->all && !only)
        keep_current(runs);
    if (options->watch && isatty(STDOUT_FILENO))
        printf("\033[H\033[2J");
    if (options->json)
        print_json(runs);
    else
        print_table(runs, options->verbose);
    fflush(stdout);
    return true;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct options options = {0};
    const GOptionEntry entries[] = {
        {"all", 'a', 0, G_OPTION_ARG_NONE, &options.all, "All runs, not only current ones", NULL},
        {"verbose", 'v', 0, G_OPTION_ARG_NONE, &options.verbose, "Exit codes and reasons", NULL},
        {"watch", 'w', 0, G_OPTION_ARG_NONE, &options.watch, "Refresh every 2 s", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "Print JSON", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    struct cli_roots roots;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, entries, &argc, &argv, 0, 1, &status))
        return status;
    ok = cli_roots_open(&roots, &error);
    do {
        ok = ok && show(&roots, argc > 1 ? argv[1] : NULL, &options, &error);
        if (ok && options.watch)
            sleep(WATCH_S);
    } while (ok && options.watch);
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_ps = {"ps", "[RUN]", "Shows runs and their status.", run};
