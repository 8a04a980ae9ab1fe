/* A file that comes down: written beside its place under a temporary name, then renamed. */
#pragma once

#include "storage/file_attrs.h"

#include <glib.h>

typedef struct local_file {
    int parent_fd, fd;
    char *temp; /* NULL once in place */
    char *name;
} local_file_t;

/* Makes missing directories; -1 descriptors and *ERROR when PATH leads through a symlink. */
bool local_file_open(local_file_t *file, int root_fd, const char *path, GError **error);
bool local_file_write(local_file_t *file, const char *data, size_t size, uint64_t offset,
                      GError **error);
/* Puts the file in place with SIZE bytes and ATTRS. */
bool local_file_publish(local_file_t *file, uint64_t size, const struct file_attrs *attrs,
                        GError **error);
/* Removes what was not published. */
void local_file_clear(local_file_t *file);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(local_file_t, local_file_clear)

bool local_symlink(int root_fd, const char *path, const char *target,
                   const struct file_attrs *attrs, GError **error);
bool local_directory(int root_fd, const char *path, GError **error);
bool local_directory_attrs(int root_fd, const char *path, const struct file_attrs *attrs,
                           GError **error);

/* Whether PATH (a key without its prefix) names something below the root. */
bool local_path_is_safe(const char *path);
