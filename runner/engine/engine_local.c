/* The local engine: dstack-runner as a background process of this machine.
 *
 * shape:  forked twice with a session of its own, so that the terminal may close; its own messages
 *         go to $DSTACK_HOME/runners/REPO/RUN.log. The job's name is "PID START MACHINE".
 */
#include "config/autofd.h"
#include "config/error.h"
#include "config/paths.h"
#include "runner/engine/engine.h"
#include "runner/engine/runner_command.h"
#include "runner/machine.h"
#include "runner/process.h"
#include "runner/run/lost.h"
#include "runner/work_dir.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_log(const struct run *run, GError **error)
{
    g_autofree char *path = work_dir_messages(run);
    g_autofree char *dir = g_path_get_dirname(path);
    int fd = -1;

    if (g_mkdir_with_parents(dir, 0700) == 0)
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        error_set_errno(error, errno, "open %s", path);
    return fd;
}

/* The middle process: starts the runner in a session of its own, says its PID (or minus an errno
 * value), and is gone, so that the runner is nobody's child. */
static void G_GNUC_NORETURN start_and_leave(const struct process_options *options, int report)
{
    g_autoptr(GError) error = NULL;
    pid_t pid = 0;

    if (!process_start(options, &pid, &error))
        pid = -error_errno(error);
    _exit(write(report, &pid, sizeof pid) == sizeof pid ? 0 : 1);
}

static bool detach(const struct process_options *options, pid_t *pid, GError **error)
{
    g_auto(fd_t) reading = -1, writing = -1;
    pid_t middle;
    int pipes[2];
    bool told;

    if (pipe2(pipes, O_CLOEXEC) != 0)
        return error_set_errno(error, errno, "start the runner");
    reading = pipes[0];
    writing = pipes[1];
    middle = fork();
    if (middle < 0)
        return error_set_errno(error, errno, "start the runner");
    if (middle == 0)
        start_and_leave(options, writing);
    fd_close(&writing);
    told = TEMP_FAILURE_RETRY(read(reading, pid, sizeof *pid)) == sizeof *pid;
    while (waitpid(middle, NULL, 0) < 0 && errno == EINTR)
        ;
    return (told && *pid > 0) ||
           error_set_errno(error, told ? -*pid : EIO, "start %s", options->argv[0]);
}

static bool submit(const struct run_root *root, const struct run *run, char **job, GError **error)
{
    g_autofree char *program = program_find("dstack-runner", error);
    g_auto(GStrv) argv = program ? runner_command(program, root, run) : NULL;
    g_autofree char *home = dstack_home(); /* ours may be relative, and the runner is elsewhere */
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), "DSTACK_HOME", home, TRUE);
    g_auto(fd_t) log = argv ? open_log(run, error) : -1;
    struct process_options options = {.argv = argv, .env = env, .cwd = "/", .output = log};
    g_autofree char *machine = machine_id();
    pid_t pid = 0;

    if (log < 0 || !detach(&options, &pid, error))
        return false;
    g_free(*job);
    *job =
        g_strdup_printf("%d %" G_GUINT64_FORMAT " %s", (int)pid, process_start_ticks(pid), machine);
    return true;
}

/* False: it is not on this machine, or the name is damaged. */
static bool is_here(const struct run *run, pid_t *pid, uint64_t *start_ticks)
{
    g_auto(GStrv) parts = g_strsplit(run->engine_job ? run->engine_job : "", " ", 3);
    g_autofree char *machine = machine_id();
    guint64 number;

    if (g_strv_length(parts) != 3 || strcmp(parts[2], machine) != 0 ||
        !g_ascii_string_to_unsigned(parts[0], 10, 2, G_MAXINT32, &number, NULL) ||
        !g_ascii_string_to_unsigned(parts[1], 10, 0, G_MAXINT64, start_ticks, NULL))
        return false;
    *pid = (pid_t)number;
    return true;
}

static bool check(const struct run_root *root, const struct run *run, GError **error)
{
    return run->lifetime.nodes <= 1 ||
           error_set(error, ENOTSUP, "nodes: %u: the local engine has this machine alone",
                     run->lifetime.nodes);
}

static bool status(const struct run *run, struct engine_answer *answer, GError **error)
{
    uint64_t start_ticks;
    pid_t pid;

    answer->ended = RUN_INTERRUPTED;
    answer->state = !is_here(run, &pid, &start_ticks)    ? ENGINE_UNKNOWN
                    : process_is_alive(pid, start_ticks) ? ENGINE_ALIVE
                                                         : ENGINE_GONE;
    return true;
}

static bool cancel(const struct run *run, GError **error)
{
    uint64_t start_ticks;
    pid_t pid;

    if (!is_here(run, &pid, &start_ticks))
        return error_set(error, ENOTSUP, "run %s is on another machine (%s)", run->name,
                         run->owner.host ? run->owner.host : "unknown");
    if (process_is_alive(pid, start_ticks) && kill(-pid, SIGKILL) != 0 && errno != ESRCH)
        return error_set_errno(error, errno, "end the runner of %s", run->name);
    run_clean_remains(run);
    return true;
}

/* --- from inside: whoever wants a local run to end stops it --- */

static bool is_ours(const struct run *run)
{
    return true;
}

static bool is_restart(const struct run *run)
{
    return false;
}

static void explain_signal(const struct run *run, struct engine_signal *signal)
{
    *signal = (struct engine_signal){.ends = RUN_STOPPED, .left_ms = -1};
}

/* `dstack run` does, as long as it follows the run. */
static bool start_again(const struct run *run, GError **error)
{
    return true;
}

const struct engine engine_local = {
    .name = "local",
    .check = check,
    .submit = submit,
    .status = status,
    .cancel = cancel,
    .is_ours = is_ours,
    .is_restart = is_restart,
    .explain_signal = explain_signal,
    .start_again = start_again,
};
