/* The status file of dstack-mount, as the runner reads it. */
#include "runner/job/mount_status.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mount_status status = {0};
    int fd = memfd_create("status", 0);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    mount_status_read(path, &status);
    mount_status_clear(&status);
    close(fd);
    return 0;
}
