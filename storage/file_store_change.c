#include "storage/file_store.h"

#include "config/autofd.h"
#include "config/error.h"
#include "storage/beneath.h"

#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#define LOCKS           64
#define LOCK_TIMEOUT_US (10 * G_USEC_PER_SEC)
#define RACE_TRIES      100

/* Changes of one key, by any process, happen one after another: what a condition saw still holds
 * when the name changes. Each lock file stands for many keys. */
static bool lock_key(struct file_store *store, const char *key, fd_t *lock, GError **error)
{
    g_autofree char *name = g_strdup_printf("lock-%02x", g_str_hash(key) % LOCKS);
    g_auto(fd_t) tmp = file_store_open_tmp(store, NULL);
    int64_t until = g_get_monotonic_time() + LOCK_TIMEOUT_US;
    unsigned pause_us = 50;

    if (tmp >= 0)
        *lock = openat(tmp, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (*lock < 0)
        return file_store_error(error, errno, "lock", key);
    while (flock(*lock, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return file_store_error(error, errno, "lock", key);
        if (g_get_monotonic_time() > until)
            return error_set(error, ETIMEDOUT, "%s: another process holds %s/%s for 10 s", key,
                             FILE_STORE_TMP, name);
        g_usleep(pause_us);
        pause_us = MIN(pause_us * 2, 5000);
    }
    return true;
}

static bool check_condition(struct file_store *store, const struct store_call *call, GError **error)
{
    struct stat st;
    g_auto(fd_t) fd = -1;
    GError *failure = NULL;

    /* A copy's if_match is about its source. */
    if (call->verb == STORE_COPY || (!call->if_match && !call->if_absent))
        return true;
    fd = file_store_open_object(store, call->key, call->if_match, &st, &failure);
    if (call->if_match) {
        if (failure)
            g_propagate_error(error, failure);
        return fd >= 0;
    }
    if (fd >= 0)
        return error_set(error, EEXIST, "%s: the key exists", call->key);
    if (error_is(failure, ENOENT)) {
        g_error_free(failure);
        return true;
    }
    g_propagate_error(error, failure);
    return false;
}

/* A delete may take away a directory between its making and the rename into it: try again. */
static int rename_into_place(struct file_temp *temp, const char *path)
{
    for (int tries = 0; tries < RACE_TRIES; tries++) {
        const char *name;
        g_auto(fd_t) parent = beneath_open_parent(temp->store->root_fd, path, true, true, &name);

        if (parent < 0 && errno != ENOENT)
            return -1;
        if (parent < 0)
            continue;
        if (renameat(temp->tmp_fd, temp->name, parent, name) == 0) {
            g_auto(fd_t) readable = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

            return readable < 0 ? -1 : fsync(readable);
        }
        /* A directory that deletes have emptied is in nobody's way. */
        if (errno == EISDIR && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
            errno = EISDIR;
            return -1;
        }
        if (errno != ENOENT && errno != EISDIR)
            return -1;
    }
    return -1;
}

bool file_store_publish(struct file_temp *temp, struct store_call *call, GHashTable *metadata,
                        GError **error)
{
    g_autofree char *path = file_store_path(call->key, error);
    g_auto(fd_t) lock = -1;
    struct stat st;

    if (!path || !file_store_write_metadata(temp->fd, call->key, metadata, error) ||
        !file_temp_finish(temp, &st, error) || !lock_key(temp->store, call->key, &lock, error) ||
        !check_condition(temp->store, call, error))
        return false;
    if (rename_into_place(temp, path) < 0) {
        int code = errno;
        struct stat root;

        if (code == ENOENT && fstat(temp->store->root_fd, &root) == 0 && !root.st_nlink)
            return error_set(error, ENXIO, "%s: the directory is gone", temp->store->base.url);
        return file_store_error(error, code, "put", call->key);
    }
    g_clear_pointer(&temp->name, g_free);
    file_store_describe(&call->object, call->key, &st);
    return true;
}

void file_store_put(struct file_store *store, struct store_call *call, GError **error)
{
    g_auto(file_temp_t) temp = {.tmp_fd = -1, .fd = -1};

    if (file_temp_open(&temp, store, error) && file_temp_write(&temp, call, error))
        file_store_publish(&temp, call, call->metadata, error);
}

void file_store_copy(struct file_store *store, struct store_call *call, GError **error)
{
    g_auto(file_temp_t) temp = {.tmp_fd = -1, .fd = -1};
    g_autoptr(GHashTable) kept = NULL;
    struct stat st;
    g_auto(fd_t) source =
        file_store_open_object(store, call->source_key, call->if_match, &st, error);

    if (source < 0 ||
        (!call->metadata && !file_store_read_metadata(source, call->source_key, &kept, error)))
        return;
    if (file_temp_open(&temp, store, error) &&
        file_temp_append(&temp, source, 0, (uint64_t)st.st_size, call, error))
        file_store_publish(&temp, call, call->metadata ? call->metadata : kept, error);
}

static bool delete_key(struct file_store *store, const char *key, GError **error)
{
    g_autofree char *path = file_store_path(key, error);
    g_auto(fd_t) lock = -1;
    g_auto(fd_t) parent = -1;
    g_auto(fd_t) readable = -1;
    const char *name;

    if (!path)
        return false;
    parent = beneath_open_parent(store->root_fd, path, false, false, &name);
    if (parent < 0)
        return errno == ENOENT || errno == ENOTDIR || file_store_error(error, errno, "delete", key);
    if (!lock_key(store, key, &lock, error))
        return false;
    if (unlinkat(parent, name, 0) < 0)
        return errno == ENOENT || errno == EISDIR || file_store_error(error, errno, "delete", key);
    readable = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (readable < 0 || fsync(readable) < 0)
        return file_store_error(error, errno, "delete", key);
    beneath_remove_empty_parents(store->root_fd, path);
    return true;
}

void file_store_delete(struct file_store *store, struct store_call *call, GError **error)
{
    delete_key(store, call->key, error);
}

void file_store_delete_many(struct file_store *store, struct store_call *call, GError **error)
{
    for (unsigned i = 0; i < call->keys->len; i++) {
        GError *failure = NULL;

        if (delete_key(store, call->keys->pdata[i], &failure))
            continue;
        g_ptr_array_add(call->failed_keys, g_strdup(call->keys->pdata[i]));
        if (*error)
            g_error_free(failure);
        else
            g_propagate_error(error, failure);
    }
}
