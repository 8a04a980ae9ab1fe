#include "runner/job/cache.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/job/job_progress.h"
#include "runner/work_dir.h"
#include "storage/transfer.h"
#include <string.h>
#include <sys/stat.h>

static char *workflow_prefix(const char *repo, const char *workflow)
{
    return g_strdup_printf("cache/%s/%s/", repo, workflow);
}

static char *cache_prefix(const struct run *run, const char *path)
{
    g_autofree char *all = workflow_prefix(run->repo, run->workflow);

    while (g_str_has_prefix(path, "./") || g_str_has_prefix(path, "~/") || *path == '/')
        path += *path == '/' ? 1 : 2;
    return g_strconcat(all, path, "/", NULL);
}

static void complain(struct log_writer *log, const char *path, const char *what,
                     const GError *error)
{
    g_autofree char *line =
        g_strdup_printf("dstack: cache %s was not %s: %s\n", path, what, error->message);

    log_warning("cache %s was not %s: %s", path, what, error->message);
    log_writer_add(log, line, strlen(line));
}

/* A workflow's name in a document is foreign; without one there is no place for a cache. */
static bool has_cache(const struct run *run)
{
    return run->cache && *run->cache && run->workflow && run_name_is_valid(run->workflow);
}

GPtrArray *cache_fetch(struct store *root, const struct run *run, const int *stop,
                       struct log_writer *log)
{
    /* Paths outside the work directory may still be there. */
    struct transfer_options options = {.only_changed = true, .stop = stop};
    g_autoptr(GPtrArray) fetched = g_ptr_array_new_with_free_func(g_free);
    struct job_progress progress;

    job_progress_begin(&progress, root, run, "Downloading the cache", &options);
    for (char **path = has_cache(run) ? run->cache : NULL; path && *path; path++) {
        g_autofree char *prefix = cache_prefix(run, *path), *dir = work_dir_path(run, *path);
        g_autoptr(GError) error = NULL;

        if (transfer_download(root, prefix, dir, &options, NULL, &error))
            g_ptr_array_add(fetched, g_strdup(*path));
        else if (!error_is(error, ECANCELED))
            complain(log, *path, "restored, and will not be saved", error);
    }
    job_progress_end(&progress);
    return g_steal_pointer(&fetched);
}

/* --- saving --- */

struct gone {
    const char *dir;
    size_t skip;
    int64_t before_ns;
    GPtrArray *keys;
};

static bool note_gone(const struct store_object *object, void *user, GError **error)
{
    struct gone *gone = user;
    g_autofree char *path = g_build_filename(gone->dir, object->key + gone->skip, NULL);
    struct stat st;

    if (object->mtime_ns < gone->before_ns && lstat(path, &st) != 0 &&
        (errno == ENOENT || errno == ENOTDIR))
        g_ptr_array_add(gone->keys, g_strdup(object->key));
    return true;
}

static bool remove_gone(struct store *root, const char *prefix, const char *dir, int64_t before_ms,
                        GError **error)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    struct gone gone = {dir, strlen(prefix), before_ms * 1000000, keys};

    if (!store_list(root, prefix, false, note_gone, &gone, error))
        return false;
    for (guint i = 0; i < keys->len; i++)
        if (!store_delete(root, keys->pdata[i], error))
            return false;
    return true;
}

void cache_save(struct store *root, const struct run *run, const GPtrArray *fetched,
                const int *stop, struct log_writer *log)
{
    struct transfer_options options = {.only_changed = true, .stop = stop};
    struct job_progress progress;

    job_progress_begin(&progress, root, run, "Uploading the cache", &options);
    for (guint i = 0; i < fetched->len; i++) {
        const char *path = fetched->pdata[i];
        g_autofree char *prefix = cache_prefix(run, path), *dir = work_dir_path(run, path);
        g_autoptr(GError) error = NULL;

        if ((!transfer_upload(dir, root, prefix, &options, NULL, &error) ||
             !remove_gone(root, prefix, dir, run->started_ms, &error)) &&
            !error_is(error, ECANCELED))
            complain(log, path, "saved", error);
    }
    job_progress_end(&progress);
}

bool cache_check(const char *workflow, GError **error)
{
    return run_name_is_valid(workflow) ||
           error_set(error, EINVAL, "\"%s\" cannot be a workflow's name", workflow);
}

bool cache_prune(struct store *root, const char *repo, const char *workflow, uint64_t *count,
                 GError **error)
{
    g_autofree char *prefix = workflow_prefix(repo, workflow);
    g_autoptr(GError) why = NULL;

    if (!store_abort_uploads(root, prefix, &why))
        log_warning("uploads that were not finished may stay below %s: %s", prefix, why->message);
    return store_delete_prefix(root, prefix, count, error);
}
