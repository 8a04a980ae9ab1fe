/* A local tree, one entry at a time: never through a symlink, one descriptor open while it reads a
 * directory, names of one directory in memory. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

#define TRANSFER_TEMP_PREFIX ".dstack-tmp." /* files that a download has not finished */

struct tree_walk;

struct tree_walk *tree_walk_open(const char *dir, int root_fd);
void tree_walk_close(struct tree_walk *walk);

/* *PATH (borrowed until the next call) below the root and its lstat: files, symlinks, and
 * directories that are empty or whose mode is not 0755. False at the end, or with *ERROR: the next
 * call goes on behind what could not be read. */
bool tree_walk_next(struct tree_walk *walk, const char **path, struct stat *st, GError **error);
