#include "runner/provider.h"
#include "config/error.h"
#include "config/log.h"
#include "config/workflow_values.h"
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

/* Ours, without what opens the store: a job prints its environment easily. */
static char **inherited(void)
{
    char **env = g_get_environ();
    g_auto(GStrv) names = g_listenv();

    for (char **name = names; *name; name++)
        if (env_is_credential(*name))
            env = g_environ_unsetenv(env, *name);
    return env;
}

/* ENTRY is NAME=VALUE, or a NAME whose value is ours. */
static char **put(char **env, const char *entry)
{
    const char *equals = strchr(entry, '=');
    g_autofree char *name = g_strndup(entry, strcspn(entry, "="));
    const char *value = equals ? equals + 1 : g_getenv(name);

    if (value)
        return g_environ_setenv(env, name, value, TRUE);
    log_warning("env %s is not set on this machine", name);
    return env;
}

char **provider_environment(const struct run *run)
{
    char **env = inherited();
    g_autofree char *attempt = g_strdup_printf("%u", run->attempt);

    env = g_environ_setenv(env, "RUN_NAME", run->name, TRUE);
    env = g_environ_setenv(env, "JOB_ID", run->id, TRUE);
    env = g_environ_setenv(env, "HOSTNAME", g_get_host_name(), TRUE);
    env = g_environ_setenv(env, "PYTHONUNBUFFERED", "1", TRUE);
    for (char **at = run->env; at && *at; at++)
        env = put(env, *at);
    env = g_environ_setenv(env, "DSTACK_RUN_ATTEMPT", attempt, TRUE);
    return g_environ_setenv(env, JOB_VARIABLE, run->id, TRUE);
}
