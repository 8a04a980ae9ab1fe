#include "config/resources.h"

#include <glib.h>

enum { PORT_MAX = 65535 };

void resources_clear(struct resources *resources)
{
    g_clear_pointer(&resources->gpu_name, g_free);
    *resources = (struct resources){0};
}

void resources_copy(struct resources *to, const struct resources *from)
{
    *to = *from;
    to->gpu_name = g_strdup(from->gpu_name);
}

bool resources_asked(const struct resources *r)
{
    return r->cpu || r->gpu || r->gpu_name || r->memory_bytes || r->gpu_memory_bytes ||
           r->shm_bytes || r->interruptible || r->local || r->remote;
}

static bool parse(const char *text, unsigned least, unsigned *port)
{
    guint64 value;

    if (!g_ascii_string_to_unsigned(text, 10, least, PORT_MAX, &value, NULL))
        return false;
    *port = (unsigned)value;
    return true;
}

bool port_parse(const char *text, unsigned *port, unsigned *local)
{
    g_auto(GStrv) parts = g_strsplit(text, ":", 3);
    guint count = g_strv_length(parts);

    if (count == 1 && parse(parts[0], 0, port)) {
        *local = *port;
        return true;
    }
    return count == 2 && parse(parts[0], 1, port) && parse(parts[1], 1, local);
}
