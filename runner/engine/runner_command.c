#include "runner/engine/runner_command.h"

static void add_option(GPtrArray *argv, const char *name, const char *value)
{
    if (!value)
        return;
    g_ptr_array_add(argv, g_strdup(name));
    g_ptr_array_add(argv, g_strdup(value));
}

char **runner_command(const char *program, const struct run_root *root, const struct run *run)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    g_ptr_array_add(argv, g_strdup(program));
    add_option(argv, "--root", root->url);
    add_option(argv, "--endpoint", root->options.endpoint);
    add_option(argv, "--region", root->options.region);
    add_option(argv, "--profile", root->options.profile);
    add_option(argv, "--cacert", root->options.cacert);
    if (root->options.virtual_host)
        g_ptr_array_add(argv, g_strdup("--virtual-host"));
    if (root->options.unsigned_payload)
        g_ptr_array_add(argv, g_strdup("--unsigned-payload"));
    g_ptr_array_add(argv, g_strdup(run->repo));
    g_ptr_array_add(argv, g_strdup(run->name));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&argv), FALSE);
}
