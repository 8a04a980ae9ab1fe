/* What the machine says of itself: /proc/meminfo, and what nvidia-smi lists. */
#include "runner/submit/machine_has.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    uint64_t available = 0, total = 0;
    unsigned lines = 1;

    for (const char *at = text; *at; at++)
        lines += *at == '\n';
    meminfo_parse(text, &available, &total);
    if (gpus_count(text, NULL, 0) > lines ||
        gpus_count(text, "A100", 1) > gpus_count(text, NULL, 0))
        abort();
    return 0;
}
