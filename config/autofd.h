/* g_auto(fd_t): a file descriptor that closes itself; -1 is none. Hand over with fd_steal. */
#pragma once

#include <fcntl.h>
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

/* For the beginning of a program: where 0, 1 or 2 is closed, the next file it opened would be taken
 * for that, and written to. */
static inline void fd_fill_standard(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    fd_close(&fd);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(fd_t, fd_close)
