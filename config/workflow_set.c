/* Values of a workflow that come from the command line. */
#include "config/error.h"
#include "config/units.h"
#include "config/workflow.h"

#include <string.h>

static bool set_count(unsigned *to, const char *text, const char *place, GError **error)
{
    guint64 value;

    if (!g_ascii_string_to_unsigned(text, 10, 1, 65536, &value, NULL))
        return error_set(error, EINVAL, "%s %s: a whole number of at least 1 is needed", place,
                         text);
    *to = (unsigned)value;
    return true;
}

static bool set_size(uint64_t *to, const char *text, const char *place, GError **error)
{
    uint64_t bytes;

    if (!size_parse(text, &bytes) || bytes == 0)
        return error_set(error, EINVAL, "%s %s: a size such as 16GB or 512MB is needed", place,
                         text);
    *to = bytes;
    return true;
}

bool workflow_set_resource(struct workflow *workflow, const char *key, const char *text,
                           const char *place, GError **error)
{
    struct resources *r = &workflow->resources;

    if (strcmp(key, "cpu") == 0)
        return set_count(&r->cpu, text, place, error);
    if (strcmp(key, "memory") == 0)
        return set_size(&r->memory_bytes, text, place, error);
    if (strcmp(key, "shm_size") == 0)
        return set_size(&r->shm_bytes, text, place, error);
    if (strcmp(key, "gpu") == 0)
        return set_count(&r->gpu, text, place, error);
    if (r->gpu == 0)
        r->gpu = 1; /* which GPU says that there is to be one */
    if (strcmp(key, "gpu_memory") == 0)
        return set_size(&r->gpu_memory_bytes, text, place, error);
    if (!*text)
        return error_set(error, EINVAL, "%s: a name is needed", place);
    g_free(r->gpu_name);
    r->gpu_name = g_strdup(text);
    return true;
}

bool workflow_set_ports(struct workflow *workflow, char **ports, const char *place, GError **error)
{
    unsigned port[2], local[2];

    for (char **one = ports; *one; one++) {
        if (!port_parse(*one, &port[0], &local[0]) || port[0] == 0)
            return error_set(error, EINVAL, "%s %s: write PORT or PORT:LOCAL, from 1 to 65535",
                             place, *one);
        for (char **two = ports; two < one; two++)
            if (port_parse(*two, &port[1], &local[1]) &&
                (port[0] == port[1] || local[0] == local[1]))
                return error_set(error, EINVAL, "%s: %s and %s clash", place, *two, *one);
    }
    g_strfreev(workflow->ports);
    workflow->ports = g_strdupv(ports);
    return true;
}

bool workflow_set_working_dir(struct workflow *workflow, const char *path, const char *place,
                              GError **error)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);

    if (!*path || g_path_is_absolute(path) || g_strv_contains((const char *const *)parts, ".."))
        return error_set(error, EINVAL, "%s %s: a directory of the code is needed", place, path);
    g_free(workflow->working_dir);
    workflow->working_dir = g_strdup(path);
    return true;
}
