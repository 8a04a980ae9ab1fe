#include "storage/file_store.h"

#include "config/autofd.h"
#include "config/error.h"

#include <fcntl.h>
#include <string.h>

#define THREADS 8

struct file_job {
    struct file_store *store;
    struct store_call *call;
};

typedef void file_verb(struct file_store *store, struct store_call *call, GError **error);

static file_verb *const verbs[STORE_VERBS] = {
    [STORE_HEAD] = file_store_get,        [STORE_GET] = file_store_get,
    [STORE_PUT] = file_store_put,         [STORE_COPY] = file_store_copy,
    [STORE_DELETE] = file_store_delete,   [STORE_DELETE_MANY] = file_store_delete_many,
    [STORE_LIST] = file_store_list,       [STORE_BEGIN] = file_store_begin,
    [STORE_PART] = file_store_part,       [STORE_COPY_PART] = file_store_part,
    [STORE_COMMIT] = file_store_commit,   [STORE_ABORT] = file_store_abort,
    [STORE_UPLOADS] = file_store_uploads,
};

static void run_call(void *data)
{
    g_autofree struct file_job *job = data;
    GError *error = NULL;

    if (store_call_is_cancelled(job->call))
        error_set(&error, ECANCELED, "%s: cancelled", job->call->key ? job->call->key : "delete");
    else
        verbs[job->call->verb](job->store, job->call, &error);
    job->call->answered_ns = g_get_real_time() * 1000;
    store_complete(job->call, error);
}

static void file_store_start(struct store *base, struct store_call *call)
{
    struct file_job *job = g_new(struct file_job, 1);

    *job = (struct file_job){.store = (struct file_store *)base, .call = call};
    pool_add(job->store->pool, run_call, job);
}

/* The verbs that can take long look at store_call_is_cancelled themselves. */
static void file_store_cancel(struct store *base, struct store_call *call)
{
}

static void file_store_free(struct store *base)
{
    struct file_store *store = (struct file_store *)base;

    pool_free(store->pool);
    file_store_forget_rests(store);
    pthread_mutex_destroy(&store->rests_lock);
    fd_close(&store->root_fd);
    g_free(store->dir);
    g_free(store);
}

static const struct store_driver file_driver = {
    .name = "file",
    .start = file_store_start,
    .cancel = file_store_cancel,
    .free = file_store_free,
};

static const struct store_caps file_caps = {
    .min_part_bytes = 1,
    .max_part_bytes = UINT64_C(1) << 40,
    .max_put_bytes = UINT64_C(1) << 40,
    .max_copy_bytes = UINT64_C(1) << 43,
    .max_object_bytes = UINT64_C(1) << 43,
    .max_parts = 10000,
    .max_key_bytes = 1024,
    .max_delete_keys = 1000,
    .max_list_entries = FILE_STORE_LIST_MAX,
    .max_metadata_bytes = FILE_STORE_METADATA,
    .parallel = THREADS,
    .has_put_if_absent = true,
    .has_put_if_match = true,
    .has_current_list = true,
    .has_commit_if_match = true,
    .has_copy_part = true,
    .has_prefix_and_key = false,
};

static char *parse_url(const char *url, GError **error)
{
    char *dir = g_str_has_prefix(url, "file://") ? g_uri_unescape_string(url + 7, NULL) : NULL;

    if (dir && *dir == '/')
        return dir;
    g_free(dir);
    error_set(error, EINVAL, "%s: a file store's URL is file:///DIRECTORY", url);
    return NULL;
}

static int open_root(const char *dir, GError **error)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        error_set(error, ENXIO, "%s: there is no such directory; make it first", dir);
    else if (fd < 0)
        file_store_error(error, errno, "open", dir);
    return fd;
}

struct store *store_file_open(const char *url, const struct store_options *options, GError **error)
{
    g_autofree char *dir = parse_url(url, error);
    g_auto(fd_t) root = dir ? open_root(dir, error) : -1;
    struct pool *pool = root < 0 ? NULL : pool_new(THREADS, error);
    struct file_store *store;

    if (!pool)
        return NULL;
    store = g_new0(struct file_store, 1);
    store->pool = pool;
    pthread_mutex_init(&store->rests_lock, NULL);
    store->dir = g_steal_pointer(&dir);
    store->root_fd = fd_steal(&root);
    store->base.caps = file_caps;
    store_init(&store->base, &file_driver, url);
    file_store_remove_stale(store);
    return &store->base;
}
