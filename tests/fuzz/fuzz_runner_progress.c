/* What a runner says of its transfers, and the keys of the listing of runs. */
#include "runner/job/job_progress.h"
#include "runner/run/run_marker.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size), *label = NULL;
    g_autofree char *key = g_strconcat("runs/demo/", text, NULL);
    struct transfer_progress now;
    struct run_marker marker;

    if (job_progress_parse(text, &label, &now) && !g_utf8_validate(label, -1, NULL))
        abort();
    if (run_marker_parse("demo", key, &marker)) {
        if (!run_name_is_valid(marker.name))
            abort();
        run_marker_clear(&marker);
    }
    return 0;
}
