/* Paths below a directory: opened one component at a time, never through a symlink.
 *
 * shape:  PATH is relative, without ".", ".." or empty components (refused with EINVAL): what comes
 *         from a store is foreign, and another process may plant a symlink at any time.
 * errors: -1 and errno: ENOENT, ENOTDIR (a component is no directory, or a symlink), ELOOP (the
 *         last one is a symlink).
 */
#pragma once

#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>

/* openat. */
int beneath_open(int root_fd, const char *path, int flags, mode_t mode);

/* The directory that holds PATH's last component, and that component in *NAME (inside PATH). With
 * CREATE, directories that are missing are made, and SYNC makes them durable. */
int beneath_open_parent(int root_fd, const char *path, bool create, bool sync, const char **name);

/* fstatat without following. */
int beneath_stat(int root_fd, const char *path, struct stat *st);

/* Removes the directories that hold PATH from the innermost out, until one is not empty. */
void beneath_remove_empty_parents(int root_fd, const char *path);
