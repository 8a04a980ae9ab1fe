/* Writing the run document as JSON; run_parse.c reads it. What is not asked for is left out. */
#include "runner/run/run_json.h"
#include "runner/run/run.h"
#include <jansson.h>
#include <string.h>

static void put_string(json_t *object, const char *name, const char *value)
{
    g_autofree char *valid = value ? g_utf8_make_valid(value, -1) : NULL;

    if (valid)
        json_object_set_new(object, name, json_string(valid));
}

static void append_string(json_t *array, const char *value)
{
    g_autofree char *valid = g_utf8_make_valid(value, -1);

    json_array_append_new(array, json_string(valid));
}

static json_t *format_strings(char **strings)
{
    json_t *array = json_array();

    for (char **at = strings; at && *at; at++)
        append_string(array, *at);
    return array;
}

static void put_strings(json_t *object, const char *name, char **strings)
{
    if (strings && *strings)
        json_object_set_new(object, name, format_strings(strings));
}

static void put_number(json_t *object, const char *name, uint64_t value)
{
    if (value)
        json_object_set_new(object, name, json_integer((json_int_t)value));
}

static void put_true(json_t *object, const char *name, bool value)
{
    if (value)
        json_object_set_new(object, name, json_true());
}

static json_t *format_resources(const struct resources *resources)
{
    json_t *object = json_object();

    put_number(object, "cpu", resources->cpu);
    put_number(object, "memory_bytes", resources->memory_bytes);
    put_number(object, "gpu", resources->gpu);
    put_string(object, "gpu_name", resources->gpu_name);
    put_number(object, "gpu_memory_bytes", resources->gpu_memory_bytes);
    put_number(object, "shm_bytes", resources->shm_bytes);
    put_true(object, "interruptible", resources->interruptible);
    put_true(object, "local", resources->local);
    put_true(object, "remote", resources->remote);
    return object;
}

static json_t *format_artifacts(const struct run *run)
{
    json_t *array = json_array();

    for (guint i = 0; i < run->artifacts->len; i++) {
        const struct run_artifact *artifact = run->artifacts->pdata[i];
        json_t *object = json_object();

        put_string(object, "path", artifact->path);
        json_object_set_new(object, "mount", json_boolean(artifact->mount));
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *format_deps(const struct run *run)
{
    json_t *array = json_array();

    for (guint i = 0; i < run->deps->len; i++) {
        const struct run_dep *dep = run->deps->pdata[i];
        json_t *object = json_object();

        put_string(object, "repo", dep->repo);
        put_string(object, "run", dep->run);
        put_string(object, "path", dep->path);
        json_object_set_new(object, "mount", json_boolean(dep->mount));
        json_array_append_new(array, object);
    }
    return array;
}

static void put_lifetime(json_t *spec, const struct lifetime *lifetime)
{
    g_autofree char *name = lifetime->stop_signal ? signal_format(lifetime->stop_signal) : NULL;

    put_number(spec, "nodes", lifetime->nodes);
    put_number(spec, "attempts", lifetime->attempts);
    put_number(spec, "duration_ms", (uint64_t)lifetime->duration_ms);
    put_string(spec, "stop_signal", name);
}

/* What only some providers look at. */
static void put_provider(json_t *spec, const struct run *run)
{
    put_string(spec, "python", run->python);
    put_strings(spec, "setup", run->setup);
    put_string(spec, "ide_version", run->ide_version);
    put_string(spec, "image", run->image);
    put_strings(spec, "entrypoint", run->entrypoint);
    put_string(spec, "home_dir", run->home_dir);
    put_string(spec, "registry_username", run->registry_username);
    put_string(spec, "registry_password", run->registry_password);
}

static json_t *format_spec(const struct run *run)
{
    json_t *spec = json_object();

    put_string(spec, "workflow", run->workflow);
    put_string(spec, "provider", run->provider);
    put_string(spec, "engine", run->engine);
    put_string(spec, "user", run->user);
    put_string(spec, "code", run->code_sha256);
    put_string(spec, "working_dir", run->working_dir);
    json_object_set_new(spec, "commands", format_strings(run->commands));
    json_object_set_new(spec, "args", format_strings(run->args));
    json_object_set_new(spec, "env", format_strings(run->env));
    put_strings(spec, "ports", run->ports);
    put_strings(spec, "cache", run->cache);
    put_provider(spec, run);
    if (resources_asked(&run->resources))
        json_object_set_new(spec, "resources", format_resources(&run->resources));
    put_lifetime(spec, &run->lifetime);
    json_object_set_new(spec, "artifacts", format_artifacts(run));
    json_object_set_new(spec, "deps", format_deps(run));
    json_object_set_new(spec, "grace_s", json_integer(run->grace_s));
    return spec;
}

static json_t *format_owner(const struct run_owner *owner)
{
    json_t *object = json_object();

    put_string(object, "host", owner->host);
    put_string(object, "machine", owner->machine);
    json_object_set_new(object, "pid", json_integer(owner->pid));
    json_object_set_new(object, "start_ticks", json_integer((json_int_t)owner->start_ticks));
    put_string(object, "work_dir", owner->work_dir);
    return object;
}

static json_t *format_state(const struct run *run)
{
    json_t *state = json_object();

    put_string(state, "id", run->id);
    put_string(state, "status", run_status_name(run->status));
    json_object_set_new(state, "attempt", json_integer(run->attempt));
    json_object_set_new(state, "exit_code", json_integer(run->exit_code));
    put_string(state, "reason", run->reason);
    json_object_set_new(state, "submitted_ms", json_integer(run->submitted_ms));
    json_object_set_new(state, "started_ms", json_integer(run->started_ms));
    json_object_set_new(state, "finished_ms", json_integer(run->finished_ms));
    put_string(state, "engine_job", run->engine_job);
    put_string(state, "write", run->write_id);
    json_object_set_new(state, "revision", json_integer((json_int_t)run->revision));
    if (run->owner.host)
        json_object_set_new(state, "owner", format_owner(&run->owner));
    return state;
}

char *run_format(const struct run *run, size_t *size)
{
    g_autoptr(Json) root = json_object();
    char *text, *copy;

    json_object_set_new(root, "version", json_integer(RUN_JSON_VERSION));
    put_string(root, "repo", run->repo);
    put_string(root, "name", run->name);
    json_object_set_new(root, "spec", format_spec(run));
    json_object_set_new(root, "state", format_state(run));
    text = json_dumps(root, JSON_INDENT(2));
    copy = g_strdup(text);
    free(text);
    if (size)
        *size = strlen(copy);
    return copy;
}
