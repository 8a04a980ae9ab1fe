/* The run document: what parses can be written and parses again. */
#include "runner/run/run.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Run) run = run_parse("demo", "grumpy-zebra-1", (const char *)data, size, &error);
    g_autoptr(Run) back = NULL;
    g_autofree char *text = NULL;
    size_t length;

    if (!run == !error)
        abort();
    if (!run)
        return 0;
    text = run_format(run, &length);
    back = run_parse("demo", "grumpy-zebra-1", text, length, NULL);
    if (!back || back->status != run->status)
        abort();
    return 0;
}
