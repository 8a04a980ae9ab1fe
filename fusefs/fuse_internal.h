/* What fuse_ops.c, which answers requests, and fuse_mount.c, which has them come, share. */
#pragma once

#ifdef DSTACK_FUSE_312
#define FUSE_USE_VERSION 312
#else
#define FUSE_USE_VERSION 35
#endif

#include "fusefs/fuse_ops.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#define FUSE_MAX_REQUEST  (1024 * 1024) /* bytes of a read or a write */
#define FUSE_READAHEAD_KB 4096

/* The user data of the session. */
struct fuse_ops {
    struct fs *fs;
    struct fuse_session *session;
    char *mountpoint;
    struct fuse_ops_options options;
    pthread_t main_thread;
    atomic_bool running;
};

extern const struct fuse_lowlevel_ops fuse_operations;
