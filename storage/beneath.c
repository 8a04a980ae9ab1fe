#include "storage/beneath.h"

#include "config/autofd.h"

#include <errno.h>
#include <string.h>

#define DIRECTORY_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static bool is_plain_name(const char *name)
{
    return *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Directories are opened with O_PATH, which needs no permission to read them but cannot fsync. */
static void sync_directory(int dir_fd)
{
    g_auto(fd_t) fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0)
        fsync(fd);
}

static int open_directory(int parent_fd, const char *name, bool create, bool sync)
{
    int fd;

    if (!is_plain_name(name)) {
        errno = EINVAL;
        return -1;
    }
    fd = openat(parent_fd, name, DIRECTORY_FLAGS);
    if (fd >= 0 || errno != ENOENT || !create)
        return fd;
    if (mkdirat(parent_fd, name, 0777) < 0 && errno != EEXIST)
        return -1;
    if (sync)
        sync_directory(parent_fd);
    return openat(parent_fd, name, DIRECTORY_FLAGS);
}

int beneath_open_parent(int root_fd, const char *path, bool create, bool sync, const char **name)
{
    g_autofree char *copy = g_strdup(path);
    g_auto(fd_t) dir = openat(root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    char *at = copy, *slash;

    while (dir >= 0 && (slash = strchr(at, '/'))) {
        int next;

        *slash = '\0';
        next = open_directory(dir, at, create, sync);
        if (next < 0)
            return -1;
        close(dir);
        dir = next;
        at = slash + 1;
    }
    if (dir >= 0 && !is_plain_name(at)) {
        errno = EINVAL;
        return -1;
    }
    *name = path + (at - copy);
    return fd_steal(&dir);
}

int beneath_open(int root_fd, const char *path, int flags, mode_t mode)
{
    const char *name;
    g_auto(fd_t) dir = beneath_open_parent(root_fd, path, false, false, &name);

    if (dir < 0)
        return -1;
    return openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
}

int beneath_stat(int root_fd, const char *path, struct stat *st)
{
    const char *name;
    g_auto(fd_t) dir = beneath_open_parent(root_fd, path, false, false, &name);

    return dir < 0 ? -1 : fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW);
}

void beneath_remove_empty_parents(int root_fd, const char *path)
{
    g_autofree char *parent = g_strdup(path);
    char *slash;

    while ((slash = strrchr(parent, '/'))) {
        const char *name;
        g_auto(fd_t) dir = -1;

        *slash = '\0';
        dir = beneath_open_parent(root_fd, parent, false, false, &name);
        if (dir < 0 || unlinkat(dir, name, AT_REMOVEDIR) < 0)
            return;
    }
}
