/* The mount itself: made, served and taken away. */
#include "fusefs/fuse_internal.h"

#include "config/error.h"
#include "config/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define MAX_THREADS 128

/* What libfuse said last, for the error of a mount that failed. */
static char last_message[512];

static void G_GNUC_PRINTF(2, 0)
    on_fuse_log(enum fuse_log_level level, const char *format, va_list args)
{
    vsnprintf(last_message, sizeof(last_message), format, args);
    g_strchomp(last_message);
    if (level <= FUSE_LOG_WARNING)
        log_info("%s", last_message);
}

static void wake_main(int signal_number)
{
    /* only interrupts the wait of fuse_session_loop_mt */
}

/* The kernel reads ahead 128 KiB by default; object stores want more. Only root may say so. */
static void raise_readahead(const char *mountpoint)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
        return;
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_auto(GStrv) fields = g_strsplit(*line, " ", 6);
        g_autofree char *path = NULL;
        FILE *file;

        if (g_strv_length(fields) < 6 || strcmp(fields[4], mountpoint) != 0)
            continue;
        path = g_strdup_printf("/sys/class/bdi/%s/read_ahead_kb", fields[2]);
        file = fopen(path, "w");
        if (file) {
            fprintf(file, "%d\n", FUSE_READAHEAD_KB);
            fclose(file);
        }
    }
}

static struct fuse_session *session_new(struct fuse_ops *ops)
{
    const struct fuse_ops_options *options = &ops->options;
    g_autofree char *name = g_strdup(options->name);
    g_autofree char *text = NULL;
    struct fuse_session *session;
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);

    g_strdelimit(name, ",\\", '_');
    text = g_strdup_printf("fsname=%s,subtype=dstack,default_permissions,max_read=%d%s%s%s", name,
                           FUSE_MAX_REQUEST, options->read_only ? ",ro" : "",
                           options->mount_options && *options->mount_options ? "," : "",
                           options->mount_options ? options->mount_options : "");
    fuse_opt_add_arg(&args, "dstack-mount");
    fuse_opt_add_arg(&args, "-o");
    fuse_opt_add_arg(&args, text);
    session = fuse_session_new(&args, &fuse_operations, sizeof(fuse_operations), ops);
    fuse_opt_free_args(&args);
    return session;
}

struct fuse_ops *fuse_ops_mount(struct fs *fs, const char *mountpoint,
                                const struct fuse_ops_options *options, GError **error)
{
    struct fuse_ops *ops = g_new0(struct fuse_ops, 1);

    ops->fs = fs;
    ops->options = *options;
    fuse_set_log_func(on_fuse_log);
    ops->session = session_new(ops);
    if (!ops->session) {
        error_set(error, EINVAL, "-o %s: not all of it is understood", options->mount_options);
        g_free(ops);
        return NULL;
    }
    if (fuse_session_mount(ops->session, mountpoint) != 0) {
        if (access("/dev/fuse", F_OK) != 0)
            error_set(error, ENODEV,
                      "/dev/fuse is not there: load the kernel's fuse module, or give the "
                      "container the device");
        else
            error_set(error, EIO, "mount on %s: %s", mountpoint, last_message);
        fuse_session_destroy(ops->session);
        g_free(ops);
        return NULL;
    }
    ops->mountpoint = g_strdup(mountpoint);
    raise_readahead(mountpoint);
    return ops;
}

static int run_session(struct fuse_session *session)
{
#ifdef DSTACK_FUSE_312
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    int rc;

    fuse_loop_cfg_set_clone_fd(config, 1);
    fuse_loop_cfg_set_max_threads(config, MAX_THREADS);
    fuse_loop_cfg_set_idle_threads(config, 16);
    rc = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return rc;
#else
    struct fuse_loop_config config = {.clone_fd = 1, .max_idle_threads = 16};

    return fuse_session_loop_mt(session, &config);
#endif
}

static void ask_forget(void *user, uint64_t parent, const char *name)
{
    fuse_lowlevel_notify_inval_entry(user, parent, name, strlen(name));
}

bool fuse_ops_run(struct fuse_ops *ops, GError **error)
{
    struct sigaction wake = {.sa_handler = wake_main};
    sigset_t usr1;
    int rc;

    sigaction(SIGUSR1, &wake, NULL);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
    ops->main_thread = pthread_self();
    atomic_store(&ops->running, true);
    fs_forget_start(ops->fs, ask_forget, ops->session);
    rc = run_session(ops->session);
    fs_forget_stop(ops->fs);
    atomic_store(&ops->running, false);
    if (rc < 0 && rc != -EINTR)
        return error_set_errno(error, -rc, "serve the mount");
    return true;
}

void fuse_ops_exit(struct fuse_ops *ops)
{
    fs_forget_stop(ops->fs); /* while requests are served, one of which it may wait for */
    fuse_session_exit(ops->session);
    while (atomic_load(&ops->running)) {
        pthread_kill(ops->main_thread, SIGUSR1);
        g_usleep(20000);
    }
}

void fuse_ops_detach(struct fuse_ops *ops)
{
    /* Ends the requests under way too, if we may: our own thread may wait in the kernel for one. */
    umount2(ops->mountpoint, MNT_FORCE | MNT_DETACH);
    fuse_session_unmount(ops->session);
}

void fuse_ops_unmount(struct fuse_ops *ops)
{
    fuse_session_unmount(ops->session);
    fuse_session_destroy(ops->session);
    g_free(ops->mountpoint);
    g_free(ops);
}
