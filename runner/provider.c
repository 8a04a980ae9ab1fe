#include "runner/provider.h"
#include "config/error.h"
#include "runner/machine.h"
#include <string.h>

static const struct provider *const PROVIDERS[] = {&provider_bash};

const struct provider *provider_find(const char *name, GError **error)
{
    for (guint i = 0; i < G_N_ELEMENTS(PROVIDERS); i++)
        if (strcmp(PROVIDERS[i]->name, name) == 0)
            return PROVIDERS[i];
    error_set(error, ENOENT, "there is no provider \"%s\": use bash", name);
    return NULL;
}

char **provider_environment(const struct run *run)
{
    char **env = g_get_environ();
    g_autofree char *attempt = g_strdup_printf("%u", run->attempt);

    env = g_environ_setenv(env, "RUN_NAME", run->name, TRUE);
    env = g_environ_setenv(env, "JOB_ID", run->id, TRUE);
    env = g_environ_setenv(env, "HOSTNAME", g_get_host_name(), TRUE);
    env = g_environ_setenv(env, "PYTHONUNBUFFERED", "1", TRUE);
    for (char **at = run->env; at && *at; at++) {
        const char *equals = strchr(*at, '=');
        g_autofree char *name = g_strndup(*at, (gsize)(equals - *at));

        env = g_environ_setenv(env, name, equals + 1, TRUE);
    }
    env = g_environ_setenv(env, "DSTACK_RUN_ATTEMPT", attempt, TRUE);
    return g_environ_setenv(env, JOB_VARIABLE, run->id, TRUE);
}
