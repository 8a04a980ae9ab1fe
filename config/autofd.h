/* g_auto(fd_t): a file descriptor that closes itself; -1 is none. Hand over with fd_steal. */
#pragma once

#include <glib.h>
#include <unistd.h>

typedef int fd_t;

static inline void fd_close(fd_t *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline int fd_steal(fd_t *fd)
{
    int stolen = *fd;

    *fd = -1;
    return stolen;
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(fd_t, fd_close)
