#include "storage/transfer_walk.h"

#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "storage/beneath.h"

#include <dirent.h>
#include <string.h>

struct tree_walk {
    char *dir; /* for messages */
    int root_fd;
    GQueue waiting; /* char*: directories, "" is the root */
    char *at;       /* the directory whose names are below */
    GPtrArray *names;
    unsigned next;
    char *path;
};

struct tree_walk *tree_walk_open(const char *dir, int root_fd)
{
    struct tree_walk *walk = g_new0(struct tree_walk, 1);

    walk->dir = g_strdup(dir);
    walk->root_fd = root_fd;
    g_queue_init(&walk->waiting);
    g_queue_push_tail(&walk->waiting, g_strdup(""));
    walk->names = g_ptr_array_new_with_free_func(g_free);
    return walk;
}

void tree_walk_close(struct tree_walk *walk)
{
    g_queue_clear_full(&walk->waiting, g_free);
    g_ptr_array_unref(walk->names);
    g_free(walk->dir);
    g_free(walk->at);
    g_free(walk->path);
    g_free(walk);
}

static bool read_directory(struct tree_walk *walk, const char *path, GError **error)
{
    int fd = *path ? beneath_open(walk->root_fd, path, O_RDONLY | O_DIRECTORY, 0)
                   : openat(walk->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!dir) {
        error_set_errno(error, errno, "read the directory %s/%s", walk->dir, path);
        fd_close(&fd);
        return false;
    }
    g_ptr_array_set_size(walk->names, 0);
    walk->next = 0;
    while ((entry = readdir(dir)))
        if (!g_str_equal(entry->d_name, ".") && !g_str_equal(entry->d_name, "..") &&
            !g_str_has_prefix(entry->d_name, TRANSFER_TEMP_PREFIX))
            g_ptr_array_add(walk->names, g_strdup(entry->d_name));
    closedir(dir);
    return true;
}

/* Opens the next directory. An empty one is an entry itself. */
static bool next_directory(struct tree_walk *walk, bool *is_empty, GError **error)
{
    g_free(walk->at);
    walk->at = g_queue_pop_head(&walk->waiting);
    if (!walk->at || !read_directory(walk, walk->at, error))
        return false;
    *is_empty = !walk->names->len && *walk->at;
    return true;
}

static bool stat_entry(struct tree_walk *walk, struct stat *st, GError **error)
{
    if (!g_utf8_validate(walk->path, -1, NULL)) {
        g_autofree char *shown = g_strescape(walk->path, NULL);

        return error_set(error, EINVAL, "%s/%s: the name is not UTF-8", walk->dir, shown);
    }
    if (beneath_stat(walk->root_fd, walk->path, st) < 0)
        return error_set_errno(error, errno, "%s/%s", walk->dir, walk->path);
    return true;
}

/* What a directory gets that nobody asked for. */
static bool has_usual_mode(const struct stat *st)
{
    return (st->st_mode & 07777) == 0755;
}

bool tree_walk_next(struct tree_walk *walk, const char **path, struct stat *st, GError **error)
{
    for (;;) {
        bool is_empty = false;

        while (walk->next == walk->names->len && !is_empty)
            if (!next_directory(walk, &is_empty, error))
                return false;
        g_free(walk->path);
        if (is_empty)
            walk->path = g_strdup(walk->at);
        else
            walk->path = g_strconcat(walk->at, *walk->at ? "/" : "",
                                     (char *)walk->names->pdata[walk->next++], NULL);
        if (!stat_entry(walk, st, error))
            return false;
        *path = walk->path;
        if (is_empty && !has_usual_mode(st))
            continue; /* it was an entry when its name was met */
        if (is_empty || S_ISREG(st->st_mode) || S_ISLNK(st->st_mode))
            return true;
        if (S_ISDIR(st->st_mode)) {
            g_queue_push_head(&walk->waiting, g_strdup(walk->path));
            if (!has_usual_mode(st))
                return true;
        } else {
            log_warning("%s/%s: skipped: neither a file, a directory nor a symlink", walk->dir,
                        walk->path);
        }
    }
}
