#include "storage/transfer_engine.h"

#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "storage/beneath.h"
#include "storage/keys.h"
#include "storage/transfer_local.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

#define ATTEMPTS 3 /* for an object that is replaced while it comes down */

struct download {
    struct transfer transfer;
    struct store *store;
    const char *prefix;
    int root_fd;
    GQueue todo;            /* struct target */
    GPtrArray *directories; /* struct target: attributes set at the end */
};

struct target {
    struct download *download;
    char *key, *path, *etag;
    uint64_t size_bytes;
    struct file_attrs attrs;
    unsigned attempts;

    /* In parts: */
    local_file_t file;
    unsigned pending;
    bool ended, failed, stale;
};

static void target_free(void *data)
{
    struct target *target = data;

    local_file_clear(&target->file);
    g_free(target->key);
    g_free(target->path);
    g_free(target->etag);
    g_free(target);
}

static struct target *target_new(struct download *download, const struct store_object *object)
{
    struct target *target = g_new0(struct target, 1);

    target->download = download;
    target->key = g_strdup(object->key);
    target->path = g_strdup(object->key + strlen(download->prefix));
    target->etag = g_strdup(object->etag);
    target->size_bytes = object->size_bytes;
    target->file = (local_file_t){.parent_fd = -1, .fd = -1};
    return target;
}

static bool is_directory_key(const struct target *target)
{
    return g_str_has_suffix(target->path, "/");
}

static void load_attrs(struct target *target, const struct store_object *object)
{
    target->attrs =
        (struct file_attrs){.mode = is_directory_key(target) ? S_IFDIR | 0755 : S_IFREG | 0644,
                            .uid = getuid(),
                            .gid = getgid()};
    file_attrs_load(&target->attrs, object);
}

static void fail_target(struct target *target, GError *error)
{
    transfer_fail(&target->download->transfer, error);
    target_free(target);
}

/* --- an object that was replaced: look again --- */

static void again_finished(struct transfer_task *task, void *user)
{
    struct target *target = user;

    if (task->call->error) {
        transfer_fail_call(task->transfer, task, "look again at", target->key);
        target_free(target);
        return;
    }
    g_free(target->etag);
    target->etag = g_strdup(task->call->object.etag);
    target->size_bytes = task->call->object.size_bytes;
    g_queue_push_tail(&target->download->todo, target);
}

static bool try_again(struct target *target)
{
    if (++target->attempts >= ATTEMPTS)
        return false;
    local_file_clear(&target->file);
    target->failed = target->ended = target->stale = false;
    transfer_start(&target->download->transfer, target->download->store,
                   store_call_new(STORE_HEAD, target->key), NULL, 0, again_finished, target);
    return true;
}

/* --- in one call --- */

static bool save_symlink(const struct target *target, const char *data, GError **error)
{
    g_autofree char *link = NULL;

    if (!target->size_bytes || target->size_bytes >= PATH_MAX ||
        memchr(data, '\0', target->size_bytes))
        return error_set(error, EINVAL, "%s: not a symlink's target", target->key);
    link = g_strndup(data, target->size_bytes);
    return local_symlink(target->download->root_fd, target->path, link, &target->attrs, error);
}

static bool save_file(struct target *target, const char *data, GError **error)
{
    return local_file_open(&target->file, target->download->root_fd, target->path, error) &&
           local_file_write(&target->file, data, target->size_bytes, 0, error) &&
           local_file_publish(&target->file, target->size_bytes, &target->attrs, error);
}

static bool save_small(struct target *target, const char *data, GError **error)
{
    switch (target->attrs.mode & S_IFMT) {
    case S_IFLNK:
        return save_symlink(target, data, error);
    case S_IFREG:
        return save_file(target, data, error);
    case S_IFDIR:
        if (!target->size_bytes)
            return local_directory(target->download->root_fd, target->path, error);
        break;
    default:
        break;
    }
    log_warning("%s: skipped: neither a file, a directory nor a symlink", target->key);
    return true;
}

/* An empty object is not read but looked at, which no ETag pins. */
static bool is_replaced(const struct target *target, const struct store_call *call)
{
    return call->error ? error_is(call->error, ESTALE)
                       : !target->size_bytes && call->object.size_bytes;
}

static void small_finished(struct transfer_task *task, void *user)
{
    struct target *target = user;
    struct store_call *call = task->call;
    GError *error = NULL;

    if (is_replaced(target, call) && try_again(target))
        return;
    if (call->error) {
        transfer_fail_call(task->transfer, task, "download", target->key);
        target_free(target);
        return;
    }
    load_attrs(target, &call->object);
    if (is_replaced(target, call))
        error_set(&error, ESTALE, "download %s: it keeps changing", target->key);
    else if (call->received_bytes != target->size_bytes)
        error_set(&error, EIO, "download %s: %" PRIu64 " bytes came of %" PRIu64, target->key,
                  call->received_bytes, target->size_bytes);
    if (error || !save_small(target, task->buffer, &error)) {
        fail_target(target, error);
        return;
    }
    transfer_bytes_done(task->transfer, target->size_bytes);
    transfer_file_done(task->transfer);
    target_free(target);
}

static void get_small(struct target *target)
{
    struct transfer *transfer = &target->download->transfer;
    struct store_call *call;
    char *buffer = NULL;

    if (transfer_room(transfer, target->size_bytes))
        buffer = transfer_buffer(transfer, target->size_bytes, target->key);
    if (!buffer) {
        target_free(target);
        return;
    }
    if (target->size_bytes) {
        call = store_call_get(target->key, 0, buffer, target->size_bytes);
        call->if_match = g_strdup(target->etag);
    } else {
        call = store_call_new(STORE_HEAD, target->key); /* a range of nothing does not exist */
    }
    transfer_start(transfer, target->download->store, call, buffer, target->size_bytes,
                   small_finished, target);
}

/* --- in parts --- */

static void end_large(struct target *target)
{
    GError *error = NULL;

    if (!target->ended || target->pending)
        return;
    if (target->stale && try_again(target))
        return;
    if (target->stale)
        error_set(&error, ESTALE, "download %s: it keeps changing", target->key);
    if (error) {
        fail_target(target, error);
        return;
    }
    if (!target->failed && !S_ISREG(target->attrs.mode)) {
        log_warning("%s: skipped: not a file", target->key);
    } else if (!target->failed &&
               local_file_publish(&target->file, target->size_bytes, &target->attrs, &error)) {
        transfer_file_done(&target->download->transfer);
    } else if (error) {
        transfer_fail(&target->download->transfer, error);
    }
    target_free(target);
}

static void part_finished(struct transfer_task *task, void *user)
{
    struct target *target = user;
    struct store_call *call = task->call;
    GError *error = NULL;

    target->pending--;
    if (call->error) {
        target->failed = true;
        target->stale |= error_is(call->error, ESTALE);
        if (!target->stale)
            transfer_fail_call(task->transfer, task, "download", target->key);
    } else if (call->received_bytes != task->bytes) {
        error_set(&error, EIO, "download %s: %" PRIu64 " bytes came of %" PRIu64, target->key,
                  call->received_bytes, task->bytes);
    } else if (!target->failed &&
               local_file_write(&target->file, task->buffer, task->bytes, call->offset, &error)) {
        transfer_bytes_done(task->transfer, task->bytes);
        if (!call->offset)
            load_attrs(target, &call->object);
    }
    if (error) {
        target->failed = true;
        transfer_fail(task->transfer, error);
    }
    end_large(target);
}

static bool get_part(struct target *target, uint64_t offset, uint64_t size)
{
    struct transfer *transfer = &target->download->transfer;
    struct store_call *call;
    char *buffer = NULL;

    if (transfer_room(transfer, size) && !target->failed)
        buffer = transfer_buffer(transfer, size, target->key);
    if (!buffer)
        return false;
    call = store_call_get(target->key, offset, buffer, size);
    call->if_match = g_strdup(target->etag);
    target->pending++;
    transfer_start(transfer, target->download->store, call, buffer, size, part_finished, target);
    return true;
}

static void get_large(struct target *target)
{
    GError *error = NULL;
    uint64_t offset = 0;

    if (!local_file_open(&target->file, target->download->root_fd, target->path, &error)) {
        fail_target(target, error);
        return;
    }
    while (offset < target->size_bytes) {
        uint64_t size = MIN(TRANSFER_PART_BYTES, target->size_bytes - offset);

        if (!get_part(target, offset, size)) {
            target->failed = true;
            break;
        }
        offset += size;
    }
    target->ended = true;
    end_large(target);
}

static void get_target(struct target *target)
{
    if (target->size_bytes > TRANSFER_PART_BYTES)
        get_large(target);
    else
        get_small(target);
}

static void get_todo(struct download *download)
{
    struct target *target;

    while ((target = g_queue_pop_head(&download->todo)))
        get_target(target);
}

/* --- directories, and what is here already --- */

static void directory_finished(struct transfer_task *task, void *user)
{
    struct target *target = user;
    GError *error = NULL;

    target->path[strlen(target->path) - 1] = '\0';
    if (task->call->error) {
        transfer_fail_call(task->transfer, task, "download", target->key);
        target_free(target);
        return;
    }
    load_attrs(target, &task->call->object);
    if (!local_directory(target->download->root_fd, target->path, &error)) {
        fail_target(target, error);
        return;
    }
    g_ptr_array_add(target->download->directories, target);
    transfer_file_done(task->transfer);
}

static bool local_size_is(const struct target *target, struct stat *st)
{
    return beneath_stat(target->download->root_fd, target->path, st) == 0 &&
           (uint64_t)st->st_size == target->size_bytes;
}

static bool is_same(const struct target *target)
{
    struct stat st;

    if (!local_size_is(target, &st) || (st.st_mode & S_IFMT) != (target->attrs.mode & S_IFMT) ||
        st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec != target->attrs.mtime_ns)
        return false;
    return S_ISLNK(st.st_mode) || (st.st_mode & 0777) == (target->attrs.mode & 0777);
}

static void compare_finished(struct transfer_task *task, void *user)
{
    struct target *target = user;

    if (task->call->error) {
        transfer_fail_call(task->transfer, task, "look at", target->key);
        target_free(target);
        return;
    }
    load_attrs(target, &task->call->object);
    if (is_same(target)) {
        transfer_file_skipped(task->transfer, target->size_bytes);
        target_free(target);
    } else {
        g_queue_push_tail(&target->download->todo, target);
    }
}

static bool look_first(struct target *target, transfer_finished *finished)
{
    struct transfer *transfer = &target->download->transfer;

    if (!transfer_room(transfer, 0)) {
        target_free(target);
        return false;
    }
    transfer_start(transfer, target->download->store, store_call_new(STORE_HEAD, target->key), NULL,
                   0, finished, target);
    return true;
}

static bool each_object(const struct store_object *object, void *user, GError **error)
{
    struct download *download = user;
    struct transfer *transfer = &download->transfer;
    const char *path = object->key + strlen(download->prefix);
    struct target *target;
    struct stat st;

    if (!*path || keys_is_of_mount(object->key))
        return transfer_goes_on(transfer); /* the prefix's own directory object; or no file */
    if (!local_path_is_safe(path))
        return error_set(error, EINVAL, "%s: the key would leave the directory", object->key);
    target = target_new(download, object);
    transfer_found(transfer, object->size_bytes);
    if (is_directory_key(target))
        look_first(target, directory_finished);
    else if (transfer->options->only_changed && local_size_is(target, &st))
        look_first(target, compare_finished);
    else
        get_target(target);
    get_todo(download);
    return transfer_goes_on(transfer);
}

/* From the end: what is inside comes before what holds it. */
static void set_directory_attrs(struct download *download)
{
    for (unsigned i = download->directories->len; i > 0; i--) {
        const struct target *target = download->directories->pdata[i - 1];
        GError *error = NULL;

        if (!local_directory_attrs(download->root_fd, target->path, &target->attrs, &error))
            transfer_fail(&download->transfer, error);
    }
}

bool transfer_download(struct store *store, const char *prefix, const char *dir,
                       const struct transfer_options *options, struct transfer_result *result,
                       GError **error)
{
    g_auto(fd_t) root = -1;
    struct download download = {.store = store, .prefix = prefix};
    GError *failure = NULL;

    if (g_mkdir_with_parents(dir, 0777) == 0)
        root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return error_set_errno(error, errno, "download to %s", dir);
    download.root_fd = root;
    download.directories = g_ptr_array_new_with_free_func(target_free);
    transfer_init(&download.transfer, options, store_caps(store)->parallel);
    transfer_count_list(&download.transfer, store, prefix);
    if (!store_list(store, prefix, false, each_object, &download, &failure))
        transfer_fail(&download.transfer, failure);
    download.transfer.progress.counting = false;
    do
        get_todo(&download);
    while (transfer_step(&download.transfer));
    set_directory_attrs(&download);
    g_ptr_array_unref(download.directories);
    return transfer_end(&download.transfer, result, error);
}

bool transfer_download_file(struct store *store, const char *key, const char *dir, const char *name,
                            const struct transfer_options *options, struct transfer_result *result,
                            GError **error)
{
    g_auto(fd_t) root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct download download = {.store = store, .prefix = "", .root_fd = root};
    struct store_object object = {0};
    struct target *target;

    if (root < 0)
        return error_set_errno(error, errno, "download to %s", dir);
    if (!local_path_is_safe(name) || strchr(name, '/'))
        return error_set(error, EINVAL, "\"%s\" is no name for a file", name);
    if (!store_head(store, key, &object, error))
        return false;
    transfer_init(&download.transfer, options, store_caps(store)->parallel);
    target = target_new(&download, &object);
    g_free(target->key);
    g_free(target->path);
    target->key = g_strdup(key);
    target->path = g_strdup(name);
    transfer_found(&download.transfer, object.size_bytes);
    download.transfer.progress.counting = false;
    store_object_clear(&object);
    get_target(target);
    do
        get_todo(&download);
    while (transfer_step(&download.transfer));
    return transfer_end(&download.transfer, result, error);
}
