#include "runner/job/oom.h"
#include <glib.h>
#include <string.h>

uint64_t oom_kills(void)
{
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents("/proc/vmstat", &text, NULL, NULL))
        return 0;
    line = strstr(text, "\noom_kill ");
    return line ? g_ascii_strtoull(line + strlen("\noom_kill "), NULL, 10) : 0;
}
