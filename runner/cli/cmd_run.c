#include "runner/cli/cli.h"

#include "config/error.h"
#include "config/units.h"
#include "config/workflow.h"
#include "runner/logs.h"
#include "runner/submit.h"
#include "storage/remote.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STOPPED_STATUS 130

struct options {
    gboolean detach;
    bool remote;
    char *remote_name, *tag, *commands;
    char **env, **artifacts;
};

/* Written by the signal handler alone. */
static volatile sig_atomic_t signals_seen;
static int stop_following;

static void on_signal(int number)
{
    signals_seen++;
    __atomic_store_n(&stop_following, 1, __ATOMIC_RELAXED);
}

/* --remote may stand alone or name one. */
static gboolean parse_remote(const char *option, const char *value, gpointer user, GError **error)
{
    struct options *options = user;

    options->remote = true;
    options->remote_name = g_strdup(value);
    return TRUE;
}

/* A written-down workflow, or `bash -c '…'`. */
static struct workflow *choose_workflow(const struct repo *repo, const struct options *options,
                                        const char *name, GPtrArray **list, GError **error)
{
    if (options->commands && strcmp(name, "bash") == 0) {
        struct workflow *workflow = workflow_new("bash", "bash");

        *list = g_ptr_array_new_with_free_func((GDestroyNotify)workflow_free);
        workflow->commands = g_new0(char *, 2);
        workflow->commands[0] = g_strdup(options->commands);
        g_ptr_array_add(*list, workflow);
        return workflow;
    }
    *list = workflows_load(repo->top, error);
    return *list ? workflows_find(*list, name, error) : NULL;
}

static bool apply_options(struct workflow *workflow, const struct options *options, GError **error)
{
    if (strcmp(workflow->provider, "bash") != 0)
        return error_set(error, ENOTSUP, "%s: provider \"%s\" cannot run here yet; use \"bash\"",
                         workflow->name, workflow->provider);
    for (char **artifact = options->artifacts; artifact && *artifact; artifact++)
        if (!workflow_add_artifact(workflow, *artifact, false, "--artifact", error))
            return false;
    if (options->env && *options->env) {
        guint old = workflow->env ? g_strv_length(workflow->env) : 0;
        guint more = g_strv_length(options->env);

        workflow->env = g_renew(char *, workflow->env, old + more + 1);
        for (guint i = 0; i <= more; i++)
            workflow->env[old + i] = g_strdup(options->env[i]);
    }
    return true;
}

static bool print_log(const char *data, size_t size, void *user, GError **error)
{
    fwrite(data, 1, size, stdout);
    fflush(stdout);
    return true;
}

/* Ctrl-C: on a terminal, ask; no detaches, and a second one aborts. Elsewhere, stop. False: detach.
 */
static bool handle_signal(struct store *root, const struct run *run, GError **error)
{
    bool abort = signals_seen > 1;
    GError *why = NULL;

    fprintf(stderr, "\n");
    if (!abort && isatty(STDIN_FILENO) && !cli_confirm("Stop the run?", true) && signals_seen < 2)
        return false;
    abort = signals_seen > 1;
    __atomic_store_n(&stop_following, 0, __ATOMIC_RELAXED);
    fprintf(stderr, abort ? "Aborting…\n" : "Stopping…\n");
    if (!run_store_request_stop(root, run->repo, run->name, abort, &why) && !error_is(why, EPERM))
        g_propagate_error(error, g_steal_pointer(&why));
    g_clear_error(&why);
    return true;
}

/* Shows the log until the run is finished. FINAL stays NULL when it goes on without us. */
static bool follow(struct store *root, const struct run *run, struct run **final, GError **error)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct log_reader reader;
    bool ok = log_reader_init(&reader, root, run->repo, run->name, 0, error);

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    while (ok && !*final) {
        g_autoptr(GError) why = NULL;

        if (log_reader_follow(&reader, print_log, NULL, &stop_following, final, &why))
            break;
        if (!error_is(why, ECANCELED)) {
            g_propagate_error(error, g_steal_pointer(&why));
            ok = false;
        } else if (!handle_signal(root, run, error)) {
            fprintf(stderr, "Detached; the run goes on. dstack logs -a %s shows it\n", run->name);
            break;
        } else if (error && *error) {
            ok = false;
        }
    }
    log_reader_clear(&reader);
    return ok;
}

static void print_row(const struct run *run, const char *tag)
{
    struct cli_table table;

    cli_table_init(&table, 5);
    cli_table_add(&table, "RUN");
    cli_table_add(&table, "WORKFLOW");
    cli_table_add(&table, "SUBMITTED");
    cli_table_add(&table, "STATUS");
    cli_table_add(&table, "TAG");
    cli_table_add(&table, run->name);
    cli_table_add(&table, run->workflow ? run->workflow : "");
    cli_table_add(&table, "now");
    cli_table_add(&table, run_status_name(run->status));
    cli_table_add(&table, tag ? tag : "");
    cli_table_print(&table);
    fflush(stdout);
}

static int exit_status(const struct run *final)
{
    if (final->status == RUN_DONE)
        return 0;
    if (final->status == RUN_STOPPED || final->status == RUN_ABORTED)
        return STOPPED_STATUS;
    return final->exit_code > 0 ? final->exit_code : 1;
}

static bool submit(struct cli_roots *roots, const struct options *options, const char *name,
                   struct store **root, struct run **run, GError **error)
{
    struct submit_request request = {.repo = roots->repo.id, .code_dir = roots->repo.top};
    g_autoptr(GPtrArray) list = NULL;
    g_autofree char *here = local_url();
    struct workflow *workflow = choose_workflow(&roots->repo, options, name, &list, error);
    bool embedded = false;

    if (!workflow || !apply_options(workflow, options, error))
        return false;
    request.workflow = workflow;
    if (options->remote) {
        const struct remote *remote =
            settings_remote(&roots->settings, options->remote_name, &embedded, error);

        if (!remote)
            return false;
        if (embedded)
            fprintf(stderr, "No remote is configured: using the one under %s (see dstack config)\n",
                    remote->storage);
        *root = remote_open(remote, error);
        request.where.url = remote->storage;
        remote_options(remote, &request.where.options);
        request.engine = remote->engine;
    } else {
        *root = store_ref(roots->local);
        request.where.url = here;
    }
    request.root = *root;
    *run = *root ? submit_run(&request, error) : NULL;
    return *run != NULL;
}

static int run_workflow(struct cli_roots *roots, const struct options *options, const char *name,
                        GError **error)
{
    g_autoptr(Store) root = NULL;
    g_autoptr(Run) run = NULL, final = NULL;

    if (!submit(roots, options, name, &root, &run, error))
        return -1;
    print_row(run, options->tag);
    if (options->tag && !cli_tag_write(root, roots->repo.id, options->tag, run->name, error))
        return -1;
    if (options->detach)
        return 0;
    if (!follow(root, run, &final, error))
        return -1;
    if (!final)
        return 0;
    if (final->status != RUN_DONE && final->reason)
        fprintf(stderr, "%s: %s\n", run_status_name(final->status), final->reason);
    else
        fprintf(stderr, "%s\n", run_status_name(final->status));
    return exit_status(final);
}

static int run_run(const struct command *command, int argc, char **argv)
{
    static struct options options;
    const GOptionEntry entries[] = {
        {"remote", 0, G_OPTION_FLAG_OPTIONAL_ARG, G_OPTION_ARG_CALLBACK, parse_remote,
         "Run on the remote (--remote=NAME: on that one)", "NAME"},
        {"detach", 'd', 0, G_OPTION_ARG_NONE, &options.detach, "Do not wait and show the log",
         NULL},
        {"tag", 't', 0, G_OPTION_ARG_STRING, &options.tag, "Tag the run", "TAG"},
        {"env", 'e', 0, G_OPTION_ARG_STRING_ARRAY, &options.env, "Set in the environment", "K=V"},
        {"artifact", 'a', 0, G_OPTION_ARG_FILENAME_ARRAY, &options.artifacts,
         "One more artifact directory", "PATH"},
        {"command", 'c', 0, G_OPTION_ARG_STRING, &options.commands,
         "The commands of `dstack run bash`", "COMMANDS"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(command->arguments);
    GOptionGroup *group = g_option_group_new("run", "", "", &options, NULL);
    struct cli_roots roots;
    GError *error = NULL;
    int status;

    g_option_group_add_entries(group, entries);
    g_option_context_set_main_group(context, group);
    g_option_context_set_summary(context, command->summary);
    g_set_prgname("dstack run");
    if (!g_option_context_parse(context, &argc, &argv, &error) || argc != 2) {
        fprintf(stderr, "dstack run: %s; see dstack run --help\n",
                error ? error->message : "name one workflow");
        g_clear_error(&error);
        return 2;
    }
    status = cli_roots_open(&roots, &error) ? run_workflow(&roots, &options, argv[1], &error) : -1;
    cli_roots_clear(&roots);
    return status >= 0 ? status : cli_fail(error);
}

const struct command cmd_run = {"run", "WORKFLOW", "Runs a workflow, here or on a remote.",
                                run_run};
