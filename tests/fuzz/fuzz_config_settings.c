/* Settings: accepted, or refused with a reason. */
#include "config/settings.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings settings = {
        .path = g_strdup("fuzz"),
        .remotes = g_ptr_array_new_with_free_func((GDestroyNotify)remote_free),
    };
    g_autoptr(GError) error = NULL;
    bool parsed = settings_parse(&settings, (const char *)data, size, &error);

    settings_clear(&settings);
    if (parsed == (error != NULL))
        abort();
    return 0;
}
