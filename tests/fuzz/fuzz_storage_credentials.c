/* The two INI files of credentials, with the same bytes: what is found can go into a header. */
#include "storage/credentials.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int open_file(void)
{
    g_autofree char *path = NULL;
    int fd = memfd_create("credentials", MFD_CLOEXEC);

    g_assert(fd >= 0);
    path = g_strdup_printf("/proc/self/fd/%d", fd);
    g_unsetenv("AWS_ACCESS_KEY_ID");
    g_unsetenv("AWS_REGION");
    g_unsetenv("AWS_DEFAULT_REGION");
    g_unsetenv("AWS_PROFILE");
    g_setenv("AWS_SHARED_CREDENTIALS_FILE", path, TRUE);
    g_setenv("AWS_CONFIG_FILE", path, TRUE);
    return fd;
}

static bool is_plain(const char *text)
{
    for (; *text; text++)
        if (!g_ascii_isgraph(*text))
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct credentials found;
    g_autoptr(GError) error = NULL;

    if (fd < 0)
        fd = open_file();
    g_assert(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    if (!credentials_load(NULL, NULL, &found, &error)) {
        g_assert(error);
        return 0;
    }
    g_assert(!error && is_plain(found.access_key) && is_plain(found.secret_key) &&
             is_plain(found.region));
    credentials_clear(&found);
    return 0;
}
