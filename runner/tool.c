#include "runner/tool.h"
#include "config/autofd.h"
#include "config/error.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT_MAX = 1024 * 1024, WORDS_MAX = 500, LOOK_AGAIN_MS = 5, LOOK_LESS_MS = 50 };

/* A file in memory: nobody has to read and write at the same time. */
static bool open_memory(const char *text, int *fd, GError **error)
{
    size_t size = text ? strlen(text) : 0;

    *fd = memfd_create("dstack", MFD_CLOEXEC);
    if (*fd >= 0 && TEMP_FAILURE_RETRY(write(*fd, text ? text : "", size)) == (ssize_t)size &&
        lseek(*fd, 0, SEEK_SET) == 0)
        return true;
    return error_set_errno(error, errno, "make a file in memory");
}

static char *read_back(int fd)
{
    char *text = g_malloc(OUTPUT_MAX + 1);
    ssize_t size = TEMP_FAILURE_RETRY(pread(fd, text, OUTPUT_MAX, 0));

    text[MAX(size, 0)] = '\0';
    return text;
}

/* False: it took too long, and is dead. */
static bool wait_end(pid_t pid, unsigned timeout_ms, int *wait_status)
{
    int64_t began_us = g_get_monotonic_time(), now_us = began_us;
    pid_t ended;

    while ((ended = waitpid(pid, wait_status, WNOHANG)) == 0 || (ended < 0 && errno == EINTR)) {
        if (now_us - began_us > (int64_t)timeout_ms * 1000) {
            kill(pid, SIGKILL);
            while (waitpid(pid, wait_status, 0) < 0 && errno == EINTR)
                ;
            return false;
        }
        g_usleep((now_us - began_us < G_USEC_PER_SEC ? LOOK_AGAIN_MS : LOOK_LESS_MS) * 1000);
        now_us = g_get_monotonic_time();
    }
    return true;
}

/* What it said, as one line. */
static char *one_line(char *text)
{
    g_autofree char *valid = g_utf8_make_valid(g_strstrip(text), -1);
    GString *line = g_string_new(NULL);

    for (const char *at = valid; *at && line->len < WORDS_MAX; at = g_utf8_next_char(at)) {
        gunichar c = g_utf8_get_char(at);

        g_string_append_unichar(line, g_unichar_iscntrl(c) ? ' ' : c);
    }
    return g_string_free(line, FALSE);
}

static bool explain(const struct tool *tool, int wait_status, int complaints, GError **error)
{
    g_autofree char *text = read_back(complaints);
    g_autofree char *line = one_line(text);

    return error_set(error, EIO, "%s: %s", tool->argv[0],
                     *line                      ? line
                     : WIFSIGNALED(wait_status) ? g_strsignal(WTERMSIG(wait_status))
                                                : "it failed without a word");
}

static bool start(const struct tool *tool, const int fds[3], pid_t *pid, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (g_spawn_async_with_fds(NULL, (char **)tool->argv, NULL,
                               G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, pid,
                               fds[0], fds[1], fds[2], &why))
        return true;
    if (g_error_matches(why, G_SPAWN_ERROR, G_SPAWN_ERROR_NOENT))
        return error_set(error, ENOENT, "there is no %s on this machine", tool->argv[0]);
    return error_set(error, EIO, "%s", why->message);
}

bool tool_run(const struct tool *tool, char **output, GError **error)
{
    g_auto(fd_t) input = -1, out = -1, complaints = -1;
    int wait_status = 0;
    pid_t pid;

    if (!open_memory(tool->input, &input, error) || !open_memory(NULL, &out, error) ||
        !open_memory(NULL, &complaints, error) ||
        !start(tool, (const int[]){input, out, complaints}, &pid, error))
        return false;
    if (!wait_end(pid, tool->timeout_ms, &wait_status))
        return error_set(error, ETIMEDOUT, "%s does not answer after %u s", tool->argv[0],
                         tool->timeout_ms / 1000);
    if (wait_status != 0)
        return explain(tool, wait_status, complaints, error);
    if (output)
        *output = read_back(out);
    return true;
}
