/* Tag documents: what is taken names a run and artifacts that may be in keys and on this machine.
 */
#include "config/artifact_path.h"
#include "storage/keys.h"
#include "storage/tags.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Tag) tag = tag_parse("t", (const char *)data, size, &error);

    if (!tag == !error || (tag && !keys_name_is_valid(tag->run)))
        abort();
    for (char **path = tag ? tag->artifacts : NULL; path && *path; path++) {
        g_autofree char *again = artifact_path_normalise(*path);

        if (!again || strcmp(again, *path) != 0)
            abort();
    }
    return 0;
}
