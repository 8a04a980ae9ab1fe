/* Keys of runs' markers, which a listing brings: what parses names a run of this repo. */
#include "runner/run/run_marker.h"
#include "runner/run/run_name.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autofree char *key = g_strconcat("runs/demo/", text, NULL);
    struct run_marker marker;

    if (run_marker_parse("demo", text, &marker))
        run_marker_clear(&marker);
    if (!run_marker_parse("demo", key, &marker))
        return 0;
    if (!run_name_is_valid(marker.name) || !marker.workflow || marker.exit_code < -1 ||
        marker.exit_code > 255)
        abort();
    run_marker_clear(&marker);
    return 0;
}
