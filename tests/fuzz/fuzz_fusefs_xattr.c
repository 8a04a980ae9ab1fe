/* Extended attributes from foreign metadata. */
#include "fusefs/xattr.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autoptr(GHashTable) xattrs = xattr_parse(text), again = NULL;
    g_autofree char *formatted = xattr_format(xattrs);

    again = xattr_parse(formatted);
    g_assert(g_hash_table_size(xattrs) == g_hash_table_size(again));
    return 0;
}
