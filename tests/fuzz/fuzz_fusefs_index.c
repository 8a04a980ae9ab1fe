/* A directory's index of attributes, which any client of the store may have written. What is read
 * is packed and read again, and must be the same. */
#include "fusefs/index.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(GHashTable *records)
{
    g_autoptr(GByteArray) raw = g_byte_array_new();
    g_autoptr(GHashTable) again = NULL;
    g_autoptr(GBytes) packed = NULL;
    GHashTableIter iter;
    gpointer name;

    g_hash_table_iter_init(&iter, records);
    while (g_hash_table_iter_next(&iter, &name, NULL))
        g_assert(index_add(raw, record_of(name)));
    packed = index_pack(raw);
    again = index_parse(g_bytes_get_data(packed, NULL), g_bytes_get_size(packed));
    g_assert(again && g_hash_table_size(again) == g_hash_table_size(records));
    g_hash_table_iter_init(&iter, records);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        const struct record *one = record_of(name), *other = records_find(again, name);

        g_assert(other && record_bytes(one) == record_bytes(other));
        g_assert(memcmp(one, other, offsetof(struct record, name)) == 0);
    }
}

/* The input as it is, and as what stands behind the header, uncompressed: a fuzzer finds no
 * checksums. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GHashTable) records = index_parse(data, size);
    g_autoptr(GByteArray) raw = g_byte_array_new();
    g_autoptr(GHashTable) entries = NULL;
    g_autoptr(GBytes) packed = NULL;

    g_byte_array_append(raw, data, (guint)size);
    packed = index_pack(raw);
    entries = index_parse(g_bytes_get_data(packed, NULL), g_bytes_get_size(packed));
    if (records)
        check(records);
    if (entries)
        check(entries);
    return 0;
}
