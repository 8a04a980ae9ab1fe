#include "runner/cli/cli.h"

#include "config/error.h"
#include "runner/cli/cli_transfer.h"
#include "runner/cli/run_options.h"
#include "runner/run/logs.h"
#include "runner/run/restart.h"
#include "runner/secrets/secrets.h"
#include "runner/submit/submit.h"
#include "storage/remote.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STOPPED_STATUS 130

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

/* A closing terminal must not leave it half submitted. */
static bool start_again(const struct submit_request *request, struct run *run, GError **error)
{
    void (*before)(int) = signal(SIGHUP, SIG_IGN);
    bool started = submit_again(request, run, error);

    signal(SIGHUP, before);
    return started;
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
        if (start_again(request, run, &raced) || error_is(raced, ESTALE))
            return true;
    } else if (run_store_move(request->root, run, RUN_FAILED, why_not, &raced)) {
        run_store_remove_signs(request->root, run);
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
    struct progress *progress = NULL;
    struct log_reader reader = {0};
    bool aborting = false;
    bool ok = log_reader_init(&reader, root, run->repo, run->name, 0, 0, error);

    reader.until_idle = true;
    reader.watcher = (struct log_watcher){cli_show_progress, &progress};
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
    progress_free(progress);
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
    cli_table_add_status(&table, run->status);
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
static bool choose_root(struct cli_roots *roots, const struct run_options *options,
                        struct submit_request *request, const char **notice, GError **error)
{
    const struct resources *resources = &request->workflow->resources;
    const struct remote *remote;
    bool embedded = false;
    struct store *root;

    if (options->remote && resources->local)
        return error_set(error, EINVAL,
                         "workflow %s runs on this machine only (resources.local): leave out "
                         "--remote",
                         request->workflow->name);
    if (!options->remote && !resources->remote) {
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

static int run_workflow(struct cli_roots *roots, struct run_options *options, GError **error)
{
    struct submit_request request = {
        .repo = roots->repo.id, .code_dir = roots->repo.top, .tag = options->tag};
    g_autoptr(GPtrArray) list = NULL;
    g_autoptr(Run) run = NULL, final = NULL;
    const char *notice = NULL;
    int status = -1;

    request.workflow = run_options_workflow(options, &roots->repo, &list, error);
    request.args = options->args;
    if (request.workflow && choose_root(roots, options, &request, &notice, error) &&
        (request.root == roots->local ||
         secrets_copy_missing(roots->local, request.root, request.repo, error)))
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

static int run_run(const struct command *command, int argc, char **argv)
{
    g_auto(GStrv) words = run_options_join_remote(&argc, argv);
    struct run_options options = {0};
    struct cli_roots roots;
    GError *error = NULL;
    int status;

    g_set_prgname("dstack run");
    if (!run_options_parse(&options, command, argc, words, &error)) {
        g_autofree char *text = g_strdup_printf("%s; see dstack run --help", error->message);

        cli_say("dstack run", text);
        g_clear_error(&error);
        run_options_clear(&options);
        return 2;
    }
    status = !cli_roots_open(&roots, &error) ? -1
             : options.resume                ? resume(&roots, options.resume, &error)
                                             : run_workflow(&roots, &options, &error);
    cli_roots_clear(&roots);
    run_options_clear(&options);
    return status >= 0 ? status : cli_fail(error);
}

const struct command cmd_run = {"run", "WORKFLOW|PROVIDER [ARGUMENT…]",
                                "Runs a workflow, here or on a remote.", run_run};
