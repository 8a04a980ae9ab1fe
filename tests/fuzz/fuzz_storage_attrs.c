/* A file's attributes from foreign metadata: every name gets the same value. */
#include "storage/file_attrs.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"mode", "uid", "gid", "mtime", "ctime", "atime"};
    g_autoptr(GHashTable) metadata = metadata_new();
    g_autoptr(GHashTable) saved = metadata_new();
    struct store_object object = {.metadata = metadata};
    struct file_attrs attrs = {.mode = S_IFREG | 0644}, again = {0};

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        g_hash_table_replace(metadata, g_strdup(names[i]), g_strndup((const char *)data, size));
    file_attrs_load(&attrs, &object);
    file_attrs_save(&attrs, saved);
    object.metadata = saved;
    file_attrs_load(&again, &object);
    g_assert(again.mode == attrs.mode && again.mtime_ns == attrs.mtime_ns);
    return 0;
}
