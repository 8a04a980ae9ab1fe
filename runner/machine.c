#include "runner/machine.h"
#include "config/error.h"
#include "config/log.h"
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_AGAIN_MS = 20, EXEC_TRIES = 100, EXEC_TRY_US = 300, BARE_TIMES = 8 };

static bool read_proc(pid_t pid, const char *file, char **data, gsize *size)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", (int)pid, file);

    return g_file_get_contents(path, data, size, NULL);
}

/* The kernel's own threads have none, zombies neither. */
static bool has_program(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/exe", (int)pid);

    return access(path, F_OK) == 0;
}

/* A process in the middle of execve(2) has neither arguments nor environment for an instant; one
 * that was started without an environment has arguments each time it is looked at. */
static bool read_environment(pid_t pid, char **data, gsize *size)
{
    unsigned bare = 0;

    for (unsigned i = 0; i < EXEC_TRIES && bare < BARE_TIMES; i++) {
        g_autofree char *arguments = NULL;
        gsize length;

        if (i)
            g_usleep(EXEC_TRY_US * (1 + i % BARE_TIMES)); /* out of step with whatever it does */
        g_clear_pointer(data, g_free);
        if (!read_proc(pid, "cmdline", &arguments, &length) ||
            !read_proc(pid, "environ", data, size))
            return false;
        if (*size || !has_program(pid))
            return true;
        bare += length > 0;
    }
    return true;
}

static bool has_variable(pid_t pid, const char *entry)
{
    g_autofree char *data = NULL;
    gsize size = 0;

    if (!read_environment(pid, &data, &size))
        return false;
    for (const char *at = data; at < data + size; at += strlen(at) + 1)
        if (strcmp(at, entry) == 0)
            return true;
    return false;
}

unsigned processes_signal(const char *variable, const char *id, int signal)
{
    g_autofree char *entry = g_strdup_printf("%s=%s", variable, id);
    g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
    const char *name;
    unsigned count = 0;

    while (proc && (name = g_dir_read_name(proc))) {
        pid_t pid = (pid_t)strtol(name, NULL, 10);

        if (pid <= 1 || pid == getpid() || !has_variable(pid, entry) || !process_start_ticks(pid))
            continue;
        if (signal)
            kill(pid, signal);
        count++;
    }
    return count;
}

bool processes_end(const char *variable, const char *id, int signal, unsigned timeout_ms)
{
    int64_t until = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;

    while (processes_signal(variable, id, signal)) {
        if (g_get_monotonic_time() > until)
            return false;
        g_usleep(LOOK_AGAIN_MS * 1000);
        if (signal == SIGTERM) /* once is enough: they are saving */
            signal = 0;
    }
    return true;
}

static void detach(const char *mountpoint)
{
    const char *argv[] = {"fusermount3", "-u", "-z", "-q", mountpoint, NULL};

    if (umount2(mountpoint, MNT_DETACH) == 0)
        return;
    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL,
                      NULL))
        log_warning("cannot unmount %s", mountpoint);
}

/* Undoes the octal escapes of /proc/self/mountinfo, in place. */
static void unescape(char *text)
{
    g_autofree char *plain = g_strcompress(text);

    memcpy(text, plain, strlen(plain) + 1); /* never longer than what it came from */
}

void mounts_detach(const char *path)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    size_t length = strlen(path);

    if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
        return;
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, " ", -1);

        if (g_strv_length(fields) < 7 || !strstr(*line, " - fuse"))
            continue;
        unescape(fields[4]);
        if (strncmp(fields[4], path, length) == 0 && strchr("/", fields[4][length]))
            detach(fields[4]);
    }
}

/* A directory that nobody may write is emptied all the same: it is ours. */
static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    if (remove(path) == 0 || errno == ENOENT)
        return 0;
    if (errno == EACCES) {
        g_autofree char *parent = g_path_get_dirname(path);

        if (chmod(parent, 0700) == 0 && (remove(path) == 0 || errno == ENOENT))
            return 0;
    }
    return errno;
}

bool tree_remove(const char *path, GError **error)
{
    int code = nftw(path, remove_entry, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

    if (code == 0 || (code == -1 && errno == ENOENT))
        return true;
    return error_set_errno(error, code > 0 ? code : errno, "remove %s", path);
}
