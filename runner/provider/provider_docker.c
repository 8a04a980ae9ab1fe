/* docker: the commands in a container, by docker or podman, whichever is there.
 *
 * shape:  the code is /workflow in the container; artifacts, deps and caches outside of it have
 *         their own paths, those below ~ are below home_dir. What runs is a small shell script on
 *         this machine (HOST) that logs in and pulls when asked to, and becomes `docker run`.
 *         In the container another one (INSIDE) passes SIGTERM on to every process, since the first
 *         process of a container ignores it.
 * safety: variables are passed by name, their values by the environment of the client; a
 *         registry's password goes through a pipe into a file of the run's own, which is removed
 *         once the image is there.
 * settings: DSTACK_CONTAINER_ENGINE (docker, podman or a path) and DSTACK_CONTAINER_OPTIONS (more
 *         options for `run`), in the runner's environment.
 */
#include "config/error.h"
#include "config/log.h"
#include "runner/provider/provider.h"
#include "runner/secrets/secret_box.h"
#include "runner/secrets/secrets.h"
#include "runner/tool.h"
#include "runner/work_dir.h"
#include <string.h>
#include <unistd.h>

#define PASSWORD_VARIABLE "DSTACK_REGISTRY_PASSWORD"

enum { REMOVE_TRIES = 3, DAEMON_MS = 10000 };

/* $1 the client, $2 the image, $3 the user or nothing; then the client's whole command. */
static const char HOST[] =
    "set -e\n"
    "client=$1 image=$2 user=$3\n"
    "shift 3\n"
    "if [ -n \"$user\" ]; then\n"
    "    registry=${image%%/*}\n"
    "    case $registry in\n"
    "        localhost|*.*|*:*) ;;\n"
    "        *) registry=docker.io ;;\n"
    "    esac\n"
    "    trap 'rm -rf \"$DOCKER_CONFIG\"' EXIT\n"
    "    mkdir -p \"$DOCKER_CONFIG\"\n"
    "    printf %s \"$" PASSWORD_VARIABLE "\" |\n"
    "        \"$client\" login --username \"$user\" --password-stdin \"$registry\" >/dev/null\n"
    "    \"$client\" pull --quiet \"$image\" >/dev/null\n"
    "    rm -rf \"$DOCKER_CONFIG\"\n"
    "    trap - EXIT\n"
    "    unset DOCKER_CONFIG REGISTRY_AUTH_FILE " PASSWORD_VARIABLE "\n"
    "fi\n"
    "exec \"$@\"\n";

/* The commands' shell, or the entrypoint: what follows. All processes of the container get the
 * signal, but never those of a machine whose processes it can see. */
static const char INSIDE[] =
    "pass() {\n"
    "    signal=$1\n"
    "    if [ -z \"$child\" ]; then return; fi\n"
    "    if [ $$ = 1 ]; then kill -$1 -1; else kill -$1 $child; fi\n"
    "}\n"
    "child= signal=\n"
    "for name in HUP INT QUIT TERM USR1 USR2; do trap \"pass $name\" $name; done\n"
    "\"$@\" &\n"
    "child=$!\n"
    "if [ -n \"$signal\" ]; then pass $signal; fi\n"
    "wait $child\n"
    "status=$?\n"
    "while kill -0 $child 2>/dev/null; do\n"
    "    wait $child\n"
    "    status=$?\n"
    "done\n"
    "exit $status\n";

static const char SHELL[] = "if command -v bash >/dev/null; then exec bash -e /dstack-script; fi\n"
                            "exec sh -e /dstack-script\n";

/* Docker's client may be there without its daemon. */
static bool has_daemon(const char *docker, GError **error)
{
    const char *const argv[] = {docker, "version", NULL};
    const struct tool tool = {argv, NULL, DAEMON_MS};

    return tool_run(&tool, NULL, error);
}

static char *find_either(GError **error)
{
    g_autofree char *docker = g_find_program_in_path("docker");
    g_autofree char *podman = g_find_program_in_path("podman");
    g_autoptr(GError) why = NULL;

    if (docker && has_daemon(docker, &why))
        return g_steal_pointer(&docker);
    if (podman)
        return g_steal_pointer(&podman);
    if (docker)
        error_set(error, EIO, "docker cannot be used, and there is no podman: %s", why->message);
    else
        error_set(error, ENOENT, "provider docker needs docker or podman: neither is in PATH");
    return NULL;
}

static char *find_client(GError **error)
{
    const char *wanted = g_getenv("DSTACK_CONTAINER_ENGINE");
    char *found;

    if (!wanted || !*wanted)
        return find_either(error);
    found = g_find_program_in_path(wanted);
    if (!found)
        error_set(error, ENOENT, "DSTACK_CONTAINER_ENGINE is %s, which is not there", wanted);
    return found;
}

static bool is_podman(const char *client)
{
    g_autofree char *name = g_path_get_basename(client);

    return g_str_has_prefix(name, "podman");
}

static bool check(const struct run *run, GError **error)
{
    g_autofree char *client = find_client(error);

    return client != NULL;
}

static char *container_name(const struct run *run)
{
    return g_strdup_printf("dstack-%s-%.8s", run->name, run->id);
}

static void add(GPtrArray *argv, const char *word)
{
    g_ptr_array_add(argv, g_strdup(word));
}

/* One field of a comma-separated value, whatever it holds. */
static char *csv(const char *name, const char *value)
{
    g_autoptr(GString) field = g_string_new(value);

    if (!strpbrk(value, ",\""))
        return g_strdup_printf("%s=%s", name, value);
    g_string_replace(field, "\"", "\"\"", 0);
    return g_strdup_printf("\"%s=%s\"", name, field->str);
}

static void add_bind(GPtrArray *argv, const char *from, const char *to)
{
    g_autofree char *source = csv("source", from), *target = csv("destination", to);

    add(argv, "--mount");
    g_ptr_array_add(argv, g_strdup_printf("type=bind,%s,%s", source, target));
}

/* PATH of an artifact, dep or cache: what is not below the code has a place of its own. */
static void add_path(GPtrArray *argv, const struct run *run, const char *path)
{
    const char *home = run->home_dir ? run->home_dir : "/root";
    g_autofree char *from = work_dir_path(run, path), *to = NULL;

    if (g_str_has_prefix(path, "~/"))
        to = g_build_filename(home, path + 2, NULL);
    else if (g_path_is_absolute(path))
        to = g_strdup(path);
    if (!to)
        return;
    for (guint i = 0; i + 1 < argv->len; i++) { /* a dep and an artifact may be in one place */
        g_autofree char *end = g_strconcat(",destination=", to, NULL);

        if (g_str_has_suffix(argv->pdata[i], end))
            return;
    }
    add_bind(argv, from, to);
}

static void add_paths(GPtrArray *argv, const struct run *run)
{
    g_autofree char *code = g_build_filename(run->owner.work_dir, "code", NULL);

    add_bind(argv, code, "/workflow");
    for (guint i = 0; i < run->artifacts->len; i++)
        add_path(argv, run, ((struct run_artifact *)run->artifacts->pdata[i])->path);
    for (guint i = 0; i < run->deps->len; i++)
        add_path(argv, run, ((struct run_dep *)run->deps->pdata[i])->path);
    for (char **at = run->cache; at && *at; at++)
        add_path(argv, run, *at);
}

/* Whether the client itself goes by NAME, so that a job's value of it is none of its business. */
static bool is_clients(const char *name)
{
    static const char *const begin[] = {"LD_",     "DOCKER_", "CONTAINER",
                                        "PODMAN_", "XDG_",    "BUILDAH_"};
    static const char *const names[] = {"PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "SHELL", NULL};

    for (guint i = 0; i < G_N_ELEMENTS(begin); i++)
        if (g_str_has_prefix(name, begin[i]))
            return true;
    return g_strv_contains(names, name);
}

/* By name, so that no value is in a list of processes. What the client itself goes by (PATH) is
 * written out where the job's value is another one; no secret can be called so. */
static void add_environment(GPtrArray *argv, struct launch *launch)
{
    for (guint i = 0; i < launch->names->len; i++) {
        const char *name = launch->names->pdata[i], *ours = g_getenv(name);
        g_autofree char *value = g_strdup(g_environ_getenv(launch->env, name));
        bool clashes = is_clients(name) && g_strcmp0(ours, value) != 0;

        add(argv, "--env");
        if (!clashes || secrets_value(launch->secrets, name)) {
            add(argv, name);
            continue;
        }
        g_ptr_array_add(argv, g_strdup_printf("%s=%s", name, value));
        launch->env = ours ? g_environ_setenv(launch->env, name, ours, TRUE)
                           : g_environ_unsetenv(launch->env, name);
    }
    if (launch->run->home_dir)
        g_ptr_array_add(argv, g_strdup_printf("--env=HOME=%s", launch->run->home_dir));
}

static void add_resources(GPtrArray *argv, const struct launch *launch, bool podman)
{
    const struct resources *r = &launch->run->resources;

    if (r->shm_bytes)
        g_ptr_array_add(argv, g_strdup_printf("--shm-size=%" G_GUINT64_FORMAT, r->shm_bytes));
    if (r->gpu && podman)
        add(argv, "--device=nvidia.com/gpu=all");
    else if (r->gpu)
        g_ptr_array_add(argv, g_strdup_printf("--gpus=%u", r->gpu));
    for (guint i = 0; i < launch->ports->len; i++) {
        const struct launch_port *port = &g_array_index(launch->ports, struct launch_port, i);

        g_ptr_array_add(argv,
                        g_strdup_printf("--publish=127.0.0.1:%u:%u", port->local, port->port));
    }
}

static bool add_settings(GPtrArray *argv, GError **error)
{
    const char *options = g_getenv("DSTACK_CONTAINER_OPTIONS");
    g_auto(GStrv) words = NULL;
    g_autoptr(GError) why = NULL;

    if (!options || !options[strspn(options, " \t\n")])
        return true;
    if (!g_shell_parse_argv(options, NULL, &words, &why))
        return error_set(error, EINVAL, "DSTACK_CONTAINER_OPTIONS: %s", why->message);
    for (char **word = words; *word; word++)
        add(argv, *word);
    return true;
}

/* What runs in the container. With an entrypoint, the commands are its last word, one text. */
static bool add_commands(GPtrArray *argv, struct launch *launch, const char *image, GError **error)
{
    const struct run *run = launch->run;
    g_autofree char *text = launch_script(launch, run->commands, error);
    g_autofree char *script = text ? launch_write(launch, "script", text, error) : NULL;
    bool has_commands = run->commands && *run->commands;
    bool has_entrypoint = run->entrypoint && *run->entrypoint;

    if (!script)
        return false;
    if (has_commands || has_entrypoint) {
        add_bind(argv, script, "/dstack-script");
        add(argv, "--entrypoint=/bin/sh");
    }
    add(argv, image);
    if (!has_commands && !has_entrypoint) { /* the image knows what to do */
        for (char **at = run->args; at && *at; at++)
            add(argv, *at);
        return true;
    }
    add(argv, "-c");
    add(argv, INSIDE);
    add(argv, "dstack");
    for (char **at = run->entrypoint; at && *at; at++)
        add(argv, *at);
    if (has_entrypoint && has_commands) {
        add(argv, text);
    } else if (has_commands) {
        add(argv, "/bin/sh");
        add(argv, "-c");
        add(argv, SHELL);
    }
    return true;
}

/* User and password of the registry, where HOST finds them. */
static bool set_registry(GPtrArray *argv, struct launch *launch, GError **error)
{
    const struct run *run = launch->run;
    g_autofree char *config = g_build_filename(run->owner.work_dir, "registry", NULL);
    g_autofree char *file = g_build_filename(config, "config.json", NULL);
    g_autofree char *user = NULL;
    char *password;

    if (!run->registry_username) {
        add(argv, "");
        return true;
    }
    user = variables_for_value(&launch->variables, run->registry_username, error);
    password = user ? variables_for_value(&launch->variables, run->registry_password, error) : NULL;
    if (!password)
        return false;
    add(argv, user);
    launch->env = g_environ_setenv(launch->env, PASSWORD_VARIABLE, password, TRUE);
    launch->env = g_environ_setenv(launch->env, "DOCKER_CONFIG", config, TRUE);
    launch->env = g_environ_setenv(launch->env, "REGISTRY_AUTH_FILE", file, TRUE);
    secret_free(password);
    return true;
}

static bool add_run(GPtrArray *argv, struct launch *launch, const char *client, const char *image,
                    GError **error)
{
    const struct run *run = launch->run;
    g_autofree char *name = container_name(run);
    g_autofree char *place =
        g_build_filename("/workflow", run->working_dir ? run->working_dir : NULL, NULL);

    add(argv, client);
    add(argv, "run");
    add(argv, "--rm");
    g_ptr_array_add(argv, g_strdup_printf("--name=%s", name));
    g_ptr_array_add(argv, g_strdup_printf("--workdir=%s", place));
    if (!add_settings(argv, error))
        return false;
    add_paths(argv, run);
    add_resources(argv, launch, is_podman(client));
    add_environment(argv, launch);
    return add_commands(argv, launch, image, error);
}

static char **prepare(struct launch *launch, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *client = find_client(error);
    g_autofree char *image =
        client ? variables_for_value(&launch->variables, launch->run->image, error) : NULL;

    if (!image)
        return NULL;
    add(argv, "/bin/sh");
    add(argv, "-c");
    add(argv, HOST);
    add(argv, "dstack");
    add(argv, client);
    add(argv, image);
    if (!set_registry(argv, launch, error) || !add_run(argv, launch, client, image, error))
        return NULL;
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&argv), FALSE);
}

/* Killing the client does not end its container. One that is gone is a success, with -f. */
static void clean(const struct run *run)
{
    g_autofree char *client = find_client(NULL);
    g_autofree char *name = container_name(run);
    const char *argv[] = {"timeout", "-k", "5", "30", client, "rm", "--force", name, NULL};

    for (int i = 0; client && i < REMOVE_TRIES; i++) {
        g_autofree char *said = NULL;
        int status = 0;

        if (g_spawn_sync(NULL, (char **)argv, NULL,
                         G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL, &said,
                         &status, NULL) &&
            (status == 0 || strcasestr(said, "no such container")))
            return;
        if (i + 1 == REMOVE_TRIES)
            log_warning("container %s may still be there: %s", name, said ? said : "");
    }
}

const struct provider provider_docker = {
    .name = "docker", .has_own_ports = true, .check = check, .prepare = prepare, .clean = clean};
