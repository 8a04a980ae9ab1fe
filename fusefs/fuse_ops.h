/* The thin layer between libfuse's low-level API and the filesystem: requests in, replies out.
 *
 * source: fuse_lowlevel.h of libfuse 3.10 and later.
 * threads: fuse_ops_run uses its own workers; fuse_ops_exit may be called from any other thread.
 */
#pragma once

#include "fusefs/fs.h"

struct fuse_ops;

struct fuse_ops_options {
    const char *name;          /* shown as the mount's source */
    const char *mount_options; /* of -o, comma-separated; may be NULL */
    bool read_only;
    void (*ready)(void *user); /* the kernel has answered: called once, on a worker */
    void *user;
};

/* Mounts. The mountpoint must be an empty directory. */
struct fuse_ops *fuse_ops_mount(struct fs *fs, const char *mountpoint,
                                const struct fuse_ops_options *options, GError **error);

/* Serves until it is unmounted or fuse_ops_exit is called. */
bool fuse_ops_run(struct fuse_ops *ops, GError **error);
void fuse_ops_exit(struct fuse_ops *ops);

/* Unmounts (lazily, if it is in use), for a process that ends at once: requests may be under way.
 */
void fuse_ops_detach(struct fuse_ops *ops);

/* Unmounts (lazily, if it is in use) and frees. */
void fuse_ops_unmount(struct fuse_ops *ops);
