#include "runner/process.h"
#include "config/autofd.h"
#include "config/error.h"
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child: report ERRNO to the parent and end. */
static void G_GNUC_NORETURN give_up(int report)
{
    int code = errno;

    if (write(report, &code, sizeof code) != sizeof code)
        _exit(126);
    _exit(127);
}

static void reset_signals(void)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void G_GNUC_NORETURN become(const struct process_options *options, int report, pid_t parent)
{
    int null = open("/dev/null", O_RDWR);

    setsid();
    reset_signals();
    if (options->parent_death && prctl(PR_SET_PDEATHSIG, options->parent_death) != 0)
        give_up(report);
    if (getppid() != parent) /* it died before prctl */
        _exit(127);
    if (null < 0 || dup2(null, 0) < 0 || dup2(options->output, 1) < 0 ||
        dup2(options->output, 2) < 0 || (options->cwd && chdir(options->cwd) != 0))
        give_up(report);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC); /* what libraries and our parent left open */
    execve(options->argv[0], options->argv, options->env);
    give_up(report);
}

bool process_start(const struct process_options *options, pid_t *pid, GError **error)
{
    g_auto(fd_t) reading = -1, writing = -1;
    pid_t parent = getpid();
    int pipes[2], code;

    if (pipe2(pipes, O_CLOEXEC) != 0)
        return error_set_errno(error, errno, "start %s", options->argv[0]);
    reading = pipes[0];
    writing = pipes[1];
    *pid = fork();
    if (*pid < 0)
        return error_set_errno(error, errno, "start %s", options->argv[0]);
    if (*pid == 0)
        become(options, writing, parent);
    fd_close(&writing);
    if (TEMP_FAILURE_RETRY(read(reading, &code, sizeof code)) != sizeof code)
        return true; /* closed by exec */
    while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return error_set_errno(error, code, "start %s in %s", options->argv[0],
                           options->cwd ? options->cwd : ".");
}

int process_exit_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

char *process_exit_text(int status)
{
    if (WIFSIGNALED(status))
        return g_strdup_printf("killed by signal %d (%s)", WTERMSIG(status),
                               g_strsignal(WTERMSIG(status)));
    return g_strdup_printf("exit status %d", WEXITSTATUS(status));
}

char *program_find(const char *program, GError **error)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = self ? g_path_get_dirname(self) : NULL;
    g_autofree char *beside = dir ? g_build_filename(dir, program, NULL) : NULL;
    char *found;

    if (beside && access(beside, X_OK) == 0)
        return g_steal_pointer(&beside);
    found = g_find_program_in_path(program);
    if (!found)
        error_set(error, ENOENT, "%s is neither in %s nor in PATH", program, dir ? dir : "?");
    return found;
}
