#include "runner/cli/cli.h"

#include "config/error.h"
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

/* A run, and the root that has it. */
struct row {
    struct run_summary *summary;
    struct store *root;
    char *tags; /* "best, last"; NULL: none */
};

static void row_free(gpointer data)
{
    struct row *row = data;

    run_summary_free(row->summary);
    g_free(row->tags);
    g_free(row);
}

static struct run_summary *summary_at(GPtrArray *rows, guint i)
{
    return ((struct row *)rows->pdata[i])->summary;
}

static int newest_first(const void *a, const void *b)
{
    const struct run_summary *x = (*(const struct row *const *)a)->summary;
    const struct run_summary *y = (*(const struct row *const *)b)->summary;

    return x->submitted_ms < y->submitted_ms ? 1 : x->submitted_ms > y->submitted_ms ? -1 : 0;
}

struct search {
    const char *only; /* NULL: every run */
    GHashTable *seen; /* "NAME SUBMITTED" */
    GPtrArray *rows;
};

/* Appends what ROOT has; a run that was pushed is shown once. */
static bool add_runs(struct cli_roots *roots, struct store *root, void *user, GError **error)
{
    struct search *search = user;
    g_autoptr(GPtrArray) list = NULL;

    if (search->only && search->rows->len)
        return true;
    list = run_store_list(root, roots->repo.id, error);

    for (guint i = 0; list && i < list->len; i++) {
        struct run_summary *summary = list->pdata[i];
        g_autofree char *key =
            g_strdup_printf("%s %" G_GINT64_FORMAT, summary->name, summary->submitted_ms);
        struct row *row;

        if ((search->only && strcmp(search->only, summary->name) != 0) ||
            !g_hash_table_add(search->seen, g_steal_pointer(&key)))
            continue;
        row = g_new0(struct row, 1);
        *row = (struct row){summary, root, NULL};
        g_ptr_array_add(search->rows, row);
        list->pdata[i] = NULL;
    }
    return list != NULL;
}

/* False: a root could not be asked, and ROWS holds what the others have; or *ERROR. */
static bool find_runs(struct cli_roots *roots, const char *only, GPtrArray *rows, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    struct search search = {only, seen, rows};

    return cli_each_root(roots, add_runs, &search) &&
           (!only || rows->len ||
            error_set(error, ENOENT, "no run %s in repo %s; see dstack ps -a", only,
                      roots->repo.id));
}

/* Without -a: the unfinished runs, or else the last one that finished. */
static void keep_current(GPtrArray *rows)
{
    guint unfinished = 0;

    for (guint i = 0; i < rows->len; i++)
        unfinished += !run_status_is_final(summary_at(rows, i)->status);
    for (guint i = rows->len; i-- > 0;)
        if (unfinished ? run_status_is_final(summary_at(rows, i)->status) : i != 0)
            g_ptr_array_remove_index(rows, i);
}

static bool add_tags_of(struct store *root, const char *repo, GPtrArray *rows, GError **error)
{
    g_autoptr(GPtrArray) tags = tags_load(root, repo, NULL, error);
    g_autoptr(GHashTable) of_run = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);

    for (guint i = 0; tags && i < tags->len; i++) {
        const struct tag *tag = tags->pdata[i];
        const char *others = g_hash_table_lookup(of_run, tag->run);

        g_hash_table_replace(of_run, tag->run,
                             others ? g_strdup_printf("%s, %s", others, tag->name)
                                    : g_strdup(tag->name));
    }
    for (guint i = 0; i < rows->len; i++) {
        struct row *row = rows->pdata[i];

        if (row->root == root)
            row->tags = g_strdup(g_hash_table_lookup(of_run, row->summary->name));
    }
    return tags != NULL;
}

/* A run has the tags of its own root; roots that have none of ROWS are not asked. */
static bool add_tags(const char *repo, GPtrArray *rows, GError **error)
{
    g_autoptr(GHashTable) asked = g_hash_table_new(NULL, NULL);

    for (guint i = 0; i < rows->len; i++) {
        struct store *root = ((const struct row *)rows->pdata[i])->root;

        if (g_hash_table_add(asked, root) && !add_tags_of(root, repo, rows, error))
            return false;
    }
    return true;
}

/* A listing does not know why a run failed: its document does. */
static void add_reasons(GPtrArray *rows, const char *repo)
{
    for (guint i = 0; i < rows->len; i++) {
        const struct row *row = rows->pdata[i];
        g_autoptr(GError) error = NULL;
        g_autoptr(Run) run = NULL;

        if (row->summary->status != RUN_FAILED || row->summary->reason)
            continue;
        run = run_store_load(row->root, repo, row->summary->name, &error);
        row->summary->reason = g_strdup(run ? run->reason : error->message);
    }
}

static void print_json(GPtrArray *rows)
{
    json_t *list = json_array();
    char *text;

    for (guint i = 0; i < rows->len; i++) {
        const struct row *row = rows->pdata[i];
        const struct run_summary *run = row->summary;

        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:s?, s:s?, s:s?}", "run", run->name,
                      "workflow", run->workflow ? run->workflow : "", "status",
                      run_status_name(run->status), "submitted_ms", (json_int_t)run->submitted_ms,
                      "finished_ms", (json_int_t)run->finished_ms, "exit_code", run->exit_code,
                      "reason", run->reason, "owner", run->user, "tags", row->tags));
    }
    text = json_dumps(list, JSON_INDENT(2));
    puts(text);
    free(text);
    json_decref(list);
}

static void print_heads(struct cli_table *table, bool verbose, bool reasons)
{
    static const char *const heads[] = {"RUN", "WORKFLOW", "SUBMITTED", "OWNER", "STATUS", "TAG"};

    cli_table_init(table, G_N_ELEMENTS(heads) + verbose + reasons);
    for (guint i = 0; i < G_N_ELEMENTS(heads); i++)
        cli_table_add(table, heads[i]);
    if (verbose)
        cli_table_add(table, "EXIT");
    if (reasons)
        cli_table_add(table, "REASON");
}

static void print_table(GPtrArray *rows, bool verbose, bool reasons)
{
    struct cli_table table;

    print_heads(&table, verbose, reasons);
    for (guint i = 0; i < rows->len; i++) {
        const struct row *row = rows->pdata[i];
        const struct run_summary *run = row->summary;
        g_autofree char *ago = ago_format(run->submitted_ms, run_now_ms());
        g_autofree char *code = run->exit_code >= 0 ? g_strdup_printf("%d", run->exit_code) : NULL;

        cli_table_add(&table, run->name);
        cli_table_add(&table, run->workflow ? run->workflow : "");
        cli_table_add(&table, ago);
        cli_table_add(&table, run->user ? run->user : "");
        cli_table_add_status(&table, run->status);
        cli_table_add(&table, row->tags ? row->tags : "");
        if (verbose)
            cli_table_add(&table, code ? code : "");
        if (reasons)
            cli_table_add(&table, run->reason ? run->reason : "");
    }
    cli_table_print(&table);
}

static bool has_reason(GPtrArray *rows)
{
    for (guint i = 0; i < rows->len; i++)
        if (summary_at(rows, i)->reason)
            return true;
    return false;
}

static bool show(struct cli_roots *roots, const char *only, const struct options *options,
                 GError **error)
{
    g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func(row_free);
    bool complete = find_runs(roots, only, rows, error);

    if (!complete && rows->len == 0)
        return false;
    g_ptr_array_sort(rows, newest_first);
    if (!options->all && !only)
        keep_current(rows);
    if (!options->all || options->verbose)
        add_reasons(rows, roots->repo.id);
    if (!add_tags(roots->repo.id, rows, complete ? error : NULL))
        complete = false;
    if (options->watch && complete && isatty(STDOUT_FILENO)) /* else what was said stays */
        printf("\033[H\033[2J");
    if (options->json)
        print_json(rows);
    else
        print_table(rows, options->verbose,
                    options->verbose || (!options->all && has_reason(rows)));
    fflush(stdout);
    return complete;
}

static bool look(const char *only, const struct options *options, GError **error)
{
    struct cli_roots roots;
    bool ok = cli_roots_open(&roots, error) && show(&roots, only, options, error);

    cli_roots_clear(&roots);
    return ok;
}

/* Until it is interrupted, or there is no such run: a remote that is away may come back. Opened
 * anew for each look, since a new store says within seconds that it is not reached. */
static bool watch(const char *only, const struct options *options, GError **error)
{
    for (;;) {
        g_autoptr(GError) why = NULL;

        if (!look(only, options, &why) && error_is(why, ENOENT)) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        if (why)
            cli_say("dstack", why->message);
        sleep(WATCH_S);
    }
}

static int run(const struct command *command, int argc, char **argv)
{
    struct options options = {0};
    const GOptionEntry entries[] = {
        {"all", 'a', 0, G_OPTION_ARG_NONE, &options.all, "All runs, not only current ones", NULL},
        {"verbose", 'v', 0, G_OPTION_ARG_NONE, &options.verbose, "Exit codes and reasons too",
         NULL},
        {"watch", 'w', 0, G_OPTION_ARG_NONE, &options.watch, "Refresh every 2 s", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &options.json, "Print JSON", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    GError *error = NULL;
    int status;

    if (!cli_parse(command, entries, &argc, &argv, 0, 1, &status))
        return status;
    if (options.watch)
        return watch(argv[1], &options, &error) ? 0 : cli_fail(error);
    return look(argv[1], &options, &error) ? 0 : cli_fail(error);
}

const struct command cmd_ps = {"ps", "[RUN]", "Shows runs and their status.", run};
