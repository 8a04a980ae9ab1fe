/* The workflow that `dstack run` is to run: the one that is named, with the options over it. */
#include "runner/cli/run_options.h"

#include "config/error.h"
#include "config/workflow_keys.h"
#include "config/workflow_values.h"

#include <string.h>

/* `dstack run bash -c '…'`, `dstack run docker IMAGE …`, `dstack run notebook`. */
static struct workflow *make_workflow(struct run_options *options, GError **error)
{
    struct workflow *workflow = workflow_new(options->workflow, options->workflow);

    workflow->commands = g_strdupv(options->commands);
    if (strcmp(workflow->provider, "docker") != 0)
        return workflow;
    if (*options->args) {
        workflow->image = g_strdup(*options->args++);
        return workflow;
    }
    workflow_free(workflow);
    error_set(error, EINVAL, "dstack run docker IMAGE: name an image");
    return NULL;
}

/* One that is written down wins over a provider of that name, unless its commands are given. */
static struct workflow *choose(struct run_options *options, const struct repo *repo,
                               GPtrArray **list, GError **error)
{
    bool is_provider = g_strv_contains(workflow_providers(), options->workflow);
    g_autoptr(GError) why = NULL;
    struct workflow *workflow = NULL;

    if (options->commands) {
        *list = g_ptr_array_new_with_free_func((GDestroyNotify)workflow_free);
    } else {
        *list = workflows_load(repo->top, error);
        workflow = *list ? workflows_find(*list, options->workflow, &why) : NULL;
        if (workflow || !*list)
            return workflow;
    }
    if (!is_provider || (!options->commands && strcmp(options->workflow, "bash") == 0)) {
        if (is_provider)
            g_prefix_error(&why, "give commands with dstack run bash -c '…', since there is ");
        g_propagate_error(error, g_steal_pointer(&why));
        return NULL;
    }
    workflow = make_workflow(options, error);
    if (workflow)
        g_ptr_array_add(*list, workflow);
    return workflow;
}

static char **join(char **one, char **two)
{
    guint first = one ? g_strv_length(one) : 0, more = g_strv_length(two);
    char **all = g_renew(char *, one, first + more + 1);

    for (guint i = 0; i <= more; i++)
        all[first + i] = g_strdup(two[i]);
    return all;
}

/* For docker, what can be no variable is the entrypoint. */
static bool take_entrypoint(struct workflow *workflow, char **env, GError **error)
{
    for (char **at = env; *at; at++) {
        g_autoptr(GError) why = NULL;

        if (strchr(*at, '='))
            continue;
        g_clear_pointer(&workflow->entrypoint, g_strfreev);
        if (!g_shell_parse_argv(*at, NULL, &workflow->entrypoint, &why))
            return error_set(error, EINVAL, "-e %s: %s", *at, why->message);
    }
    return true;
}

static bool apply_env(struct workflow *workflow, char **env, GError **error)
{
    bool docker = !workflow->place && strcmp(workflow->provider, "docker") == 0;
    g_autoptr(GPtrArray) variables = g_ptr_array_new();

    if (!env)
        return true;
    for (char **at = env; *at; at++) {
        if (docker && !strchr(*at, '='))
            continue;
        if (!workflow_env_check(*at, "--env", error))
            return false;
        g_ptr_array_add(variables, *at);
    }
    g_ptr_array_add(variables, NULL);
    workflow->env = join(workflow->env, (char **)variables->pdata);
    return !docker || take_entrypoint(workflow, env, error);
}

static bool apply_artifacts(struct workflow *workflow, char **artifacts, GError **error)
{
    if (artifacts)
        g_ptr_array_set_size(workflow->artifacts, 0);
    for (char **at = artifacts; at && *at; at++)
        if (!workflow_add_artifact(workflow, *at, false, "--artifact", error))
            return false;
    return true;
}

static bool apply_deps(struct workflow *workflow, char **deps, GError **error)
{
    if (deps)
        g_ptr_array_set_size(workflow->deps, 0);
    for (char **at = deps; at && *at; at++) {
        bool is_tag = **at == ':';

        if (!(*at)[is_tag])
            return error_set(error, EINVAL, "--dep \"%s\": write :TAG or WORKFLOW", *at);
        workflow_add_dep(workflow, is_tag ? NULL : *at, is_tag ? *at + 1 : NULL);
    }
    return true;
}

static bool apply_resources(struct workflow *workflow, const struct run_options *o, GError **error)
{
    const struct {
        const char *key, *option, *text;
    } values[] = {
        {"cpu", "--cpu", o->cpu},
        {"memory", "--memory", o->memory},
        {"gpu", "--gpu", o->gpu},
        {"gpu_memory", "--gpu-memory", o->gpu_memory},
        {"shm_size", "--shm-size", o->shm_size},
        {"gpu_name", "--gpu-name", o->gpu_name},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++)
        if (values[i].text && !workflow_set_resource(workflow, values[i].key, values[i].text,
                                                     values[i].option, error))
            return false;
    if (o->interruptible)
        workflow->resources.interruptible = true;
    return true;
}

struct workflow *run_options_workflow(struct run_options *options, const struct repo *repo,
                                      GPtrArray **list, GError **error)
{
    struct workflow *workflow = choose(options, repo, list, error);

    if (!workflow || !apply_env(workflow, options->env, error) ||
        !apply_artifacts(workflow, options->artifacts, error) ||
        !apply_deps(workflow, options->deps, error) || !apply_resources(workflow, options, error) ||
        (options->ports && !workflow_set_ports(workflow, options->ports, "--port", error)) ||
        (options->working_dir &&
         !workflow_set_working_dir(workflow, options->working_dir, "--working-dir", error)))
        return NULL;
    return workflow;
}
