#include "storage/file_store.h"

#include "config/autofd.h"
#include "config/error.h"
#include "storage/beneath.h"

#include <inttypes.h>

bool file_store_error(GError **error, int code, const char *verb, const char *key)
{
    switch (code) {
    case EACCES:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENAMETOOLONG:
        return error_set_errno(error, code, "%s %s", verb, key);
    case EPERM:
    case EROFS:
        return error_set_errno(error, EACCES, "%s %s: %s", verb, key, g_strerror(code));
    case ENOTDIR:
        return error_set(error, ENOTDIR,
                         "%s %s: a part of the key before a '/' is an object itself; a file "
                         "store cannot hold both",
                         verb, key);
    case EISDIR:
        return error_set(error, EISDIR,
                         "%s %s: there are objects below the key; a file store cannot hold both",
                         verb, key);
    default:
        return error_set(error, EIO, "%s %s: %s", verb, key, g_strerror(code));
    }
}

/* The inode alone may be reused, and the clock of some filesystems is coarse: file_temp_finish sets
 * a modification time of its own for each version. */
char *file_store_etag(const struct stat *st)
{
    return g_strdup_printf("%" PRIx64 "-%" PRIx64 "-%" PRIx64 ".%lx-%" PRIx64, (uint64_t)st->st_dev,
                           (uint64_t)st->st_ino, (uint64_t)st->st_mtim.tv_sec,
                           (unsigned long)st->st_mtim.tv_nsec, (uint64_t)st->st_size);
}

void file_store_describe(struct store_object *object, const char *key, const struct stat *st)
{
    store_object_clear(object);
    object->key = g_strdup(key);
    object->etag = file_store_etag(st);
    object->size_bytes = (uint64_t)st->st_size;
    object->mtime_ns = st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec;
}

static int open_path(struct file_store *store, const char *key, struct stat *st, GError **error)
{
    g_autofree char *path = file_store_path(key, error);
    g_auto(fd_t) fd = -1;

    if (!path)
        return -1;
    /* O_NONBLOCK: somebody's fifo must not hang us. */
    fd = beneath_open(store->root_fd, path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENXIO)) {
        error_set(error, ENOENT, "%s: no such key in %s", key, store->base.url);
        return -1;
    }
    if (fd < 0 || fstat(fd, st) < 0) {
        file_store_error(error, errno, "open", key);
        return -1;
    }
    if (!S_ISREG(st->st_mode)) {
        error_set(error, ENOENT, "%s: no such key in %s", key, store->base.url);
        return -1;
    }
    return fd_steal(&fd);
}

int file_store_open_object(struct file_store *store, const char *key, const char *if_match,
                           struct stat *st, GError **error)
{
    g_auto(fd_t) fd = open_path(store, key, st, error);
    g_autofree char *etag = NULL;

    if (fd < 0 || !if_match)
        return fd_steal(&fd);
    etag = file_store_etag(st);
    if (!g_str_equal(etag, if_match)) {
        error_set(error, ESTALE, "%s: the object has changed", key);
        return -1;
    }
    return fd_steal(&fd);
}

static bool read_range(int fd, struct store_call *call, GError **error)
{
    uint64_t at = call->offset;

    for (unsigned i = 0; i < call->iov_count; i++) {
        char *to = call->iov[i].iov_base;
        size_t left = call->iov[i].iov_len;

        while (left) {
            ssize_t count = pread(fd, to, left, (off_t)at);

            if (count < 0 && errno == EINTR)
                continue;
            if (count < 0)
                return file_store_error(error, errno, "read", call->key);
            if (count == 0)
                return true;
            at += (uint64_t)count;
            to += count;
            left -= (size_t)count;
            call->received_bytes += (uint64_t)count;
        }
    }
    return true;
}

void file_store_get(struct file_store *store, struct store_call *call, GError **error)
{
    struct stat st;
    g_auto(fd_t) fd = file_store_open_object(store, call->key, call->if_match, &st, error);

    if (fd < 0)
        return;
    file_store_describe(&call->object, call->key, &st);
    if (!file_store_read_metadata(fd, call->key, &call->object.metadata, error))
        return;
    if (call->verb == STORE_GET && call->offset < (uint64_t)st.st_size)
        read_range(fd, call, error);
}
