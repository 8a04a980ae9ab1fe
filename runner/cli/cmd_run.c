#include "runner/cli/cli.h"

#include "config/error.h"
#include "config/workflow.h"
#include "config/workflow_values.h"
#include "runner/cli/arguments.h"
#include "runner/logs.h"
#include "runner/restart.h"
#include "runner/submit.h"
#include "storage/remote.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STOPPED_STATUS 130

struct options {
    gboolean detach;
    bool remote;
    char *remote_name, *tag, *commands, *resume;
    char **env, **artifacts;
    char *workflow, **args; /* borrowed from words */
    char **words;
};

static void options_clear(struct options *options)
{
    g_free(options->remote_name);
    g_free(options->tag);
    g_free(options->commands);
    g_free(options->resume);
    g_strfreev(options->env);
    g_strfreev(options->artifacts);
    g_free(options->words);
}

/* Written by the signal handler alone. */
static volatile sig_atomic_t signals_seen;
static int stop_following;

static void on_signal(int number)
{
    signals_seen++;
    __atomic_store_n(&stop_following, 1, __ATOMIC_RELAXED);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Whether to stop: yes, or Ctrl-C once more. Signals arrive inside ppoll only, so that none is
 * missed between the look at signals_seen and the wait. */
static bool ask_stop(void)
{
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    sigset_t ours, before;
    bool stop;

    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    fprintf(stderr, "Stop the run? [y/N] ");
    while (signals_seen < 2 && ppoll(&input, 1, NULL, &before) < 0 && errno == EINTR)
        ;
    stop = signals_seen > 1 || cli_answer();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return stop;
}

/* --remote may stand alone ("--remote=" by now) or name one. */
static gboolean parse_remote(const char *option, const char *value, gpointer user, GError **error)
{
    struct options *options = user;

    options->remote = true;
    options->remote_name = value && *value ? g_strdup(value) : NULL;
    return TRUE;
}

/* A written-down workflow, or `bash -c '…'`. */
static struct workflow *choose_workflow(const struct repo *repo, const struct options *options,
                                        GPtrArray **list, GError **error)
{
    struct workflow *workflow;

    if (options->commands) {
        workflow = workflow_new("bash", "bash");
        *list = g_ptr_array_new_with_free_func((GDestroyNotify)workflow_free);
        workflow->commands = g_new0(char *, 2);
        workflow->commands[0] = g_strdup(options->commands);
        g_ptr_array_add(*list, workflow);
        return workflow;
    }
    *list = workflows_load(repo->top, error);
    workflow = *list ? workflows_find(*list, options->workflow, error) : NULL;
    if (*list && !workflow && strcmp(options->workflow, "bash") == 0)
        g_prefix_error(error, "give commands with dstack run bash -c '…', since there is ");
    return workflow;
}

static bool add_env(struct workflow *workflow, char **env, GError **error)
{
    guint old = workflow->env ? g_strv_length(workflow->env) : 0;
    guint more = env ? g_strv_length(env) : 0;

    if (more == 0)
        return true;
    workflow->env = g_renew(char *, workflow->env, old + more + 1);
    for (guint i = 0; i <= more; i++)
        workflow->env[old + i] = g_strdup(env[i]);
    for (guint i = 0; i < more; i++)
        if (!workflow_env_check(env[i], "--env", error))
            return false;
    return true;
}

static bool apply_options(struct workflow *workflow, const struct options *options, GError **error)
{
    if (strcmp(workflow->provider, "bash") != 0)
        return error_set(error, ENOTSUP, "%s: provider \"%s\" cannot run here yet; use \"bash\"",
                         workflow->name, workflow->provider);
    for (char **artifact = options->artifacts; artifact && *artifact; artifact++)
        if (!workflow_add_artifact(workflow, *artifact, false, "--artifact", error))
            return false;
    return add_env(workflow, options->env, error);
}

static bool print_log(const char *data, size_t size, void *user, GError **error)
{
    const bool *aborting = user;

    if (*aborting) /* whatever is still to be read: it was enough */
        return true;
    fwrite(data, 1, size, stdout);
    fflush(stdout);
    return !__atomic_load_n(&stop_following, __ATOMIC_RELAXED) ||
           error_set(error, ECANCELED, "interrupted"); /* output may never pause */
}

/* Ctrl-C: on a terminal, ask; no detaches. A second one aborts, and a third does not wait for that.
 * Elsewhere, stop. False: detach. */
static bool handle_signal(struct store *root, const struct run *run, bool *aborting, GError **error)
{
    GError *why = NULL;

    fprintf(stderr, "\n");
    if (*aborting)
        return false;
    if (signals_seen < 2 && isatty(STDIN_FILENO) && !ask_stop())
        return false;
    *aborting = signals_seen > 1;
    __atomic_store_n(&stop_following, 0, __ATOMIC_RELAXED);
    fprintf(stderr, *aborting ? "Aborting…\n" : "Stopping…\n");
    if (!run_store_request_stop(root, run->repo, run->name, *aborting, &why) &&
        !error_is(why, EPERM))
        g_propagate_error(error, g_steal_pointer(&why));
    g_clear_error(&why);
    return true;
}

/* An interrupted run that nobody else starts again is submitted once more; any other is FINAL. */
static bool go_on(const struct submit_request *request, struct run **final, GError **error)
{
    g_autoptr(Run) run = g_steal_pointer(final);
    g_autofree char *why_not = NULL;
    g_autoptr(GError) raced = NULL;

    if (run->status != RUN_INTERRUPTED) {
        *final = g_steal_pointer(&run);
        return true;
    }
    if (run_may_restart(run, &why_not)) {
        fprintf(stderr, "Interrupted (%s): starting again\n", run->reason ? run->reason : "?");
        if (submit_again(request, run, &raced) || error_is(raced, ESTALE))
            return true;
    } else if (run_store_move(request->root, run, RUN_FAILED, why_not, &raced)) {
        *final = g_steal_pointer(&run);
        return true;
    }
    g_propagate_error(error, g_steal_pointer(&raced));
    return false;
}

/* Shows the log until the run is finished. FINAL stays NULL when it goes on without us. */
static bool follow(const struct submit_request *request, const struct run *run, struct run **final,
                   GError **error)
{
    struct store *root = request->root;
    struct log_reader reader = {0};
    bool aborting = false;
    bool ok = log_reader_init(&reader, root, run->repo, run->name, 0, 0, error);

    reader.until_idle = true;
    while (ok && !*final) {
        g_autoptr(GError) why = NULL;

        if (log_reader_follow(&reader, print_log, &aborting, &stop_following, final, &why)) {
            ok = go_on(request, final, error);
            continue;
        }
        if (!error_is(why, ECANCELED)) {
            g_propagate_error(error, g_steal_pointer(&why));
            ok = false;
        } else if (!handle_signal(root, run, &aborting, error)) {
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

static void use_local(struct cli_roots *roots, struct submit_request *request)
{
    request->root = store_ref(roots->local);
    request->where.url = local_url();
}

static void use_remote(const struct remote *remote, struct store *root,
                       struct submit_request *request)
{
    request->root = root;
    request->where.url = g_strdup(remote->storage);
    remote_options(remote, &request->where.options);
    request->engine = remote->engine;
    request->where.slurm = &remote->slurm;
}

/* Where the run goes: this machine, or a remote. */
static bool choose_root(struct cli_roots *roots, const struct options *options,
                        struct submit_request *request, const char **notice, GError **error)
{
    const struct remote *remote;
    bool embedded = false;
    struct store *root;

    if (!options->remote) {
        use_local(roots, request);
        return true;
    }
    remote = settings_remote(&roots->settings, options->remote_name, &embedded, error);
    root = remote ? remote_open(remote, error) : NULL;
    if (!root)
        return false;
    use_remote(remote, root, request);
    *notice = embedded ? remote->storage : NULL;
    return true;
}

static struct run *submit(struct submit_request *request, const char *notice, GError **error)
{
    g_autoptr(Run) run = submit_prepare(request, error);
    void (*before)(int);
    bool started;

    if (!run)
        return NULL;
    if (notice)
        fprintf(stderr, "No remote is configured: using the one under %s (see dstack config)\n",
                notice);
    catch_signals(); /* from here on somebody must decide what becomes of the run */
    before = signal(SIGHUP, SIG_IGN); /* a closing terminal must not leave it half submitted */
    started = submit_start(request, run, error);
    signal(SIGHUP, before);
    return started ? g_steal_pointer(&run) : NULL;
}

static int show_end(const struct run *final)
{
    if (final->status != RUN_DONE && final->reason)
        cli_say(run_status_name(final->status), final->reason);
    else
        fprintf(stderr, "%s\n", run_status_name(final->status));
    return exit_status(final);
}

static int run_workflow(struct cli_roots *roots, const struct options *options, GError **error)
{
    struct submit_request request = {.repo = roots->repo.id,
                                     .code_dir = roots->repo.top,
                                     .args = options->args,
                                     .tag = options->tag};
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(Run) run = NULL, final = NULL;
    struct workflow *workflow = choose_workflow(&roots->repo, options, &list, error);
    const char *notice = NULL;
    int status = -1;

    request.workflow = workflow;
    if (workflow && apply_options(workflow, options, error) &&
        choose_root(roots, options, &request, &notice, error))
        run = submit(&request, notice, error);
    if (run) {
        print_row(run, options->tag);
        if (options->detach)
            status = 0;
        else if (follow(&request, run, &final, error))
            status = final ? show_end(final) : 0;
    }
    store_unref(request.root);
    g_free((char *)request.where.url);
    return status;
}

/* Follows a run that is there, and starts it again if it was interrupted and nobody else does. */
static int resume(struct cli_roots *roots, const char *name, GError **error)
{
    struct submit_request request = {.repo = roots->repo.id};
    struct store *root = cli_find_run(roots, name, error);
    g_autoptr(Run) run = root ? run_store_load(root, roots->repo.id, name, error) : NULL;
    g_autoptr(Run) final = NULL;
    int status = -1;

    if (!run)
        return -1;
    if (root == roots->local)
        use_local(roots, &request);
    for (guint i = 0; i < roots->remotes->len; i++)
        if (roots->opened->pdata[i] == root)
            use_remote(roots->remotes->pdata[i], store_ref(root), &request);
    if (run_status_is_final(run->status)) {
        error_set(error, EPERM, "run %s is finished already: %s", name,
                  run_status_name(run->status));
    } else {
        catch_signals();
        if (follow(&request, run, &final, error))
            status = final ? show_end(final) : 0;
    }
    store_unref(request.root);
    g_free((char *)request.where.url);
    return status;
}

/* "--remote NAME" names a remote if there is one called so; else NAME is the workflow, or its. */
static char **join_remote(int *argc, char **argv)
{
    g_autoptr(GPtrArray) joined = g_ptr_array_new();
    struct settings settings = {0};

    for (int i = 0; i < *argc; i++) {
        bool embedded;

        if (strcmp(argv[i], "--") == 0) {
            while (i < *argc)
                g_ptr_array_add(joined, g_strdup(argv[i++]));
        } else if (strcmp(argv[i], "--remote") != 0) {
            g_ptr_array_add(joined, g_strdup(argv[i]));
        } else if (i + 1 < *argc && (settings.path || settings_load(&settings, NULL)) &&
                   settings_remote(&settings, argv[i + 1], &embedded, NULL)) {
            g_ptr_array_add(joined, g_strconcat("--remote=", argv[++i], NULL));
        } else {
            g_ptr_array_add(joined, g_strdup("--remote="));
        }
    }
    settings_clear(&settings);
    *argc = (int)joined->len;
    g_ptr_array_add(joined, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&joined), FALSE);
}

static bool parse(const struct command *command, int argc, char **argv, struct options *options,
                  GError **error)
{
    const GOptionEntry entries[] = {
        /* FILENAME: bytes as they are, whatever the locale */
        {"remote", 0, G_OPTION_FLAG_OPTIONAL_ARG, G_OPTION_ARG_CALLBACK, parse_remote,
         "Run on the default remote, or on that one", "NAME"},
        {"detach", 'd', 0, G_OPTION_ARG_NONE, &options->detach, "Do not wait and show the log",
         NULL},
        {"tag", 't', 0, G_OPTION_ARG_STRING, &options->tag, "Tag the run", "TAG"},
        {"env", 'e', 0, G_OPTION_ARG_FILENAME_ARRAY, &options->env, "Set in the environment",
         "K=V"},
        {"artifact", 'a', 0, G_OPTION_ARG_FILENAME_ARRAY, &options->artifacts,
         "One more artifact directory", "PATH"},
        {"resume", 0, 0, G_OPTION_ARG_STRING, &options->resume,
         "Follow that run instead, and start it again if it was interrupted", "RUN"},
        {"command", 'c', 0, G_OPTION_ARG_FILENAME, &options->commands,
         "The commands of `dstack run bash`", "COMMANDS"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(command->arguments);
    GOptionGroup *group = g_option_group_new("run", "", "", options, NULL);
    g_autoptr(GPtrArray) own = g_ptr_array_new(), rest = g_ptr_array_new();
    g_autofree char **own_argv = NULL;
    int own_argc;

    g_option_group_add_entries(group, entries);
    g_option_context_set_main_group(context, group);
    g_option_context_set_summary(context, command->summary);
    g_ptr_array_add(own, argv[0]);
    arguments_split(entries, argc, argv, own, rest);
    own_argc = (int)own->len;
    g_ptr_array_add(own, NULL);
    own_argv = g_memdup2(own->pdata, own->len * sizeof(char *));
    if (!g_option_context_parse(context, &own_argc, &own_argv, error))
        return false;
    g_ptr_array_add(rest, NULL);
    options->workflow = rest->pdata[0];
    if (options->resume && options->workflow)
        return error_set(error, EINVAL, "--resume takes a run, and no workflow");
    if (!options->workflow && !options->resume)
        return error_set(error, EINVAL, "name a workflow");
    if (options->workflow && *options->workflow == '-')
        return error_set(error, EINVAL, "unknown option %s", options->workflow);
    if (options->commands && g_strcmp0(options->workflow, "bash") != 0)
        return error_set(error, EINVAL,
                         "-c is for dstack run bash; what is the workflow's own "
                         "stands behind --");
    options->words = (char **)g_ptr_array_free(g_steal_pointer(&rest), FALSE);
    options->args = options->words + (options->workflow ? 1 : 0);
    return true;
}

static int run_run(const struct command *command, int argc, char **argv)
{
    g_auto(GStrv) words = join_remote(&argc, argv);
    struct options options = {0};
    struct cli_roots roots;
    GError *error = NULL;
    int status;

    g_set_prgname("dstack run");
    if (!parse(command, argc, words, &options, &error)) {
        g_autofree char *text = g_strdup_printf("%s; see dstack run --help", error->message);

        cli_say("dstack run", text);
        g_clear_error(&error);
        options_clear(&options);
        return 2;
    }
    status = !cli_roots_open(&roots, &error) ? -1
             : options.resume                ? resume(&roots, options.resume, &error)
                                             : run_workflow(&roots, &options, &error);
    cli_roots_clear(&roots);
    options_clear(&options);
    return status >= 0 ? status : cli_fail(error);
}

const struct command cmd_run = {"run", "WORKFLOW [ARGUMENT…]",
                                "Runs a workflow, here or on a remote.", run_run};
