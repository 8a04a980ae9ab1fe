/* Uploads and downloads over a store that answers from many threads, for ThreadSanitizer. */
#include "storage/store_driver.h"
#include "storage/transfer.h"
#include "tests/support/faulty_store.h"
#include "tests/support/memory_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool run(struct store *store, const char *from, const char *to, GError **error)
{
    return transfer_upload(from, store, "p/", NULL, NULL, error) &&
           transfer_download(store, "p/", to, NULL, NULL, error);
}

static bool make_files(const char *dir)
{
    g_autofree char *large = g_malloc0(40 << 20);

    for (int i = 0; i < 200; i++) {
        g_autofree char *path = g_strdup_printf("%s/f%d", dir, i);

        if (!g_file_set_contents(path, large, i ? 1000 : 40 << 20, NULL))
            return false;
    }
    return true;
}

int main(void)
{
    char base[] = "/var/tmp/dstack-race-XXXXXX";
    g_autofree char *from = NULL, *to = NULL, *root = NULL, *url = NULL, *clean = NULL;
    g_autoptr(GError) error = NULL;
    bool is_ok;

    if (!mkdtemp(base))
        return 1;
    from = g_build_filename(base, "from", NULL);
    to = g_build_filename(base, "to", NULL);
    root = g_build_filename(base, "store", NULL);
    url = g_strconcat("file://", root, NULL);
    clean = g_strdup_printf("rm -rf '%s'", base);
    is_ok =
        !g_mkdir_with_parents(from, 0755) && !g_mkdir_with_parents(root, 0755) && make_files(from);
    if (is_ok) {
        g_autoptr(Store) memory = memory_store_new();
        g_autoptr(Store) slow = faulty_store_new(memory);
        g_autoptr(Store) file = store_file_open(url, NULL, &error);

        is_ok = file && run(slow, from, to, &error) && run(file, from, to, &error);
    }
    if (!is_ok)
        fprintf(stderr, "%s\n", error ? error->message : "no files");
    return system(clean) == 0 && is_ok ? 0 : 1;
}
