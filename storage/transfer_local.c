#include "storage/transfer_local.h"

#include "config/autofd.h"
#include "config/error.h"
#include "storage/beneath.h"
#include "storage/transfer_walk.h"

#include <stdio.h>
#include <string.h>

/* A bucket must not plant programs that run as somebody else: no set-uid, set-gid. */
#define KEPT_MODE 0777

static bool fail(GError **error, int code, const char *path)
{
    if (code == ENOTDIR || code == ELOOP)
        return error_set(error, code, "%s: a part of the path is a symlink or a file", path);
    return error_set_errno(error, code, "write %s", path);
}

bool local_path_is_safe(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);

    for (char **part = parts; *part; part++) {
        bool is_last = !part[1] && part != parts;

        if (g_str_equal(*part, ".") || g_str_equal(*part, "..") || (!**part && !is_last))
            return false;
    }
    return true;
}

bool local_file_open(local_file_t *file, int root_fd, const char *path, GError **error)
{
    const char *name;

    *file = (local_file_t){.parent_fd = -1, .fd = -1};
    file->parent_fd = beneath_open_parent(root_fd, path, true, false, &name);
    if (file->parent_fd < 0)
        return fail(error, errno, path);
    file->name = g_strdup(name);
    for (int tries = 0; tries < 100; tries++) {
        g_autofree char *temp =
            g_strdup_printf(TRANSFER_TEMP_PREFIX "%08x%08x", g_random_int(), g_random_int());

        file->fd = openat(file->parent_fd, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file->fd >= 0) {
            file->temp = g_steal_pointer(&temp);
            return true;
        }
        if (errno != EEXIST)
            break;
    }
    return fail(error, errno, path);
}

/* Zeros need no room on the disk: publishing sets the size. */
static bool is_zero(const char *data, size_t size)
{
    return size && !*data && !memcmp(data, data + 1, size - 1);
}

bool local_file_write(local_file_t *file, const char *data, size_t size, uint64_t offset,
                      GError **error)
{
    if (is_zero(data, size))
        return true;
    while (size) {
        ssize_t count = pwrite(file->fd, data, size, (off_t)offset);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail(error, errno, file->name);
        data += count;
        size -= (size_t)count;
        offset += (uint64_t)count;
    }
    return true;
}

static void to_times(const struct file_attrs *attrs, struct timespec times[2])
{
    const int64_t ns[2] = {attrs->atime_ns, attrs->mtime_ns};

    for (int i = 0; i < 2; i++) {
        int64_t rest = ns[i] % 1000000000;

        times[i].tv_sec = ns[i] / 1000000000 - (rest < 0);
        times[i].tv_nsec = rest < 0 ? rest + 1000000000 : rest;
    }
}

bool local_file_publish(local_file_t *file, uint64_t size, const struct file_attrs *attrs,
                        GError **error)
{
    struct timespec times[2];

    to_times(attrs, times);
    if (ftruncate(file->fd, (off_t)size) < 0 || fchmod(file->fd, attrs->mode & KEPT_MODE) < 0 ||
        futimens(file->fd, times) < 0 ||
        renameat(file->parent_fd, file->temp, file->parent_fd, file->name) < 0)
        return fail(error, errno, file->name);
    g_clear_pointer(&file->temp, g_free);
    return true;
}

void local_file_clear(local_file_t *file)
{
    if (file->temp)
        unlinkat(file->parent_fd, file->temp, 0);
    g_clear_pointer(&file->temp, g_free);
    g_clear_pointer(&file->name, g_free);
    fd_close(&file->fd);
    fd_close(&file->parent_fd);
}

bool local_symlink(int root_fd, const char *path, const char *target,
                   const struct file_attrs *attrs, GError **error)
{
    const char *name;
    g_auto(fd_t) parent = beneath_open_parent(root_fd, path, true, false, &name);
    g_autofree char *temp =
        g_strdup_printf(TRANSFER_TEMP_PREFIX "%08x%08x", g_random_int(), g_random_int());
    struct timespec times[2];

    if (parent < 0 || symlinkat(target, parent, temp) < 0)
        return fail(error, errno, path);
    to_times(attrs, times);
    if (utimensat(parent, temp, times, AT_SYMLINK_NOFOLLOW) == 0 &&
        renameat(parent, temp, parent, name) == 0)
        return true;
    fail(error, errno, path);
    unlinkat(parent, temp, 0);
    return false;
}

bool local_directory(int root_fd, const char *path, GError **error)
{
    const char *name;
    g_auto(fd_t) parent = beneath_open_parent(root_fd, path, true, false, &name);
    struct stat st;

    if (parent < 0)
        return fail(error, errno, path);
    if (mkdirat(parent, name, 0777) == 0)
        return true;
    if (errno != EEXIST)
        return fail(error, errno, path);
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
        return fail(error, ENOTDIR, path);
    return true;
}

bool local_directory_attrs(int root_fd, const char *path, const struct file_attrs *attrs,
                           GError **error)
{
    g_auto(fd_t) dir = beneath_open(root_fd, path, O_RDONLY | O_DIRECTORY, 0);
    struct timespec times[2];

    to_times(attrs, times);
    if (dir >= 0 && fchmod(dir, attrs->mode & KEPT_MODE) == 0 && futimens(dir, times) == 0)
        return true;
    return fail(error, errno, path);
}
