#include "runner/submit/submit.h"
#include "config/error.h"
#include "config/log.h"
#include "config/workflow.h"
#include "config/workflow_values.h"
#include "runner/engine/slurm.h"
#include "runner/provider/provider.h"
#include "runner/run/kept.h"
#include "runner/run/restart.h"
#include "runner/run/run_store.h"
#include "runner/secrets/secret_box.h"
#include "runner/secrets/secrets.h"
#include "runner/submit/code.h"
#include "runner/submit/deps.h"
#include "runner/submit/machine_has.h"
#include "runner/submit/variables.h"
#include "storage/remote.h"
#include <string.h>

/* Something went wrong after the run was made: it must not look alive. */
static void give_up(struct store *root, struct run *run, const GError *why)
{
    g_autoptr(GError) error = NULL;

    if (run_store_move(root, run, RUN_FAILED, why->message, &error))
        run_store_remove_signs(root, run);
    else
        log_warning("run %s may look pending for some minutes: %s", run->name, error->message);
}

static bool tag_and_start(const struct submit_request *request, struct run *run, GError **error)
{
    const struct engine *engine = engine_of(run, error);

    return engine &&
           (!request->tag || kept_tag_run(request->root, run, request->tag, false, error)) &&
           engine->submit(&request->where, run, &run->engine_job, error) &&
           run_store_move(request->root, run, RUN_SUBMITTED, NULL, error);
}

bool submit_start(const struct submit_request *request, struct run *run, GError **error)
{
    g_autoptr(GError) failed = NULL;

    run->submitted_ms = run_now_ms();
    if (!run_store_create(request->root, run, error))
        return false;
    if (tag_and_start(request, run, &failed))
        return true;
    give_up(request->root, run, failed);
    g_propagate_error(error, g_steal_pointer(&failed));
    return false;
}

/* The engine did not take another attempt: the run is as interrupted as it was, to be tried again.
 */
static void stay_interrupted(struct store *root, struct run *run, const GError *why)
{
    g_autoptr(GError) error = NULL;

    run->attempt--;
    if (!run_store_move(root, run, RUN_INTERRUPTED, why->message, &error))
        log_warning("run %s may look pending for some minutes: %s", run->name, error->message);
}

bool submit_again(const struct submit_request *request, struct run *run, GError **error)
{
    const struct engine *engine = engine_of(run, error);
    g_autoptr(GError) failed = NULL;

    if (!engine || !run_begin_again(request->root, run, error))
        return false;
    if (engine->submit(&request->where, run, &run->engine_job, &failed) &&
        run_store_move(request->root, run, RUN_SUBMITTED, NULL, &failed))
        return true;
    stay_interrupted(request->root, run, failed);
    g_propagate_error(error, g_steal_pointer(&failed));
    return false;
}

/* --- from a workflow --- */

/* "K=V" as it is; "K" with the value it has here, unless that must not get into the store. */
static char **resolve_env(char **env, GError **error)
{
    g_autoptr(GPtrArray) resolved = g_ptr_array_new_with_free_func(g_free);

    for (char **at = env; at && *at; at++) {
        const char *value = strchr(*at, '=') ? "" : g_getenv(*at);

        if (!value) {
            error_set(error, EINVAL, "env %s: it is not set here: set it, or write %s=VALUE", *at,
                      *at);
            return NULL;
        }
        if (strchr(*at, '=') || env_is_credential(*at)) {
            g_ptr_array_add(resolved, g_strdup(*at));
        } else {
            g_autofree char *plain = variables_escape(value);

            g_ptr_array_add(resolved, g_strdup_printf("%s=%s", *at, plain));
        }
    }
    g_ptr_array_add(resolved, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&resolved), FALSE);
}

/* The variables of TEXTS (may be NULL), as they will be replaced. */
static bool look_at(struct variables *v, char **texts, bool shell, GError **error)
{
    for (char **at = texts; at && *at; at++) {
        g_autofree char *text =
            shell ? variables_for_shell(v, *at, error) : variables_for_value(v, *at, error);

        if (!text)
            return false;
    }
    return true;
}

/* Every secret that is named is there, and no variable of env hides it. */
static bool check_secrets(struct store *root, const char *repo, const struct workflow *workflow,
                          const GPtrArray *used, GError **error)
{
    g_autoptr(GPtrArray) names = used->len ? secrets_list(root, repo, error) : NULL;

    for (guint i = 0; names && i < used->len; i++) {
        const char *name = used->pdata[i];

        if (!g_ptr_array_find_with_equal_func(names, name, g_str_equal, NULL))
            return error_set(error, ENOENT, "there is no secret %s in %s: dstack secrets add %s",
                             name, store_url(root), name);
        for (char **env = workflow->env; env && *env; env++)
            if (strcspn(*env, "=") == strlen(name) && g_str_has_prefix(*env, name))
                return error_set(error, EINVAL, "env %s hides the secret %s: call it otherwise",
                                 name, name);
    }
    return names || !used->len;
}

static bool look_at_all(struct variables *v, const struct workflow *workflow, GError **error)
{
    char *values[] = {workflow->image ? workflow->image : "",
                      workflow->registry_username ? workflow->registry_username : "",
                      workflow->registry_password ? workflow->registry_password : "", NULL};

    return look_at(v, workflow->commands, true, error) &&
           look_at(v, workflow->setup, true, error) && look_at(v, workflow->env, false, error) &&
           look_at(v, values, false, error);
}

/* Arguments that no command takes are more likely a mistyped option. */
static bool check_variables(const struct submit_request *request, GError **error)
{
    const struct workflow *workflow = request->workflow;
    g_autoptr(GPtrArray) used = g_ptr_array_new_with_free_func(g_free);
    struct variables v = {.run_name = "", .args = request->args, .used = used};
    bool image_takes_them =
        workflow->image && !workflow->commands && !workflow->entrypoint; /* as its own arguments */

    if (!look_at_all(&v, workflow, error) ||
        !check_secrets(request->root, request->repo, workflow, used, error)) {
        g_prefix_error(error, "workflow %s: ", workflow->name);
        return false;
    }
    return !request->args || !*request->args || v.uses_args || image_takes_them ||
           error_set(error, EINVAL,
                     "workflow %s takes no arguments (\"%s\" was given): none of its commands has "
                     "${{ run.args }}",
                     workflow->name, *request->args);
}

/* One that is here and that git ignores is found out by the runner. */
static bool check_working_dir(const struct submit_request *request, const struct run *run,
                              GError **error)
{
    g_autofree char *path = NULL;

    if (!run->working_dir || !request->code_dir)
        return true;
    path = g_build_filename(request->code_dir, run->working_dir, NULL);
    return g_file_test(path, G_FILE_TEST_IS_DIR) ||
           error_set(error, ENOENT, "workflow %s: working_dir %s is not in %s", run->workflow,
                     run->working_dir, request->code_dir);
}

/* Before anything starts: the local engine's machine is this one. */
static bool check_machine(const struct run *run, GError **error)
{
    const struct provider *provider = provider_find(run->provider, error);

    if (!provider || !engine_find(run->engine ? run->engine : "local", error))
        return false;
    if (run->engine && strcmp(run->engine, "local") != 0)
        return true;
    if (!machine_has(&run->resources, provider->has_own_ports, error) ||
        !provider->check(run, error) || !launch_check_ports(run, error)) {
        g_prefix_error(error, "workflow %s: ", run->workflow);
        return false;
    }
    return true;
}

/* What the workflow says of its machine and its provider. */
static void fill_machine(struct run *run, const struct workflow *workflow)
{
    run->working_dir = g_strdup(workflow->working_dir);
    run->ports = g_strdupv(workflow->ports);
    run->cache = g_strdupv(workflow->cache);
    run->python = g_strdup(workflow->python);
    run->setup = g_strdupv(workflow->setup);
    run->ide_version = g_strdup(workflow->version);
    run->image = g_strdup(workflow->image);
    run->home_dir = g_strdup(workflow->home_dir);
    run->entrypoint = g_strdupv(workflow->entrypoint);
    run->registry_username = g_strdup(workflow->registry_username);
    run->registry_password = g_strdup(workflow->registry_password);
    resources_copy(&run->resources, &workflow->resources);
    run->lifetime = workflow->lifetime;
}

static bool fill(struct run *run, const struct submit_request *request, GError **error)
{
    const struct workflow *workflow = request->workflow;

    run->workflow = g_strdup(workflow->name);
    run->provider = g_strdup(workflow->provider);
    run->engine = g_strdup(request->engine);
    run->user = g_strdup(g_get_user_name());
    fill_machine(run, workflow);
    run->commands = g_strdupv(workflow->commands);
    run->args = g_strdupv(request->args);
    run->env = resolve_env(workflow->env, error);
    if (!run->env)
        return false;
    for (guint i = 0; i < workflow->artifacts->len; i++) {
        const struct workflow_artifact *artifact = workflow->artifacts->pdata[i];

        run_add_artifact(run, artifact->path, artifact->mount);
    }
    for (guint i = 0; i < workflow->deps->len; i++)
        if (!deps_add(run, request->root, workflow->deps->pdata[i], error))
            return false;
    return deps_check(run, error);
}

static bool check_engine(const struct submit_request *request, const struct run *run,
                         GError **error)
{
    const struct engine *engine = engine_of(run, error);

    return engine && engine->check(&request->where, run, error);
}

/* A job is given all secrets of its repo, and fails without their key. Ours goes along if it is in
 * the environment; over ssh nothing else of this machine does. */
static bool check_key(const struct submit_request *request, GError **error)
{
    static const char *const look[] = {
        "sh", "-c", "test -s \"${DSTACK_HOME:-$HOME/.dstack}/secrets.key\" && echo yes || echo no",
        NULL};
    const char *host = request->where.slurm ? request->where.slurm->submit_host : NULL;
    g_autoptr(GPtrArray) names = NULL;
    g_autofree char *answer = NULL;

    if (!host || g_getenv(SECRETS_KEY_VARIABLE))
        return true;
    names = secrets_list(request->root, request->repo, error);
    if (!names || !names->len)
        return names != NULL;
    if (!slurm_run(host, look, NULL, SLURM_ASK_MS, &answer, error))
        return false;
    return g_str_has_prefix(answer, "yes") ||
           error_set(error, ENOENT,
                     "this repo has secrets, and there is no key for them on %s: "
                     "set " SECRETS_KEY_VARIABLE " here, or copy secrets.key to ~/.dstack there",
                     host);
}

struct run *submit_prepare(const struct submit_request *request, GError **error)
{
    g_autoptr(Run) run = run_new(request->repo, NULL);

    if (!check_variables(request, error) || !fill(run, request, error) ||
        !run_store_check(run, error) || !check_working_dir(request, run, error) ||
        !check_machine(run, error) || !check_engine(request, run, error) ||
        !check_key(request, error) ||
        (request->tag && !tag_check_free(request->root, request->repo, request->tag, error)))
        return NULL;
    if (request->code_dir &&
        !code_save(request->root, request->code_dir, run->id, &run->code_sha256, error)) {
        g_prefix_error(error, "the code of %s was not saved to %s: ", request->code_dir,
                       store_url(request->root));
        return NULL;
    }
    return g_steal_pointer(&run);
}
