#include "storage/transfer_engine.h"

#include "config/autofd.h"
#include "config/error.h"
#include "storage/beneath.h"
#include "storage/file_attrs.h"
#include "storage/transfer_walk.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

struct upload {
    struct transfer transfer;
    struct store *store;
    const char *dir, *prefix;
    int root_fd;
    GQueue todo; /* struct upload_entry: found different from what is in the store */
};

struct upload_entry {
    struct upload *upload;
    char *path, *key;
    struct stat st;
};

static void entry_free(struct upload_entry *entry)
{
    g_free(entry->path);
    g_free(entry->key);
    g_free(entry);
}

static int64_t to_ns(struct timespec time)
{
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static GHashTable *entry_metadata(const struct upload_entry *entry)
{
    const struct stat *st = &entry->st;
    GHashTable *metadata = metadata_new();
    struct file_attrs attrs = {.mode = st->st_mode,
                               .uid = st->st_uid,
                               .gid = st->st_gid,
                               .mtime_ns = to_ns(st->st_mtim),
                               .ctime_ns = to_ns(st->st_ctim),
                               .atime_ns = to_ns(st->st_atim)};

    file_attrs_save(&attrs, metadata);
    return metadata;
}

static void put_finished(struct transfer_task *task, void *user)
{
    struct upload_entry *entry = user;
    GError *error = NULL;

    if (task->call->error) {
        transfer_fail_call(task->transfer, task, "upload", entry->path);
    } else if (!task->call->object.etag || !*task->call->object.etag) {
        error_set(&error, EIO, "upload %s: the store gave no ETag", entry->path);
        transfer_fail(task->transfer, error);
    } else {
        transfer_bytes_done(task->transfer, task->bytes);
        transfer_file_done(task->transfer);
    }
    entry_free(entry);
}

static bool changed(const struct upload_entry *entry, GError **error)
{
    return error_set(error, EBUSY, "%s/%s: changed while it was uploaded", entry->upload->dir,
                     entry->path);
}

static bool read_exactly(const struct upload_entry *entry, int fd, char *buffer, size_t size,
                         uint64_t offset, GError **error)
{
    while (size) {
        ssize_t count = pread(fd, buffer, size, (off_t)offset);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return error_set_errno(error, errno, "read %s/%s", entry->upload->dir, entry->path);
        if (count == 0)
            return changed(entry, error);
        buffer += count;
        size -= (size_t)count;
        offset += (uint64_t)count;
    }
    return true;
}

static bool is_unchanged(const struct upload_entry *entry, int fd, GError **error)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_set_errno(error, errno, "%s/%s", entry->upload->dir, entry->path);
    if (st.st_size != entry->st.st_size || to_ns(st.st_mtim) != to_ns(entry->st.st_mtim))
        return changed(entry, error);
    return true;
}

/* Whether BUFFER holds the whole body: a file's bytes, a symlink's target. */
static bool read_body(const struct upload_entry *entry, int fd, char *buffer, size_t size,
                      GError **error)
{
    const char *name;
    g_auto(fd_t) parent = -1;
    ssize_t count;

    if (fd >= 0)
        return read_exactly(entry, fd, buffer, size, 0, error) && is_unchanged(entry, fd, error);
    if (S_ISDIR(entry->st.st_mode))
        return true;
    parent = beneath_open_parent(entry->upload->root_fd, entry->path, false, false, &name);
    count = parent < 0 ? -1 : readlinkat(parent, name, buffer, size + 1);
    if (count < 0)
        return error_set_errno(error, errno, "read %s/%s", entry->upload->dir, entry->path);
    return (size_t)count == size || changed(entry, error);
}

static void put_small(struct upload_entry *entry, int fd)
{
    struct transfer *transfer = &entry->upload->transfer;
    size_t size = S_ISDIR(entry->st.st_mode) ? 0 : (size_t)entry->st.st_size;
    g_autofree char *buffer = NULL;
    struct store_call *call;
    GError *error = NULL;

    if (transfer_room(transfer, size))
        buffer = transfer_buffer(transfer, size + 1, entry->path);
    if (!buffer || !read_body(entry, fd, buffer, size, &error)) {
        if (error)
            transfer_skip(transfer, error);
        entry_free(entry);
        return;
    }
    call = store_call_put(entry->key, buffer, size);
    call->metadata = entry_metadata(entry);
    transfer_start(transfer, entry->upload->store, call, g_steal_pointer(&buffer), size,
                   put_finished, entry);
}

static bool put_part(const struct upload_entry *entry, int fd, struct multipart *multipart,
                     unsigned index)
{
    struct transfer *transfer = multipart->transfer;
    uint64_t size = multipart_part_size(multipart, index);
    g_autofree char *buffer = NULL;
    struct store_call *call;
    GError *error = NULL;

    if (transfer_room(transfer, size))
        buffer = transfer_buffer(transfer, size, entry->path);
    if (!buffer)
        return false;
    if (!read_exactly(entry, fd, buffer, size, index * multipart->part_bytes, &error)) {
        transfer_skip(transfer, error);
        return false;
    }
    call = store_call_part(entry->key, multipart->upload_id, index + 1, buffer, size);
    multipart_part_started(multipart);
    transfer_start(transfer, multipart->store, call, g_steal_pointer(&buffer), size,
                   multipart_part_finished, multipart);
    return true;
}

static void put_large(struct upload_entry *entry, int fd)
{
    g_autoptr(GHashTable) metadata = entry_metadata(entry);
    struct multipart *multipart =
        multipart_begin(&entry->upload->transfer, entry->upload->store, entry->key, metadata,
                        (uint64_t)entry->st.st_size);
    GError *error = NULL;
    unsigned index = 0;

    if (multipart) {
        while (index < multipart_parts(multipart) && put_part(entry, fd, multipart, index))
            index++;
        if (index < multipart_parts(multipart)) {
            multipart_fail(multipart);
        } else if (!is_unchanged(entry, fd, &error)) {
            transfer_skip(&entry->upload->transfer, error);
            multipart_fail(multipart);
        }
        multipart_end(multipart);
    }
    entry_free(entry);
}

static void put_entry(struct upload_entry *entry)
{
    struct transfer *transfer = &entry->upload->transfer;
    g_auto(fd_t) fd = -1;
    GError *error = NULL;

    if (!S_ISREG(entry->st.st_mode)) {
        put_small(entry, -1);
        return;
    }
    fd = beneath_open(entry->upload->root_fd, entry->path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        error_set_errno(&error, errno, "open %s/%s", entry->upload->dir, entry->path);
    else if (is_unchanged(entry, fd, &error)) {
        if ((uint64_t)entry->st.st_size > TRANSFER_PART_BYTES)
            put_large(entry, fd);
        else
            put_small(entry, fd);
        return;
    }
    transfer_skip(transfer, error);
    entry_free(entry);
}

static bool is_same(const struct upload_entry *entry, const struct store_object *object)
{
    uint64_t size = S_ISDIR(entry->st.st_mode) ? 0 : (uint64_t)entry->st.st_size;
    struct file_attrs attrs = {0};

    file_attrs_load(&attrs, object);
    return object->size_bytes == size && attrs.mode == entry->st.st_mode &&
           attrs.mtime_ns == to_ns(entry->st.st_mtim);
}

static void head_finished(struct transfer_task *task, void *user)
{
    struct upload_entry *entry = user;

    if (task->call->error && !error_is(task->call->error, ENOENT)) {
        transfer_fail_call(task->transfer, task, "look at", entry->key);
        entry_free(entry);
    } else if (!task->call->error && is_same(entry, &task->call->object)) {
        transfer_file_skipped(task->transfer, task->call->object.size_bytes);
        entry_free(entry);
    } else {
        g_queue_push_tail(&entry->upload->todo, entry);
    }
}

static void put_todo(struct upload *upload)
{
    struct upload_entry *entry;

    while ((entry = g_queue_pop_head(&upload->todo)))
        put_entry(entry);
}

static void add_entry(struct upload *upload, const char *path, const struct stat *st)
{
    struct transfer *transfer = &upload->transfer;
    struct upload_entry *entry = g_new0(struct upload_entry, 1);

    entry->upload = upload;
    entry->path = g_strdup(path);
    entry->key = g_strconcat(upload->prefix, path, S_ISDIR(st->st_mode) ? "/" : NULL, NULL);
    entry->st = *st;
    transfer_found(transfer, S_ISDIR(st->st_mode) ? 0 : (uint64_t)st->st_size);
    if (!transfer->options->only_changed) {
        put_entry(entry);
    } else if (transfer_room(transfer, 0)) {
        transfer_start(transfer, upload->store, store_call_new(STORE_HEAD, entry->key), NULL, 0,
                       head_finished, entry);
    } else {
        entry_free(entry);
    }
}

/* For who watches the progress: the totals, before anything moves. */
static void count_tree(struct upload *upload)
{
    struct tree_walk *walk;
    const char *path;
    struct stat st;

    if (!upload->transfer.options->progress)
        return;
    walk = tree_walk_open(upload->dir, upload->root_fd);
    while (transfer_goes_on(&upload->transfer)) {
        g_autoptr(GError) unreadable = NULL; /* it is said when its turn comes */

        if (tree_walk_next(walk, &path, &st, &unreadable))
            transfer_found(&upload->transfer, S_ISDIR(st.st_mode) ? 0 : (uint64_t)st.st_size);
        else if (!unreadable)
            break;
    }
    tree_walk_close(walk);
    upload->transfer.counted = true;
    upload->transfer.progress.counting = false;
}

bool transfer_upload(const char *dir, struct store *store, const char *prefix,
                     const struct transfer_options *options, struct transfer_result *result,
                     GError **error)
{
    g_auto(fd_t) root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct upload upload = {.store = store, .dir = dir, .prefix = prefix, .root_fd = root};
    struct tree_walk *walk;
    const char *path;
    struct stat st;

    if (root < 0)
        return error_set_errno(error, errno, "upload %s", dir);
    transfer_init(&upload.transfer, options, store_caps(store)->parallel);
    count_tree(&upload);
    walk = tree_walk_open(dir, root);
    while (transfer_goes_on(&upload.transfer)) {
        GError *unreadable = NULL;

        if (tree_walk_next(walk, &path, &st, &unreadable))
            add_entry(&upload, path, &st);
        else if (unreadable)
            transfer_skip(&upload.transfer, unreadable);
        else
            break;
        put_todo(&upload);
    }
    tree_walk_close(walk);
    upload.transfer.progress.counting = false;
    do
        put_todo(&upload);
    while (transfer_step(&upload.transfer));
    return transfer_end(&upload.transfer, result, error);
}
