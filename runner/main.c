/* dstack-runner: one job on this machine. Started by an engine.
 *
 * shape:   two processes. The keeper (the one that was started) waits for the worker, which runs
 *          the job; when the worker died without finishing, the keeper ends what is left and says
 *          so in the run's document. It is the subreaper of the job, so nothing of it gets away.
 * threads: the keeper has none until the worker is gone; the worker's main thread runs the job.
 */
#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/job/job.h"
#include "runner/job/ranks.h"
#include "runner/machine.h"
#include "runner/run/lost.h"
#include "runner/run/run_store.h"
#include "runner/work_dir.h"
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

struct arguments {
    struct run_root where;
    const char *repo, *run;
};

static struct store *open_root(const struct run_root *where, GError **error)
{
    return store_open(where->url, &where->options, error);
}

static int complain(const GError *error)
{
    log_error("%s", error->message);
    return 1;
}

static int work(const struct arguments *arguments)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) root = NULL;
    g_auto(fd_t) signals = -1;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD); /* SIGTERM and SIGINT are blocked since main; the job reads them */
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    root = open_root(&arguments->where, &error);
    if (!root ||
        !job_run(root, &arguments->where, arguments->repo, arguments->run, signals, &error))
        return complain(error);
    return 0;
}

/* --- the keeper --- */

static pid_t worker; /* for the signal handler; set before it is installed */
static uint64_t worker_ticks;

static void pass_on(int number)
{
    kill(worker, number);
}

static int wait_worker(void)
{
    int wait_status = 0, other;
    pid_t pid;

    while ((pid = waitpid(-1, &other, 0)) != worker) /* others: orphans of the job */
        if (pid < 0 && errno != EINTR)
            break;
    if (pid == worker)
        wait_status = other;
    return wait_status;
}

/* Whatever the job started and nobody else ended is our child now. */
static void end_children(void)
{
    g_autofree char *path = g_strdup_printf("/proc/self/task/%d/children", (int)getpid());

    for (int i = 0; i < 1000; i++) {
        g_autofree char *text = NULL;
        g_auto(GStrv) pids = NULL;

        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        if (!g_file_get_contents(path, &text, NULL, NULL) || !*g_strstrip(text))
            return;
        pids = g_strsplit(text, " ", -1);
        for (char **pid = pids; *pid; pid++)
            if (atoi(*pid) > 1)
                kill(atoi(*pid), SIGKILL);
        g_usleep(10000);
    }
    log_warning("some processes of the job do not end");
}

/* Or nobody's yet: then it would have been. */
static bool is_workers(const struct run *run)
{
    g_autofree char *machine = machine_id();

    if (!run->owner.host)
        return run->status == RUN_SUBMITTED;
    return run->owner.pid == worker && run->owner.start_ticks == worker_ticks &&
           g_strcmp0(run->owner.machine, machine) == 0;
}

/* The other ranks are told; another than rank 0 has no more than that to settle, behind its mounts.
 */
static bool settle_rank(struct store *root, struct run *run, GError **error)
{
    struct rank_end end = {RUN_INTERRUPTED, ranks_own(run), (char *)"its runner died"};
    bool ours;

    if (!ranks_are_ours(root, run, &ours, error) || !ours)
        return ours;
    if (end.rank) {
        ranks_become(run, end.rank);
        run_clean_remains(run);
    }
    return ranks_tell_end(root, run, &end, error);
}

static bool settle(const struct arguments *arguments, bool killed, GError **error)
{
    g_autoptr(Store) root = open_root(&arguments->where, error);
    const struct engine *engine;
    g_autoptr(Run) run = NULL;

    if (!root)
        return false;
    run = run_store_load(root, arguments->repo, arguments->run, error);
    if (!run)
        return false;
    if (run->lifetime.nodes > 1 && killed && !settle_rank(root, run, error))
        return false;
    if (run_status_is_final(run->status) || ranks_own(run) || !is_workers(run))
        return true;
    if (!run_settle_lost(root, run, NULL, error))
        return false;
    engine = run->status == RUN_INTERRUPTED ? engine_of(run, error) : NULL;
    return run->status != RUN_INTERRUPTED || (engine && engine->start_again(run, error));
}

/* From the beginning until there is somebody to hear them: an engine may have ignored them. */
static void block_ends(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(how, &set, NULL);
}

static int keep(const struct arguments *arguments)
{
    g_autoptr(GError) error = NULL;
    int wait_status;

    signal(SIGTERM, pass_on);
    signal(SIGINT, pass_on);
    signal(SIGHUP, SIG_IGN);
    block_ends(SIG_UNBLOCK);
    wait_status = wait_worker();
    if (wait_status != 0 && !settle(arguments, WIFSIGNALED(wait_status), &error))
        complain(error);
    end_children();
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 1;
}

static bool parse(int argc, char **argv, struct arguments *arguments, GError **error)
{
    gboolean version = FALSE, virtual_host = FALSE, unsigned_payload = FALSE;
    struct store_options *options = &arguments->where.options;
    GOptionEntry entries[] = {
        {"root", 0, 0, G_OPTION_ARG_STRING, &arguments->where.url, "the store's URL", "URL"},
        {"endpoint", 0, 0, G_OPTION_ARG_STRING, &options->endpoint, "of an S3 server", "URL"},
        {"region", 0, 0, G_OPTION_ARG_STRING, &options->region, "of the bucket", "REGION"},
        {"profile", 0, 0, G_OPTION_ARG_STRING, &options->profile, "of credentials", "NAME"},
        {"cacert", 0, 0, G_OPTION_ARG_STRING, &options->cacert, "certificates to trust", "FILE"},
        {"virtual-host", 0, 0, G_OPTION_ARG_NONE, &virtual_host, "bucket.host addressing", NULL},
        {"unsigned-payload", 0, 0, G_OPTION_ARG_NONE, &unsigned_payload, "no hash over http", NULL},
        {"version", 0, 0, G_OPTION_ARG_NONE, &version, "print the version", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL}};
    g_autoptr(GOptionContext) context = g_option_context_new("REPO RUN");

    g_option_context_set_summary(context, "Runs one job on this machine; started by an engine.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, error))
        return false;
    if (version) {
        printf("dstack-runner %s\n", DSTACK_VERSION);
        exit(0);
    }
    options->virtual_host = virtual_host;
    options->unsigned_payload = unsigned_payload;
    if (!arguments->where.url || argc != 3)
        return error_set(error, EINVAL, "usage: dstack-runner --root URL REPO RUN");
    arguments->repo = argv[1];
    arguments->run = argv[2];
    return true;
}

/* GOption made these. */
static void arguments_clear(struct arguments *arguments)
{
    g_free((char *)arguments->where.url);
    g_free((char *)arguments->where.options.endpoint);
    g_free((char *)arguments->where.options.region);
    g_free((char *)arguments->where.options.profile);
    g_free((char *)arguments->where.options.cacert);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    struct arguments arguments = {0};
    int status;

    fd_fill_standard();
    setlocale(LC_ALL, "");
    if (!parse(argc, argv, &arguments, &error)) {
        fprintf(stderr, "dstack-runner: %s\n", error->message);
        arguments_clear(&arguments);
        return 2;
    }
    block_ends(SIG_BLOCK);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    worker = fork();
    if (worker < 0) {
        fprintf(stderr, "dstack-runner: fork: %s\n", g_strerror(errno));
        return 1;
    }
    worker_ticks = process_start_ticks(worker);
    status = worker == 0 ? work(&arguments) : keep(&arguments);
    arguments_clear(&arguments);
    return status;
}
