/* dstack-mount: an object store's prefix, or a run's or tag's artifacts, as a directory.
 *
 * threads: the calling process forks before any thread exists; afterwards the main thread serves
 * the kernel, and one more waits for signals and drains.
 */
#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "config/units.h"
#include "fusefs/budget.h"
#include "fusefs/fs.h"
#include "fusefs/fuse_ops.h"
#include "fusefs/journal.h"
#include "fusefs/lease.h"
#include "fusefs/status.h"
#include "fusefs/stop_signals.h"
#include "storage/remote.h"

#include <fcntl.h>
#include <locale.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOLD_PATHS   5
#define TELL_AFTER_S 5  /* how long a drain takes before it says what it waits for, and... */
#define TELL_AGAIN_S 30 /* ...how long before it does so again */
#define READY                                                                                      \
    "ready\n" /* the last line of a mount that answers; before it come lines for people            \
               */

enum mode {
    MODE_DEFAULT, /* exclusive, or shared where the store cannot */
    MODE_EXCLUSIVE,
    MODE_SHARED,
    MODE_READ_ONLY,
};

struct program {
    /* what was asked for */
    char *source, *mountpoint;
    char *endpoint, *region, *profile, *cacert, *status_file;
    char *budget, *part_size, *mode_name, **mount_options, *journal_dir;
    int sync_interval_ms, attr_ttl_ms, drain_timeout_s, lease_ttl_s;
    int parent; /* a process; 0: none */
    gboolean foreground, virtual_host, unsigned_payload, version, no_journal;
    enum mode mode;
    char *other_options;
    /* what came of it */
    int ready_fd; /* the waiting parent; -1: none */
    struct fs *fs;
    struct fuse_ops *ops;
    struct lease *lease;
    struct journal *journal;
    atomic_bool drained, failed;
    pthread_t signal_thread;
};
typedef struct program Program;

static gboolean parse_arguments(struct program *p, int *argc, char ***argv, GError **error)
{
    const GOptionEntry entries[] = {
        {"foreground", 'f', 0, G_OPTION_ARG_NONE, &p->foreground, "Stay in the foreground", NULL},
        {"option", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &p->mount_options,
         "Mount options: ro, allow_other, … (comma-separated)", "OPT,…"},
        {"endpoint", 0, 0, G_OPTION_ARG_STRING, &p->endpoint, "The S3 server, when it is not AWS",
         "URL"},
        {"region", 0, 0, G_OPTION_ARG_STRING, &p->region, "The bucket's region", "REGION"},
        {"profile", 0, 0, G_OPTION_ARG_STRING, &p->profile, "Profile in ~/.aws/credentials",
         "NAME"},
        {"cacert", 0, 0, G_OPTION_ARG_FILENAME, &p->cacert,
         "Trust this certificate authority (PEM)", "FILE"},
        {"virtual-host", 0, 0, G_OPTION_ARG_NONE, &p->virtual_host,
         "Address the bucket as BUCKET.HOST", NULL},
        {"unsigned-payload", 0, 0, G_OPTION_ARG_NONE, &p->unsigned_payload,
         "Over http, do not sign what is uploaded with its SHA-256", NULL},
        {"budget", 0, 0, G_OPTION_ARG_STRING, &p->budget,
         "Memory for unsaved data and read-ahead (512MiB, or a quarter of the cgroup)", "SIZE"},
        {"part-size", 0, 0, G_OPTION_ARG_STRING, &p->part_size,
         "Size of an upload's first parts (8MiB)", "SIZE"},
        {"mode", 0, 0, G_OPTION_ARG_STRING, &p->mode_name,
         "exclusive (one writer, nothing is asked twice; the default), shared, read-only", "MODE"},
        {"lease-ttl", 0, 0, G_OPTION_ARG_INT, &p->lease_ttl_s,
         "An exclusive writer that is not heard of for this long may be replaced (20)", "SECONDS"},
        {"sync-interval", 0, 0, G_OPTION_ARG_INT, &p->sync_interval_ms,
         "Publish slowly growing files this often (1000)", "MS"},
        {"attr-ttl", 0, 0, G_OPTION_ARG_INT, &p->attr_ttl_ms,
         "Believe what the store said for this long (1000)", "MS"},
        {"drain-timeout", 0, 0, G_OPTION_ARG_INT, &p->drain_timeout_s,
         "At SIGTERM, save for at most this long (0: until all is saved)", "SECONDS"},
        {"journal", 0, 0, G_OPTION_ARG_FILENAME, &p->journal_dir,
         "Keep unsaved data here while it is unsaved, for after a crash (/dev/shm/dstack-UID)",
         "DIR"},
        {"no-journal", 0, 0, G_OPTION_ARG_NONE, &p->no_journal,
         "Keep it in memory alone, and leave alone what an earlier crash left", NULL},
        {"parent", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_INT, &p->parent,
         "Heed signals of this process alone, while it is the parent", "PID"},
        {"status-file", 0, 0, G_OPTION_ARG_FILENAME, &p->status_file,
         "Keep the state here, as JSON", "FILE"},
        {"version", 0, 0, G_OPTION_ARG_NONE, &p->version, "Print the version", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new("URL|RUN|:TAG MOUNTPOINT");

    g_option_context_set_summary(context,
                                 "Mounts an object store's prefix (s3://BUCKET/PREFIX, "
                                 "file:///DIR), or the artifacts of a run or tag.\n"
                                 "Returns when the mount answers. Unmount with fusermount3 -u, or "
                                 "SIGTERM: all that is unsaved is saved first.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, error))
        return FALSE;
    if (p->version)
        return TRUE;
    if (*argc != 3)
        return error_set(error, EINVAL, "usage: dstack-mount URL|RUN|:TAG MOUNTPOINT (see --help)");
    p->source = g_strdup((*argv)[1]);
    p->mountpoint = g_canonicalize_filename((*argv)[2], NULL);
    return TRUE;
}

/* "ro" is ours to know too; everything else goes to the kernel's mount as it is. */
static void split_options(struct program *p)
{
    g_autoptr(GString) other = g_string_new(NULL);

    for (char **list = p->mount_options; list && *list; list++) {
        g_auto(GStrv) options = g_strsplit(*list, ",", -1);

        for (char **option = options; *option; option++) {
            if (strcmp(*option, "ro") == 0)
                p->mode = MODE_READ_ONLY;
            else if (**option && strcmp(*option, "rw") != 0)
                g_string_append_printf(other, "%s%s", other->len ? "," : "", *option);
        }
    }
    p->other_options = g_strdup(other->str);
}

static gboolean check_mountpoint(const char *path, GError **error)
{
    g_autoptr(GDir) dir = NULL;
    struct stat st;

    if (stat(path, &st) != 0) {
        if (errno == ENOTCONN)
            return error_set(error, ENOTCONN,
                             "%s: a dead mount is still there; free it with fusermount3 -uz %s",
                             path, path);
        return error_set(error, errno, "mountpoint %s: %s; make it with mkdir", path,
                         g_strerror(errno));
    }
    if (!S_ISDIR(st.st_mode))
        return error_set(error, ENOTDIR, "mountpoint %s: not a directory", path);
    dir = g_dir_open(path, 0, NULL);
    if (!dir)
        return error_set(error, EACCES, "mountpoint %s: cannot be read", path);
    if (g_dir_read_name(dir))
        return error_set(error, ENOTEMPTY, "mountpoint %s: not empty; mount on an empty directory",
                         path);
    return TRUE;
}

/* A mount inside its own store would have to answer while it asks itself. */
static gboolean check_not_inside(const struct program *p, GError **error)
{
    g_autofree char *path = NULL, *store = NULL, *mountpoint = NULL;

    if (!g_str_has_prefix(p->source, "file://"))
        return TRUE;
    path = g_uri_unescape_string(p->source + strlen("file://"), NULL);
    store = path ? realpath(path, NULL) : NULL;
    mountpoint = realpath(p->mountpoint, NULL);
    if (!store || !mountpoint || !g_str_has_prefix(mountpoint, store) ||
        !strchr("/", mountpoint[strlen(store)]))
        return TRUE;
    return error_set(error, EINVAL, "mountpoint %s: it is inside the store %s; mount elsewhere",
                     p->mountpoint, p->source);
}

static struct store *open_source(struct program *p, char **url, GError **error)
{
    struct store_options options = {
        .endpoint = p->endpoint,
        .region = p->region,
        .profile = p->profile,
        .cacert = p->cacert,
        .virtual_host = p->virtual_host,
        .unsigned_payload = p->unsigned_payload,
    };

    if (!strstr(p->source, "://")) {
        if (p->mode == MODE_DEFAULT)
            p->mode = MODE_READ_ONLY; /* a run's own job writes them; a tag's do not change */
        return remote_open_artifacts(p->source, url, error);
    }
    *url =
        g_str_has_suffix(p->source, "/") ? g_strdup(p->source) : g_strconcat(p->source, "/", NULL);
    return store_open(*url, &options, error);
}

static gboolean read_size(const char *text, const char *name, uint64_t *bytes, GError **error)
{
    if (!text || size_parse(text, bytes))
        return TRUE;
    return error_set(error, EINVAL, "--%s %s: not a size; write it like 256MiB", name, text);
}

static bool read_mode(struct program *p, GError **error)
{
    static const char *const names[] = {"", "exclusive", "shared", "read-only"};

    for (unsigned i = 1; p->mode_name && i < G_N_ELEMENTS(names); i++) {
        if (strcmp(p->mode_name, names[i]) != 0)
            continue;
        if (p->mode == MODE_READ_ONLY && i != MODE_READ_ONLY)
            return error_set(error, EINVAL, "-o ro and --mode %s exclude each other", names[i]);
        p->mode = i;
        return true;
    }
    return !p->mode_name || error_set(error, EINVAL,
                                      "--mode %s: not a mode; there are exclusive, shared and "
                                      "read-only",
                                      p->mode_name);
}

/* A line for whoever waits for the mount: on the terminal, or through the parent. */
static void tell(const char *line, void *user)
{
    struct program *p = user;
    g_autofree char *text = g_strdup_printf("dstack-mount: %s\n", line);
    ssize_t written = write(p->ready_fd >= 0 ? p->ready_fd : STDERR_FILENO, text, strlen(text));

    (void)written; /* nobody listens */
}

static bool is_asked_to_stop(void *user)
{
    sigset_t pending;

    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT));
}

/* Takes the lease that the mode asks for. */
static bool take_lease(struct program *p, struct store *store, struct lease_record **previous,
                       GError **error)
{
    const struct store_caps *caps = store_caps(store);
    struct lease_options options = {
        .ttl_ms = p->lease_ttl_s * 1000,
        .waiting = tell,
        .cancelled = is_asked_to_stop,
        .user = p,
    };

    *previous = NULL;
    if (p->mode == MODE_READ_ONLY)
        return true;
    if (p->mode == MODE_DEFAULT && !(caps->has_put_if_absent && caps->has_put_if_match)) {
        tell("the store has no conditional PUT: mounted shared, other writers are not kept away",
             p);
        p->mode = MODE_SHARED;
    }
    options.exclusive = p->mode != MODE_SHARED;
    p->lease = lease_acquire(store, &options, previous, error);
    if (!p->lease && error && error_is(*error, EACCES))
        g_prefix_error(error, "cannot write (with -o ro it is only read): ");
    return p->lease != NULL;
}

static void set_status(struct program *p, const char *state, const char *error,
                       const GPtrArray *unsaved)
{
    status_write(p->status_file, state, p->mountpoint, p->fs ? fs_recovered(p->fs) : NULL, error,
                 unsaved);
}

static void report_ready(void *user)
{
    struct program *p = user;

    set_status(p, "ready", NULL, NULL);
    if (p->ready_fd >= 0) {
        ssize_t written = write(p->ready_fd, READY, strlen(READY));

        (void)written; /* the parent is gone: nobody waits */
        close(p->ready_fd);
        p->ready_fd = -1;
    }
}

static void tell_unsaved(struct program *p, const GPtrArray *unsaved, int64_t until)
{
    g_autofree char *why = fs_last_complaint(p->fs);
    g_autoptr(GString) text = g_string_new(NULL);
    guint named = MIN(unsaved->len, TOLD_PATHS);

    g_string_printf(text, "waiting for %u to be saved:", unsaved->len);
    for (guint i = 0; i < named; i++)
        g_string_append_printf(text, "%s %s", i ? "," : "", (const char *)unsaved->pdata[i]);
    if (named < unsaved->len)
        g_string_append_printf(text, " and %u more", unsaved->len - named);
    if (p->drain_timeout_s)
        g_string_append_printf(text, "; for %d s more",
                               (int)((until - g_get_monotonic_time()) / G_USEC_PER_SEC));
    if (why)
        g_string_append_printf(text, " (%s)", why);
    tell(text->str, p);
}

/* Saves what is dirty, until the time is over or a second signal says that it is enough. */
static void drain(struct program *p)
{
    int64_t until = g_get_monotonic_time() + p->drain_timeout_s * G_USEC_PER_SEC;
    int64_t tell_at = g_get_monotonic_time() + TELL_AFTER_S * G_USEC_PER_SEC;
    g_autoptr(GPtrArray) unsaved = NULL;
    bool saved = false, abandoned = false;

    if (atomic_exchange(&p->drained, true))
        return;
    set_status(p, "draining", NULL, NULL);
    while (!saved && !abandoned) {
        g_clear_pointer(&unsaved, g_ptr_array_unref);
        saved = fs_drain(p->fs, 200, &unsaved);
        if (!saved && fs_is_hopeless(p->fs))
            break;
        if (!saved && g_get_monotonic_time() >= tell_at) {
            tell_unsaved(p, unsaved, until);
            tell_at = g_get_monotonic_time() + TELL_AGAIN_S * G_USEC_PER_SEC;
        }
        abandoned = !saved && ((p->drain_timeout_s && g_get_monotonic_time() >= until) ||
                               stop_signals_wait(p->parent, 0));
    }
    if (saved)
        return;
    atomic_store(&p->failed, true);
    for (guint i = 0; i < unsaved->len; i++)
        log_error("not saved: %s", (char *)unsaved->pdata[i]);
    set_status(p, "failed", "not everything was saved", unsaved);
    if (abandoned) {
        /* What is under way may wait for the store for a minute, and there is no time left: it ends
         * as after a crash, which the next mount clears up. */
        fuse_ops_detach(p->ops);
        _exit(1);
    }
}

static void *signal_main(void *user)
{
    struct program *p = user;

    if (stop_signals_wait(p->parent, -1) == SIGHUP && !isatty(STDERR_FILENO))
        log_info("SIGHUP: saving and unmounting");
    drain(p);
    fuse_ops_exit(p->ops);
    return NULL;
}

static gboolean mount_and_serve(struct program *p, const char *url, GError **error)
{
    struct fuse_ops_options options = {
        .name = url,
        .mount_options = p->other_options,
        .read_only = p->mode == MODE_READ_ONLY,
        .ready = report_ready,
        .user = p,
    };
    gboolean ok;

    p->ops = fuse_ops_mount(p->fs, p->mountpoint, &options, error);
    if (!p->ops)
        return FALSE;
    if (pthread_create(&p->signal_thread, NULL, signal_main, p) != 0) {
        fuse_ops_unmount(p->ops);
        return error_set(error, EAGAIN, "cannot start a thread");
    }
    ok = fuse_ops_run(p->ops, error);
    drain(p); /* unmounted by somebody else: nothing was drained yet */
    pthread_kill(p->signal_thread, SIGHUP);
    pthread_join(p->signal_thread, NULL);
    fuse_ops_unmount(p->ops);
    return ok;
}

static bool is_cancelled(const struct fs_caller *caller)
{
    return is_asked_to_stop(NULL);
}

/* The default directory may be missing or full; one that was asked for may not. */
static bool go_without_journal(const struct program *p, GError *why, GError **error)
{
    if (p->journal_dir) {
        g_propagate_error(error, why);
        return false;
    }
    log_warning("%s; unsaved data would not survive a crash", why->message);
    g_error_free(why);
    return true;
}

/* Only who is alone writes again what an earlier mount had not saved. */
static bool open_journal(struct program *p, const char *url, uint64_t budget_bytes, GError **error)
{
    g_autofree char *source = g_strdup_printf("%s %s", url, p->endpoint ? p->endpoint : "");
    GError *why = NULL;

    if (p->no_journal || !p->lease || !lease_is_exclusive(p->lease))
        return true;
    p->journal = journal_open(p->journal_dir, source,
                              budget_bytes ? budget_bytes : budget_default_bytes(), &why);
    return p->journal || go_without_journal(p, why, error);
}

/* What earlier mounts left is cleared up, and what this one will leave is written down. */
static bool take_over(struct program *p, const struct lease_record *previous, GError **error)
{
    GError *why = NULL;

    if (!p->lease)
        return true;
    if (!fs_clear_leftovers(p->fs, previous, error))
        return false;
    return !p->journal || journal_begin(p->journal, &why) || go_without_journal(p, why, error);
}

static gboolean serve(struct program *p, GError **error)
{
    struct fs_options options = {
        .sync_interval_ms = p->sync_interval_ms,
        .attr_ttl_ms = p->attr_ttl_ms,
        .uid = getuid(),
        .gid = getgid(),
        .umask = 022,
    };
    g_autoptr(LeaseRecord) previous = NULL;
    g_autoptr(Store) store = NULL;
    g_autofree char *url = NULL;
    gboolean ok;

    set_status(p, "mounting", NULL, NULL);
    if (!read_mode(p, error) || !read_size(p->budget, "budget", &options.budget_bytes, error) ||
        !read_size(p->part_size, "part-size", &options.part_bytes, error) ||
        !check_mountpoint(p->mountpoint, error) || !check_not_inside(p, error))
        return FALSE;
    store = open_source(p, &url, error);
    if (!store || !store_check(store, error) || !take_lease(p, store, &previous, error))
        return FALSE;
    if (!open_journal(p, url, options.budget_bytes, error)) {
        lease_release(p->lease);
        return FALSE;
    }
    options.lease = p->lease;
    options.journal = p->journal;
    options.cancelled = is_cancelled;
    options.read_only = p->mode == MODE_READ_ONLY;
    p->fs = fs_new(store, &options);
    ok = take_over(p, previous, error) && mount_and_serve(p, url, error);
    log_info("memory at its peak: %" G_GUINT64_FORMAT " bytes", fs_peak_bytes(p->fs));
    fs_free(g_steal_pointer(&p->fs));
    if (journal_close(p->journal)) /* its uploads stand in the lease */
        lease_abandon(p->lease);
    else
        lease_release(p->lease);
    return ok;
}

/* In the parent: waits for the child's word and passes it on. */
static int wait_ready(int fd)
{
    g_autofree char *line = NULL;
    FILE *lines = fdopen(fd, "r");
    size_t size = 0;
    bool said = false;

    while (lines && getline(&line, &size, lines) > 0) {
        if (strcmp(line, READY) == 0) {
            fclose(lines);
            return 0;
        }
        said = true;
        fputs(line, stderr);
    }
    if (lines)
        fclose(lines);
    if (!said)
        fprintf(stderr, "dstack-mount: ended before it was mounted\n");
    return 1;
}

/* 0 in the child that goes on, the exit status + 1 in the parent. */
static int daemonise(struct program *p)
{
    int fds[2], null;
    pid_t child;

    if (pipe(fds) != 0 || (child = fork()) < 0) {
        perror("dstack-mount");
        return 2;
    }
    if (child > 0) {
        close(fds[1]);
        return wait_ready(fds[0]) + 1;
    }
    close(fds[0]);
    fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    p->ready_fd = fds[1];
    setsid();
    null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        if (null > STDERR_FILENO)
            close(null);
    }
    return 0;
}

static void report_failure(struct program *p, const GError *error)
{
    set_status(p, "failed", error->message, NULL);
    tell(error->message, p);
}

static void program_clear(struct program *p)
{
    g_free(p->source);
    g_free(p->mountpoint);
    g_free(p->endpoint);
    g_free(p->region);
    g_free(p->profile);
    g_free(p->cacert);
    g_free(p->status_file);
    g_free(p->budget);
    g_free(p->part_size);
    g_free(p->mode_name);
    g_free(p->journal_dir);
    g_free(p->other_options);
    g_strfreev(p->mount_options);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Program, program_clear)

int main(int argc, char **argv)
{
    g_auto(Program) p = {.ready_fd = -1};
    g_autoptr(GError) error = NULL;

    mallopt(M_ARENA_MAX, 2); /* what one worker frees is of use to the others */
    fd_fill_standard();      /* what is opened later shall not be taken for one of them */
    setlocale(LC_CTYPE, ""); /* help has letters beyond ASCII */
    if (!parse_arguments(&p, &argc, &argv, &error)) {
        fprintf(stderr, "dstack-mount: %s\n", error->message);
        return 2;
    }
    if (p.version) {
        printf("dstack-mount %s\n", DSTACK_VERSION);
        return 0;
    }
    split_options(&p);
    if (p.status_file) {
        g_autofree char *relative = p.status_file;

        p.status_file = g_canonicalize_filename(relative, NULL);
    }
    if (!p.foreground) {
        int parent = daemonise(&p);

        if (parent)
            return parent - 1;
    }
    stop_signals_block(); /* every thread inherits it; one waits for them */
    signal(SIGPIPE, SIG_IGN);
    if (!serve(&p, &error)) {
        report_failure(&p, error);
        return 1;
    }
    if (!atomic_load(&p.failed))
        set_status(&p, "done", NULL, NULL);
    return atomic_load(&p.failed) ? 1 : 0;
}
