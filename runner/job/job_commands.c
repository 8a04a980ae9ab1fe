/* One loop on the runner's main thread: output, the ends of children, wishes, the grace.
 *
 *   running ──wish: stop or interrupt, or a mount died──▶ ending (SIGTERM or the run's stop_signal,
 *                                                          grace) ──grace over──▶ SIGKILL
 *   running ──wish: abort──▶ SIGKILL
 *
 * The commands have ended when bash has; what it left in the background is ended then. A stop is
 * different: bash dies at once of the SIGTERM that the whole group gets, so that the others of the
 * group, who may be saving, are waited for until the grace is over.
 */
#include "runner/job/job_commands.h"
#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/job/oom.h"
#include "runner/machine.h"
#include "runner/process.h"
#include "runner/provider/provider.h"
#include "runner/work_dir.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

enum { OUTPUT_BLOCK = 65536, IDLE_MS = 1000, FULL_MS = 50, LEFTOVER_MS = 2000, KILL_MS = 5000 };
enum { ROOM_MIN = 1024 * 1024 };

struct loop {
    const struct run *run;
    struct job_watch *watch;
    struct log_writer *log;
    struct launch *launch;
    struct mounts *mounts;
    job_stopping *stopping;
    void *user;
    struct job_end *end;
    int signals, output;
    pid_t pid;       /* of bash; its process group too */
    int wait_status; /* valid when ended */
    bool ended, killed;
    uint64_t oom_kills; /* of the machine, before */
    int64_t kill_us;    /* 0: not ending */
};

/* To the log, but for secrets. SIZE 0: the end. */
static void add_output(struct loop *loop, const char *data, size_t size)
{
    g_autoptr(GByteArray) shown = NULL;

    if (!loop->launch->mask) {
        log_writer_add(loop->log, data, size);
        return;
    }
    shown = g_byte_array_new();
    if (size)
        mask_add(loop->launch->mask, data, size, shown);
    else
        mask_end(loop->launch->mask, shown);
    log_writer_add(loop->log, (const char *)shown->data, shown->len);
}

/* False at the end of the output. */
static bool read_output(struct loop *loop)
{
    char block[OUTPUT_BLOCK];
    ssize_t got = TEMP_FAILURE_RETRY(read(loop->output, block, sizeof block));

    if (got > 0)
        add_output(loop, block, (size_t)got);
    return got > 0 || (got < 0 && errno == EAGAIN);
}

static void kill_now(struct loop *loop)
{
    kill(-loop->pid, SIGKILL);
    processes_signal(JOB_VARIABLE, loop->run->id, SIGKILL);
    loop->killed = true;
}

static int stop_signal(const struct run *run)
{
    return run->lifetime.stop_signal ? run->lifetime.stop_signal : SIGTERM;
}

/* Half of the time that is left, when the machine goes: the other half is for saving. */
static int64_t grace_us(const struct loop *loop)
{
    int64_t left_ms = job_watch_left_ms(loop->watch);

    return left_ms < 0 ? (int64_t)loop->run->grace_s * G_USEC_PER_SEC : left_ms / 2 * 1000;
}

static void begin_end(struct loop *loop)
{
    if (loop->kill_us)
        return;
    kill(-loop->pid, stop_signal(loop->run));
    kill(-loop->pid, SIGCONT); /* a stopped process could not act on it */
    loop->kill_us = g_get_monotonic_time() + grace_us(loop);
}

static void heed_wish(struct loop *loop)
{
    enum stop_wish wish = job_watch_wish(loop->watch);
    uint64_t count;

    if (read(loop->watch->fd, &count, sizeof count) < 0 && errno != EAGAIN)
        log_warning("cannot read the stop event");
    if (wish <= loop->end->wish)
        return;
    loop->end->wish = wish;
    loop->stopping(wish, loop->user);
    if (wish == STOP_ABORT)
        kill_now(loop);
    else
        begin_end(loop);
}

static void reap(struct loop *loop)
{
    g_autoptr(GError) died = NULL;

    if (!loop->ended && waitpid(loop->pid, &loop->wait_status, WNOHANG) == loop->pid)
        loop->ended = true;
    if (mounts_alive(loop->mounts, &died))
        return;
    log_error("%s", died->message);
    if (!loop->end->reason)
        loop->end->reason = g_strdup(died->message);
    begin_end(loop);
}

static void heed_signals(struct loop *loop)
{
    struct signalfd_siginfo info;

    while (read(loop->signals, &info, sizeof info) == sizeof info)
        ; /* SIGCHLD: of somebody */
    reap(loop);
}

/* The group outlives bash, and was asked to end a moment ago. (Its zombies are the keeper's.) */
static bool is_group_ending(const struct loop *loop)
{
    return loop->kill_us && !loop->killed && kill(-loop->pid, 0) == 0;
}

static int timeout_ms(const struct loop *loop, bool room)
{
    int64_t left_us = loop->kill_us - g_get_monotonic_time();
    int limit = room && !loop->ended ? IDLE_MS : FULL_MS; /* nothing tells of the group's end */

    if (!loop->kill_us || loop->killed)
        return limit;
    return (int)CLAMP(left_us / 1000 + 1, 0, limit);
}

static void wait_for_end(struct loop *loop)
{
    heed_wish(loop);
    while (!loop->ended || is_group_ending(loop)) {
        bool room = log_writer_has_room(loop->log);
        struct pollfd fds[] = {{loop->signals, POLLIN, 0},
                               {loop->watch->fd, POLLIN, 0},
                               {room ? loop->output : -1, POLLIN, 0}};

        if (poll(fds, G_N_ELEMENTS(fds), timeout_ms(loop, room)) < 0 && errno != EINTR)
            log_warning("poll: %s", g_strerror(errno));
        if (fds[2].revents && !read_output(loop))
            fd_close(&loop->output); /* closed by all: only the end is waited for */
        heed_signals(loop);
        heed_wish(loop);
        if (loop->kill_us && !loop->killed && g_get_monotonic_time() >= loop->kill_us)
            kill_now(loop);
    }
}

/* What the commands left in the background must not outlive them, nor write on into artifacts. */
static void end_leftovers(struct loop *loop)
{
    int64_t left_ms = job_watch_left_ms(loop->watch);
    unsigned leftover_ms = left_ms < 0 ? LEFTOVER_MS : (unsigned)MIN(left_ms / 4, LEFTOVER_MS);

    if (!processes_end(JOB_VARIABLE, loop->run->id, SIGTERM, leftover_ms))
        processes_end(JOB_VARIABLE, loop->run->id, SIGKILL, KILL_MS);
}

static void read_rest(struct loop *loop)
{
    struct pollfd pollfd = {loop->output, POLLIN, 0};

    while (loop->output >= 0 && poll(&pollfd, 1, 0) > 0)
        if (!read_output(loop))
            break;
    fd_close(&loop->output);
    add_output(loop, "", 0);
}

static bool start(struct loop *loop, GError **error)
{
    const struct provider *provider = provider_find(loop->run->provider, error);
    g_auto(GStrv) argv = provider ? provider->prepare(loop->launch, error) : NULL;
    g_autofree char *cwd = work_dir_commands(loop->run);
    struct process_options options = {
        .argv = argv, .env = loop->launch->env, .cwd = cwd, .parent_death = SIGKILL};
    g_auto(fd_t) writing = -1;
    int pipes[2];

    if (!argv)
        return false;
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return error_set_errno(error, errno, "make a pipe");
    loop->output = pipes[0];
    writing = options.output = pipes[1];
    if (fcntl(loop->output, F_SETFL, O_NONBLOCK) != 0)
        error_set_errno(error, errno, "make a pipe");
    else if (process_start(&options, &loop->pid, error))
        return true;
    fd_close(&loop->output);
    return false;
}

static void hear_why(struct loop *loop)
{
    int code = loop->end->exit_code;

    job_watch_hear(loop->watch, code == 128 + SIGTERM || code == 128 + SIGKILL);
    loop->end->wish = job_watch_wish(loop->watch);
    if (loop->end->wish != STOP_NONE)
        loop->stopping(loop->end->wish, loop->user);
}

/* What few programs say clearly, and their exit status never. NULL: it has room. */
static char *full_disk_text(const struct run *run)
{
    g_autofree char *work = g_path_get_dirname(run->owner.work_dir);
    struct statvfs st;

    if (statvfs(work, &st) != 0 || (uint64_t)st.f_bavail * st.f_frsize >= ROOM_MIN)
        return NULL;
    return g_strdup_printf("; the disk of %s is full", work);
}

/* Bash's own exit status is that of a command that was killed. */
static char *failure_text(const struct loop *loop)
{
    g_autofree char *text = process_exit_text(loop->wait_status);
    g_autofree char *full = full_disk_text(loop->run);
    bool killed = process_exit_code(loop->wait_status) == 128 + SIGKILL && !loop->killed;

    if (killed && oom_kills() > loop->oom_kills)
        return g_strconcat(text, ", out of memory", NULL);
    return g_strconcat(text, full, NULL);
}

bool job_commands_run(struct launch *launch, struct job_watch *watch, struct log_writer *log,
                      struct mounts *mounts, int signals, job_stopping *stopping, void *user,
                      struct job_end *end, GError **error)
{
    struct loop loop = {.run = launch->run,
                        .launch = launch,
                        .watch = watch,
                        .log = log,
                        .mounts = mounts,
                        .stopping = stopping,
                        .user = user,
                        .end = end,
                        .signals = signals,
                        .output = -1,
                        .oom_kills = oom_kills()};

    if (!start(&loop, error))
        return false;
    wait_for_end(&loop);
    end_leftovers(&loop);
    provider_find(loop.run->provider, NULL)->clean(loop.run);
    read_rest(&loop);
    end->exit_code = process_exit_code(loop.wait_status);
    if (end->exit_code != 0 && end->wish == STOP_NONE)
        hear_why(&loop);
    if (!end->reason && end->wish == STOP_NONE && loop.wait_status != 0)
        end->reason = failure_text(&loop);
    return true;
}
