#include "runner/job/job_files.h"
#include "config/error.h"
#include "runner/job/job_progress.h"
#include "runner/run/run_store.h"
#include "runner/submit/code.h"
#include "runner/work_dir.h"
#include "storage/transfer.h"
#include <string.h>
#include <sys/stat.h>

static bool make_directory(const char *path, const char *artifact, GError **error)
{
    struct stat st;

    if (g_mkdir_with_parents(path, 0755) != 0)
        return error_set_errno(error, errno, "make the directory of artifact %s", artifact);
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        return error_set(error, ENOTDIR, "artifact %s is a file: name its directory", artifact);
    return true;
}

/* Where prefixes are real directories, a mount finds its own only if somebody makes it; and an
 * artifact without files is there only if something says so. */
static bool make_prefix(struct store *root, const struct run *run, const char *artifact,
                        GError **error)
{
    g_autofree char *prefix = run_artifact_prefix(run->repo, run->name, artifact);

    return store_write(root, prefix, "", 0, NULL, NULL, error);
}

static bool note_one(const struct store_object *object, void *user, GError **error)
{
    *(bool *)user = true;
    return false;
}

/* Whether the dep's run wrote that artifact through a mount, which leaves nothing of one without
 * files. */
static bool was_mounted(struct store *root, const char *repo, const struct run_dep *dep)
{
    g_autoptr(Run) run = run_store_load(root, repo, dep->run, NULL);

    for (guint i = 0; run && i < run->artifacts->len; i++) {
        const struct run_artifact *artifact = run->artifacts->pdata[i];

        if (strcmp(artifact->path, dep->path) == 0)
            return artifact->mount;
    }
    return false;
}

/* An artifact without files may be a dep; one that is not there (any more) may not. */
static bool check_there(struct store *root, const char *repo, const char *prefix,
                        const struct run_dep *dep, GError **error)
{
    bool found = false;

    return store_list(root, prefix, false, note_one, &found, error) &&
           (found || was_mounted(root, repo, dep) ||
            error_set(error, ENOENT, "dep %s: run %s has no such artifact (any more)", dep->path,
                      dep->run));
}

/* What an earlier attempt left of an artifact that is not mounted. */
static bool restore(struct store *root, const struct run *run, const char *artifact,
                    const char *path, const int *stop, GError **error)
{
    g_autofree char *prefix = run_artifact_prefix(run->repo, run->name, artifact);
    struct transfer_options options = {.stop = stop};

    if (transfer_download(root, prefix, path, &options, NULL, error))
        return true;
    g_prefix_error(error, "artifact %s could not be restored: ", artifact);
    return false;
}

static bool fetch_dep(struct store *root, const struct run *run, const struct run_dep *dep,
                      const struct transfer_options *options, GError **error)
{
    const char *repo = dep->repo ? dep->repo : run->repo;
    g_autofree char *prefix = run_artifact_prefix(repo, dep->run, dep->path);
    g_autofree char *path = work_dir_path(run, dep->path);
    struct transfer_result result = {0};

    if (!make_directory(path, dep->path, error))
        return false;
    if (dep->mount)
        return check_there(root, repo, prefix, dep, error);
    if (!transfer_download(root, prefix, path, options, &result, error)) {
        g_prefix_error(error, "dep %s of %s: ", dep->path, dep->run);
        return false;
    }
    return result.files > 0 || check_there(root, repo, prefix, dep, error);
}

static bool fetch_deps(struct store *root, const struct run *run, const int *stop, GError **error)
{
    struct transfer_options options = {.stop = stop};
    struct job_progress progress;
    bool fine = true;

    job_progress_begin(&progress, root, run, "Downloading deps", &options);
    for (guint i = 0; i < run->deps->len && fine; i++)
        fine = fetch_dep(root, run, run->deps->pdata[i], &options, error);
    job_progress_end(&progress);
    return fine;
}

bool job_files_fetch(struct store *root, const struct run *run, const int *stop, GError **error)
{
    g_autofree char *code = g_build_filename(run->owner.work_dir, "code", NULL);
    g_autofree char *commands = work_dir_commands(run);

    if (run->code_sha256 && !code_restore(root, run->code_sha256, code, error))
        return false;
    if (!g_file_test(commands, G_FILE_TEST_IS_DIR))
        return error_set(error, ENOENT, "working_dir %s is not in the code (does git ignore it?)",
                         run->working_dir);
    if (!fetch_deps(root, run, stop, error))
        return false;
    for (guint i = 0; i < run->artifacts->len; i++) {
        const struct run_artifact *artifact = run->artifacts->pdata[i];
        g_autofree char *path = work_dir_path(run, artifact->path);

        if (!make_directory(path, artifact->path, error) ||
            (artifact->mount && !store_caps(root)->has_prefix_and_key &&
             !make_prefix(root, run, artifact->path, error)) ||
            (!artifact->mount && run->attempt > 1 &&
             !restore(root, run, artifact->path, path, stop, error)))
            return false;
    }
    return true;
}

struct listing {
    const char *path;
    size_t skip;     /* bytes of the artifact's prefix */
    GPtrArray *gone; /* keys whose files are not there any more */
};

static bool note_gone(const struct store_object *object, void *user, GError **error)
{
    struct listing *listing = user;
    const char *name = object->key + listing->skip;
    g_autofree char *path = g_build_filename(listing->path, name, NULL);
    struct stat st;

    if (*name && lstat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR))
        g_ptr_array_add(listing->gone, g_strdup(object->key));
    return true;
}

/* What an earlier attempt saved and this one has removed. Of several ranks each has its own files
 * alone: nobody knows what was removed. */
static bool remove_gone(struct store *root, const struct run *run, const char *prefix,
                        const char *path, GError **error)
{
    g_autoptr(GPtrArray) gone = g_ptr_array_new_with_free_func(g_free);
    struct listing listing = {path, strlen(prefix), gone};

    if (run->attempt == 1 || run->lifetime.nodes > 1)
        return true;
    if (!store_list(root, prefix, false, note_gone, &listing, error))
        return false;
    for (guint i = 0; i < gone->len; i++)
        if (!store_delete(root, gone->pdata[i], error))
            return false;
    return true;
}

static bool upload(struct store *root, const struct run *run, const char *artifact,
                   const struct transfer_options *options, GError **error)
{
    g_autofree char *prefix = run_artifact_prefix(run->repo, run->name, artifact);
    g_autofree char *path = work_dir_path(run, artifact);
    struct transfer_result result = {0};

    return transfer_upload(path, root, prefix, options, &result, error) &&
           (result.files + result.skipped > 0 || make_prefix(root, run, artifact, error)) &&
           remove_gone(root, run, prefix, path, error);
}

bool job_files_upload(struct store *root, const struct run *run,
                      const struct transfer_options *options, GError **error)
{
    bool fine = true;

    for (guint i = 0; i < run->artifacts->len; i++) {
        const struct run_artifact *artifact = run->artifacts->pdata[i];
        g_autoptr(GError) failed = NULL;

        if (artifact->mount || upload(root, run, artifact->path, options, &failed))
            continue;
        if (fine)
            error_set(error, error_errno(failed), "artifact %s was not saved: %s", artifact->path,
                      failed->message);
        fine = false;
    }
    return fine;
}

bool job_files_save(struct store *root, const struct run *run, const int *stop, GError **error)
{
    struct transfer_options options = {.stop = stop};
    struct job_progress progress;
    bool fine;

    job_progress_begin(&progress, root, run, "Uploading artifacts", &options);
    fine = job_files_upload(root, run, &options, error);
    job_progress_end(&progress);
    return fine;
}
