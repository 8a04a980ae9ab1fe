/* Workflow files: accepted whole, or refused with a reason. */
#include "config/workflow.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)workflow_free);
    g_autoptr(GError) error = NULL;
    bool parsed = workflows_parse("fuzz", (const char *)data, size, list, &error);

    if (parsed == (error != NULL))
        abort();
    return 0;
}
