#include "runner/job/mounts.h"
#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/job/mount_status.h"
#include "runner/machine.h"
#include "runner/process.h"
#include "runner/work_dir.h"
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

/* AGAIN: a mount of an earlier attempt that still lives notices within ten seconds that the run is
 * no longer its own, and saves; one that does not has a lease that lapses. */
enum {
    READY_MS = 60000,
    AGAIN_READY_MS = 180000,
    AGAIN_MS = 1000,
    DRAIN_S = 600,
    LOOK_AGAIN_MS = 10,
    LISTEN_EVERY = 50 /* looks */
};

struct mount {
    char *artifact; /* its path, for messages */
    char *prefix;   /* of its files in the store, without a '/' at the end */
    char *path, *status_file, *log_file;
    char *said; /* the last line that was passed on; NULL: none */
    bool read_only;
    pid_t pid; /* 0: not running */
};

struct mounts {
    GPtrArray *all; /* struct mount* */
};

static void mount_free(gpointer data)
{
    struct mount *mount = data;

    g_free(mount->artifact);
    g_free(mount->prefix);
    g_free(mount->path);
    g_free(mount->status_file);
    g_free(mount->log_file);
    g_free(mount->said);
    g_free(mount);
}

static void add_option(GPtrArray *argv, const char *name, const char *value)
{
    if (!value)
        return;
    g_ptr_array_add(argv, g_strdup(name));
    g_ptr_array_add(argv, g_strdup(value));
}

static char **arguments(const struct run_root *root, const struct run *run,
                        const struct mount *mount, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *drain = g_strdup_printf("%d", DRAIN_S);
    g_autofree char *parent = g_strdup_printf("%d", (int)getpid());
    char *program = program_find("dstack-mount", error);

    if (!program)
        return NULL;
    g_ptr_array_add(argv, program);
    g_ptr_array_add(argv,
                    g_strdup_printf("%s%s%s", root->url,
                                    g_str_has_suffix(root->url, "/") ? "" : "/", mount->prefix));
    g_ptr_array_add(argv, g_strdup(mount->path));
    g_ptr_array_add(argv, g_strdup("-f"));
    if (mount->read_only)
        add_option(argv, "--mode", "read-only");
    else if (run->lifetime.nodes > 1) /* each rank has one */
        add_option(argv, "--mode", "shared");
    add_option(argv, "--status-file", mount->status_file);
    add_option(argv, "--drain-timeout", drain);
    add_option(argv, "--parent", parent);
    add_option(argv, "--endpoint", root->options.endpoint);
    add_option(argv, "--region", root->options.region);
    add_option(argv, "--profile", root->options.profile);
    add_option(argv, "--cacert", root->options.cacert);
    if (root->options.virtual_host)
        g_ptr_array_add(argv, g_strdup("--virtual-host"));
    if (root->options.unsigned_payload)
        g_ptr_array_add(argv, g_strdup("--unsigned-payload"));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&argv), FALSE);
}

static bool start(const struct run_root *root, const struct run *run, struct mount *mount,
                  GError **error)
{
    g_auto(GStrv) argv = arguments(root, run, mount, error);
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), MOUNT_VARIABLE, run->id, TRUE);
    struct process_options options = {.argv = argv, .env = env, .parent_death = SIGTERM};
    g_auto(fd_t) output = -1;

    if (!argv)
        return false;
    output = open(mount->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (output < 0)
        return error_set_errno(error, errno, "open %s", mount->log_file);
    options.output = output;
    return process_start(&options, &mount->pid, error);
}

/* The last line that a mount wrote, for a death without a word in its status file. */
static char *last_words(const struct mount *mount)
{
    g_autofree char *text = NULL;
    char *line;

    if (!g_file_get_contents(mount->log_file, &text, NULL, NULL))
        return NULL;
    g_strchomp(text);
    line = strrchr(text, '\n');
    return *text ? g_strdup(line ? line + 1 : text) : NULL;
}

static bool explain(const struct mount *mount, int wait_status, GError **error)
{
    g_autofree char *how = process_exit_text(wait_status);
    g_autofree char *words = NULL;
    struct mount_status status;

    mount_status_read(mount->status_file, &status);
    words = status.error ? g_strdup(status.error) : last_words(mount);
    error_set(error, EIO, "the mount of %s ended (%s)%s%s%s%s", mount->artifact, how,
              words ? ": " : "", words ? words : "", status.unsaved ? "; not saved: " : "",
              status.unsaved ? status.unsaved : "");
    mount_status_clear(&status);
    return false;
}

/* Before a mount is ready, and at its end, it says what it waits for, in one line. */
static void pass_on(struct mount *mount, const struct mounts_starter *starter)
{
    static const char *const prefix = "dstack-mount: waiting ";
    g_autofree char *words = last_words(mount);

    if (!words || !g_str_has_prefix(words, prefix) || g_strcmp0(words, mount->said) == 0)
        return;
    g_free(mount->said);
    mount->said = g_steal_pointer(&words);
    starter->say(mount->said + strlen("dstack-mount: "), starter->user);
}

static bool wait_ready(struct mount *mount, int64_t until_us, const struct mounts_starter *starter,
                       GError **error)
{
    for (;;) {
        struct mount_status status;
        int wait_status;
        bool ready;

        mount_status_read(mount->status_file, &status);
        ready = status.ready;
        mount_status_clear(&status);
        if (waitpid(mount->pid, &wait_status, WNOHANG) == mount->pid) {
            mount->pid = 0;
            return explain(mount, wait_status, error);
        }
        if (ready)
            return true;
        pass_on(mount, starter);
        if (__atomic_load_n(starter->stop, __ATOMIC_ACQUIRE))
            return error_set(error, ECANCELED, "stopped while %s was mounted", mount->artifact);
        if (g_get_monotonic_time() > until_us)
            return error_set(error, ETIMEDOUT, "%s was not mounted in time", mount->artifact);
        g_usleep(LOOK_AGAIN_MS * 1000);
    }
}

/* A later attempt may find the lease of the one before it, which is on its way out. */
static bool wait_or_start_again(const struct run_root *root, const struct run *run,
                                struct mount *mount, int64_t until_us,
                                const struct mounts_starter *starter, GError **error)
{
    g_autoptr(GError) why = NULL;

    while (!wait_ready(mount, until_us, starter, &why)) {
        if (mount->pid || run->attempt == 1 || g_get_monotonic_time() > until_us) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        log_warning("%s; trying again", why->message);
        g_clear_error(&why);
        g_usleep(AGAIN_MS * 1000);
        if (unlink(mount->status_file) != 0 && errno != ENOENT)
            return error_set_errno(error, errno, "remove %s", mount->status_file);
        if (!start(root, run, mount, error))
            return false;
    }
    return true;
}

static struct mount *add_mount(struct mounts *mounts, const struct run *run, const char *path,
                               const char *prefix)
{
    struct mount *mount = g_new0(struct mount, 1);
    guint number = mounts->all->len;

    mount->artifact = g_strdup(path);
    mount->prefix = g_strndup(prefix, strlen(prefix) - 1);
    mount->path = work_dir_path(run, path);
    mount->status_file = g_strdup_printf("%s/mount-%u.json", run->owner.work_dir, number);
    mount->log_file = g_strdup_printf("%s/mount-%u.log", run->owner.work_dir, number);
    g_ptr_array_add(mounts->all, mount);
    return mount;
}

static void add_mounts(struct mounts *mounts, const struct run *run)
{
    for (guint i = 0; i < run->deps->len; i++) {
        const struct run_dep *dep = run->deps->pdata[i];
        g_autofree char *prefix =
            run_artifact_prefix(dep->repo ? dep->repo : run->repo, dep->run, dep->path);

        if (dep->mount)
            add_mount(mounts, run, dep->path, prefix)->read_only = true;
    }
    for (guint i = 0; i < run->artifacts->len; i++) {
        const struct run_artifact *artifact = run->artifacts->pdata[i];
        g_autofree char *prefix = run_artifact_prefix(run->repo, run->name, artifact->path);

        if (artifact->mount)
            add_mount(mounts, run, artifact->path, prefix);
    }
}

struct mounts *mounts_start(const struct run_root *root, const struct run *run,
                            const struct mounts_starter *starter, GError **error)
{
    struct mounts *mounts = g_new0(struct mounts, 1);
    int64_t until_us =
        g_get_monotonic_time() + (run->attempt > 1 ? AGAIN_READY_MS : READY_MS) * INT64_C(1000);
    bool fine = true;

    mounts->all = g_ptr_array_new_with_free_func(mount_free);
    add_mounts(mounts, run);
    for (guint i = 0; i < mounts->all->len && fine; i++)
        fine = start(root, run, mounts->all->pdata[i], error);
    for (guint i = 0; i < mounts->all->len && fine; i++)
        fine = wait_or_start_again(root, run, mounts->all->pdata[i], until_us, starter, error);
    if (fine)
        return mounts;
    mounts_stop(mounts, -1, NULL, NULL);
    return NULL;
}

bool mounts_alive(struct mounts *mounts, GError **error)
{
    for (guint i = 0; mounts && i < mounts->all->len; i++) {
        struct mount *mount = mounts->all->pdata[i];
        int wait_status;

        if (mount->pid && waitpid(mount->pid, &wait_status, WNOHANG) == mount->pid) {
            mount->pid = 0;
            return explain(mount, wait_status, error);
        }
    }
    return true;
}

static bool wait_end(struct mount *mount, int64_t until_us, const struct mounts_starter *starter,
                     GError **error)
{
    int wait_status;
    unsigned looks = 0;

    while (waitpid(mount->pid, &wait_status, WNOHANG) == 0) {
        if (g_get_monotonic_time() > until_us) {
            log_warning("the mount of %s does not end and is killed", mount->artifact);
            kill(mount->pid, SIGKILL);
            waitpid(mount->pid, &wait_status, 0);
            break;
        }
        if (starter && ++looks % LISTEN_EVERY == 0)
            pass_on(mount, starter);
        g_usleep(LOOK_AGAIN_MS * 1000);
    }
    mount->pid = 0;
    return wait_status == 0 || explain(mount, wait_status, error);
}

bool mounts_stop(struct mounts *mounts, int64_t limit_ms, const struct mounts_starter *starter,
                 GError **error)
{
    /* A moment longer than the mount gives itself. */
    int64_t until_us =
        g_get_monotonic_time() + (limit_ms < 0 ? (DRAIN_S + 10) * INT64_C(1000) : limit_ms) * 1000;
    bool fine = true;

    if (!mounts)
        return true;
    for (guint i = 0; i < mounts->all->len; i++) {
        struct mount *mount = mounts->all->pdata[i];

        if (mount->pid)
            kill(mount->pid, SIGTERM);
    }
    for (guint i = 0; i < mounts->all->len; i++) {
        struct mount *mount = mounts->all->pdata[i];

        if (mount->pid && !wait_end(mount, until_us, starter, fine ? error : NULL))
            fine = false;
        mounts_detach(mount->path);
    }
    g_ptr_array_unref(mounts->all);
    g_free(mounts);
    return fine;
}
