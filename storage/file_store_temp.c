#include "storage/file_store.h"

#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "storage/beneath.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define TEMP_PREFIX    "new-"
#define STALE_TEMP_S   (24 * 3600)
#define STALE_UPLOAD_S (7 * 24 * 3600) /* without a new part */
#define COPY_BYTES     (64u << 20)     /* between two looks at the cancellation */

int file_store_open_tmp(struct file_store *store, const char *path)
{
    g_autofree char *full = g_build_path("/", FILE_STORE_TMP, path ? path : "x", NULL);
    const char *name;
    g_auto(fd_t) parent = beneath_open_parent(store->root_fd, full, true, true, &name);

    if (parent < 0 || !path)
        return fd_steal(&parent);
    if (mkdirat(parent, name, 0777) < 0 && errno != EEXIST)
        return -1;
    return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

bool file_temp_open(struct file_temp *temp, struct file_store *store, GError **error)
{
    *temp = (struct file_temp){.store = store, .tmp_fd = -1, .fd = -1};
    temp->tmp_fd = file_store_open_tmp(store, NULL);
    if (temp->tmp_fd < 0)
        return file_store_error(error, errno, "make", FILE_STORE_TMP);
    for (int tries = 0; tries < 100; tries++) {
        g_autofree char *name =
            g_strdup_printf(TEMP_PREFIX "%08x%08x", g_random_int(), g_random_int());

        temp->fd = openat(temp->tmp_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (temp->fd >= 0) {
            temp->name = g_steal_pointer(&name);
            return true;
        }
        if (errno != EEXIST)
            break;
    }
    return file_store_error(error, errno, "make a file in", FILE_STORE_TMP);
}

void file_temp_clear(struct file_temp *temp)
{
    if (temp->name)
        unlinkat(temp->tmp_fd, temp->name, 0);
    g_clear_pointer(&temp->name, g_free);
    fd_close(&temp->fd);
    fd_close(&temp->tmp_fd);
}

bool file_temp_write(struct file_temp *temp, const struct store_call *call, GError **error)
{
    for (unsigned i = 0; i < call->iov_count; i++) {
        const char *from = call->iov[i].iov_base;
        size_t left = call->iov[i].iov_len;

        while (left) {
            ssize_t count = write(temp->fd, from, left);

            if (count < 0 && errno == EINTR)
                continue;
            if (count < 0)
                return file_store_error(error, errno, "write", call->key);
            from += count;
            left -= (size_t)count;
        }
    }
    return true;
}

/* For filesystems between which copy_file_range does not work. */
static ssize_t copy_by_hand(int from_fd, off_t *offset, int to_fd, size_t count)
{
    g_autofree char *buffer = g_malloc(1 << 20);
    ssize_t got = pread(from_fd, buffer, MIN(count, 1u << 20), *offset);

    for (ssize_t done = 0; got > 0 && done < got;) {
        ssize_t wrote = write(to_fd, buffer + done, (size_t)(got - done));

        if (wrote < 0)
            return -1;
        done += wrote;
    }
    if (got > 0)
        *offset += got;
    return got;
}

static ssize_t copy_some(int from_fd, off_t *offset, int to_fd, size_t count)
{
    ssize_t copied = copy_file_range(from_fd, offset, to_fd, NULL, count, 0);

    if (copied < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
        return copy_by_hand(from_fd, offset, to_fd, count);
    return copied;
}

bool file_temp_append(struct file_temp *temp, int source_fd, uint64_t offset, uint64_t length,
                      struct store_call *call, GError **error)
{
    off_t at = (off_t)offset;

    while (length) {
        ssize_t count = copy_some(source_fd, &at, temp->fd, MIN(length, COPY_BYTES));

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return file_store_error(error, errno, "copy to", call->key);
        if (count == 0)
            return error_set(error, EINVAL, "copy to %s: the range is outside the source",
                             call->key);
        if (store_call_is_cancelled(call))
            return error_set(error, ECANCELED, "copy to %s: cancelled", call->key);
        length -= (uint64_t)count;
    }
    return true;
}

bool file_temp_finish(struct file_temp *temp, struct stat *st, GError **error)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_NOW}};

    clock_gettime(CLOCK_REALTIME, &times[1]);
    if (futimens(temp->fd, times) < 0 || fsync(temp->fd) < 0 || fstat(temp->fd, st) < 0)
        return file_store_error(error, errno, "save a file in", FILE_STORE_TMP);
    return true;
}

static bool is_older(int dir_fd, const char *name, time_t age_s)
{
    struct stat st;

    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           st.st_mtim.tv_sec < time(NULL) - age_s;
}

static DIR *open_directory(struct file_store *store, const char *path)
{
    int fd = beneath_open(store->root_fd, path, O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (fd >= 0 && !dir)
        close(fd);
    return dir;
}

/* What a crash left. Uploads last longer: a slow writer may add a part a day. */
void file_store_remove_stale(struct file_store *store)
{
    DIR *tmp = open_directory(store, FILE_STORE_TMP);
    DIR *uploads = open_directory(store, FILE_STORE_TMP "/" FILE_STORE_UPLOADS);
    struct dirent *entry;

    while (tmp && (entry = readdir(tmp)))
        if (g_str_has_prefix(entry->d_name, TEMP_PREFIX) &&
            is_older(dirfd(tmp), entry->d_name, STALE_TEMP_S))
            unlinkat(dirfd(tmp), entry->d_name, 0);
    while (uploads && (entry = readdir(uploads))) {
        g_autoptr(GError) error = NULL;

        if (entry->d_name[0] != '.' && is_older(dirfd(uploads), entry->d_name, STALE_UPLOAD_S) &&
            !file_store_remove_upload(store, entry->d_name, &error))
            log_warning("%s: remove a stale upload: %s", store->base.url, error->message);
    }
    if (tmp)
        closedir(tmp);
    if (uploads)
        closedir(uploads);
}
