/* A snapshot of code as it is in the store: nothing lands outside the directory, whatever it holds.
 * The input is a plain tar, or a compressed one. */
#include "runner/machine.h"
#include "runner/submit/code.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_only(const char *dir, const char *name)
{
    g_autoptr(GDir) open = g_dir_open(dir, 0, NULL);
    const char *found;

    while ((found = g_dir_read_name(open)))
        if (g_strcmp0(found, name) != 0)
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char outside[] = "/dev/shm/dstack-fuzz.XXXXXX";
    g_autofree char *inside = NULL;
    g_autoptr(GError) error = NULL;
    int fd = memfd_create("snapshot", MFD_CLOEXEC);
    bool done;

    if (fd < 0 || write(fd, data, size) != (ssize_t)size || !mkdtemp(outside))
        abort();
    inside = g_build_filename(outside, "inside", NULL);
    if (mkdir(inside, 0700) != 0)
        abort();
    done = code_unpack(fd, inside, &error);
    if (done == (error != NULL) || !is_only(outside, "inside") || !tree_remove(outside, NULL))
        abort();
    close(fd);
    return 0;
}
