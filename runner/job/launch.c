#include "runner/job/launch.h"
#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "config/workflow_values.h"
#include "runner/job/ranks.h"
#include "runner/machine.h"
#include "runner/provider/provider.h"
#include "runner/secrets/secret_box.h"
#include "runner/secrets/secrets.h"
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* --- ports --- */

/* PORT 0: any. The one that could be listened on, or 0 and *ERROR. */
static unsigned try_port(unsigned port, GError **error)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_ANY)};
    g_auto(fd_t) fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof address;
    int on = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        int code = errno;

        if (code == EADDRINUSE)
            error_set(error, code,
                      "port %u of this machine is taken: end what listens there, or write another "
                      "as PORT:LOCAL",
                      port);
        else
            error_set_errno(error, code, "listen on port %u", port);
        return 0;
    }
    return ntohs(address.sin_port);
}

bool launch_check_ports(const struct run *run, GError **error)
{
    for (char **at = run->ports; at && *at; at++) {
        unsigned port, local;

        if (port_parse(*at, &port, &local) && local && !try_port(local, error))
            return false;
    }
    return true;
}

static bool add_port(struct launch *launch, unsigned port, unsigned local, GError **error)
{
    struct launch_port chosen = {port, try_port(local, error)};

    if (!chosen.local)
        return false;
    for (guint i = 0; i < launch->ports->len; i++) /* a free one is free twice */
        if (g_array_index(launch->ports, struct launch_port, i).local == chosen.local)
            return add_port(launch, port, local, error);
    if (!chosen.port)
        chosen.port = chosen.local;
    g_array_append_val(launch->ports, chosen);
    return true;
}

/* What listens where: a program of this machine listens where it is to be found. */
static bool choose_ports(struct launch *launch, const struct provider *provider, GError **error)
{
    for (char **at = launch->run->ports; at && *at; at++) {
        unsigned port = 0, local = 0;
        g_autofree char *name = g_strdup_printf("PORT_%u", launch->ports->len);
        g_autofree char *value = NULL;
        struct launch_port *chosen;

        port_parse(*at, &port, &local);
        if (!add_port(launch, port, local, error))
            return false;
        chosen = &g_array_index(launch->ports, struct launch_port, launch->ports->len - 1);
        if (!provider->has_own_ports)
            chosen->port = chosen->local;
        value = g_strdup_printf("%u", chosen->port);
        launch_set(launch, name, value);
    }
    return launch->ports->len || !provider->needs_port || add_port(launch, 0, 0, error);
}

/* --- the environment --- */

void launch_set(struct launch *launch, const char *name, const char *value)
{
    launch->env = g_environ_setenv(launch->env, name, value, TRUE);
    if (!g_ptr_array_find_with_equal_func(launch->names, name, g_str_equal, NULL))
        g_ptr_array_add(launch->names, g_strdup(name));
}

/* Ours, without what opens the store and its secrets: a job prints its environment easily. */
static char **inherited(void)
{
    char **env = g_environ_unsetenv(g_get_environ(), SECRETS_KEY_VARIABLE);
    g_auto(GStrv) names = g_listenv();

    for (char **name = names; *name; name++)
        if (env_is_credential(*name))
            env = g_environ_unsetenv(env, *name);
    return env;
}

/* ENTRY is NAME=VALUE, or a NAME whose value is ours. */
static bool set_entry(struct launch *launch, const char *entry, GError **error)
{
    const char *equals = strchr(entry, '=');
    g_autofree char *name = g_strndup(entry, strcspn(entry, "="));
    char *value = equals ? variables_for_value(&launch->variables, equals + 1, error)
                         : g_strdup(g_getenv(name));

    if (value)
        launch_set(launch, name, value);
    else if (!equals)
        log_warning("env %s is not set on this machine", name);
    else
        g_prefix_error(error, "env %s: ", name);
    secret_free(value);
    return value || !equals;
}

static bool set_environment(struct launch *launch, GError **error)
{
    const struct run *run = launch->run;
    g_autofree char *attempt = g_strdup_printf("%u", run->attempt);

    launch->env = g_environ_setenv(inherited(), "HOSTNAME", g_get_host_name(), TRUE);
    launch_set(launch, "RUN_NAME", run->name);
    launch_set(launch, "JOB_ID", run->id);
    launch_set(launch, "PYTHONUNBUFFERED", "1");
    for (guint i = 0; i < launch->secrets->len; i++) {
        const struct secret *secret = launch->secrets->pdata[i];

        launch_set(launch, secret->name, secret->value);
    }
    for (char **at = run->env; at && *at; at++)
        if (!set_entry(launch, *at, error))
            return false;
    launch_set(launch, "DSTACK_RUN_ATTEMPT", attempt);
    ranks_set_environment(launch);
    if (run->attempt > 1)
        launch_set(launch, "DSTACK_RESUMED", "1");
    launch_set(launch, JOB_VARIABLE, run->id);
    return true;
}

bool launch_prepare(struct launch *launch, struct store *root, const struct run *run,
                    GError **error)
{
    const struct provider *provider = provider_find(run->provider, error);

    *launch = (struct launch){.run = run};
    launch->ports = g_array_new(FALSE, FALSE, sizeof(struct launch_port));
    launch->names = g_ptr_array_new_with_free_func(g_free);
    launch->secrets = provider ? secrets_load(root, run->repo, error) : NULL;
    if (!launch->secrets)
        return false;
    launch->mask = mask_new(launch->secrets);
    launch->variables =
        (struct variables){.run_name = run->name, .args = run->args, .secrets = launch->secrets};
    return set_environment(launch, error) && choose_ports(launch, provider, error);
}

void launch_clear(struct launch *launch)
{
    g_clear_pointer(&launch->secrets, g_ptr_array_unref);
    g_clear_pointer(&launch->mask, mask_free);
    g_clear_pointer(&launch->ports, g_array_unref);
    g_clear_pointer(&launch->env, g_strfreev);
    g_clear_pointer(&launch->names, g_ptr_array_unref);
}

/* --- scripts --- */

char *launch_script(struct launch *launch, char **commands, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (char **at = commands; at && *at; at++) {
        g_autofree char *command = variables_for_shell(&launch->variables, *at, error);

        if (!command)
            return NULL;
        g_string_append_printf(text, "%s\n", command);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

char *launch_write(const struct launch *launch, const char *name, const char *text, GError **error)
{
    g_autofree char *path = g_build_filename(launch->run->owner.work_dir, name, NULL);

    if (!g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_NONE, 0600, error))
        return NULL;
    return g_steal_pointer(&path);
}
