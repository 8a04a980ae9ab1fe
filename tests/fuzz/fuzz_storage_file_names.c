/* Names of files that somebody else put into a file store, and metadata from their attributes. */
#include "storage/file_store.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is written of metadata reads as the same again. */
static void read_metadata(const char *data, size_t size)
{
    g_autoptr(GHashTable) metadata = file_store_parse_metadata(data, size);
    g_autofree char *text = file_store_format_metadata(metadata);
    g_autoptr(GHashTable) reread = file_store_parse_metadata(text, strlen(text));
    GHashTableIter iter;
    gpointer key, value;

    g_assert(g_hash_table_size(reread) == g_hash_table_size(metadata));
    g_hash_table_iter_init(&iter, metadata);
    while (g_hash_table_iter_next(&iter, &key, &value))
        g_assert_cmpstr(g_hash_table_lookup(reread, key), ==, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *name = g_strndup((const char *)data, size);
    g_autofree char *segment = file_store_decode_segment(name);
    g_autofree char *path = file_store_path(name, NULL);

    if (segment) {
        g_autofree char *again = file_store_encode_segment(segment);

        g_assert_cmpstr(again, ==, name);
        g_assert(!strchr(segment, '/') && !g_str_equal(name, ".."));
    }
    if (path) {
        g_auto(GStrv) parts = g_strsplit(path, "/", -1);

        for (char **part = parts; *part; part++)
            g_assert(**part && !g_str_equal(*part, ".") && !g_str_equal(*part, "..") &&
                     !g_str_has_prefix(*part, ".dstack-"));
    }
    read_metadata((const char *)data, size);
    return 0;
}
