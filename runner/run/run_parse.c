/* Reading the run document.
 *
 * safety: one reader struct collects the first thing that is wrong; every field is checked for its
 *         type and range there, so that whoever gets a struct run can trust it.
 */
#include "config/artifact_path.h"
#include "config/error.h"
#include "config/workflow_values.h"
#include "runner/run/run.h"
#include "runner/run/run_json.h"
#include <string.h>

enum { DOCUMENT_MAX = 4 * 1024 * 1024, LIST_MAX = 4096, COUNT_MAX = 65536 };

struct reader {
    const char *what; /* "runs/REPO/RUN.json", for messages */
    GError **error;
    bool failed;
};

static void refuse(struct reader *reader, const char *field, const char *expected)
{
    if (!reader->failed)
        error_set(reader->error, EINVAL, "%s: %s: expected %s", reader->what, field, expected);
    reader->failed = true;
}

/* NULL when it is absent (and NEEDED is false) or wrong. */
static char *get_string(struct reader *reader, json_t *object, const char *name, bool needed)
{
    json_t *value = json_object_get(object, name);

    if (json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value))
        return g_strdup(json_string_value(value));
    if (value || needed)
        refuse(reader, name, "text");
    return NULL;
}

static char *get_name(struct reader *reader, json_t *object, const char *name, bool needed)
{
    char *value = get_string(reader, object, name, needed);

    if (value && !run_name_is_valid(value)) {
        refuse(reader, name, "a name of letters, digits, '.', '_' and '-'");
        g_clear_pointer(&value, g_free);
    }
    return value;
}

static int64_t get_integer(struct reader *reader, json_t *object, const char *name, int64_t min,
                           int64_t max, int64_t fallback)
{
    json_t *value = json_object_get(object, name);

    if (!value)
        return fallback;
    if (json_is_integer(value) && json_integer_value(value) >= min &&
        json_integer_value(value) <= max)
        return json_integer_value(value);
    refuse(reader, name, "a whole number in its range");
    return fallback;
}

static bool get_boolean(struct reader *reader, json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);

    if (value && !json_is_boolean(value))
        refuse(reader, name, "true or false");
    return json_is_true(value);
}

static json_t *get_object(struct reader *reader, json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);

    if (json_is_object(value))
        return value;
    refuse(reader, name, "an object");
    return NULL;
}

/* NULL when absent: loops over it are empty then. */
static json_t *get_array(struct reader *reader, json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);

    if (value && (!json_is_array(value) || json_array_size(value) > LIST_MAX)) {
        refuse(reader, name, "a list of at most 4096");
        return NULL;
    }
    return value;
}

static char **parse_strings(struct reader *reader, json_t *object, const char *name)
{
    g_autoptr(GPtrArray) strings = g_ptr_array_new_with_free_func(g_free);
    json_t *array = get_array(reader, object, name), *value;
    size_t i;

    json_array_foreach(array, i, value)
    {
        if (!json_is_string(value) ||
            strlen(json_string_value(value)) != json_string_length(value)) {
            refuse(reader, name, "a list of texts");
            break;
        }
        g_ptr_array_add(strings, g_strdup(json_string_value(value)));
    }
    g_ptr_array_add(strings, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&strings), FALSE);
}

static bool path_climbs(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);

    return g_strv_contains((const char *const *)parts, "..");
}

/* A path may point anywhere on the machine (absolute, ~) but never climb, and not be the root. */
static bool path_is_safe(const char *path)
{
    return strspn(path, "/.~") != strlen(path) && strlen(path) < 4096 && !path_climbs(path);
}

static char *get_path(struct reader *reader, json_t *object, const char *name)
{
    char *path = get_string(reader, object, name, true);

    if (path && !path_is_safe(path)) {
        refuse(reader, name, "a path without '..' that is not the root");
        g_clear_pointer(&path, g_free);
    }
    return path;
}

static void parse_artifacts(struct reader *reader, struct run *run, json_t *spec)
{
    json_t *array = get_array(reader, spec, "artifacts"), *value;
    size_t i;

    json_array_foreach(array, i, value)
    {
        g_autofree char *path = get_path(reader, value, "path");

        if (path)
            run_add_artifact(run, path, get_boolean(reader, value, "mount"));
    }
}

static void parse_deps(struct reader *reader, struct run *run, json_t *spec)
{
    json_t *array = get_array(reader, spec, "deps"), *value;
    size_t i;

    json_array_foreach(array, i, value)
    {
        g_autofree char *repo = get_name(reader, value, "repo", false);
        g_autofree char *from = get_name(reader, value, "run", true);
        g_autofree char *path = get_path(reader, value, "path");

        if (from && path)
            run_add_dep(run, repo, from, path, get_boolean(reader, value, "mount"));
    }
}

static bool is_sha256(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static void parse_resources(struct reader *reader, struct resources *to, json_t *object)
{
    if (object && !json_is_object(object))
        refuse(reader, "resources", "an object");
    to->cpu = get_integer(reader, object, "cpu", 0, COUNT_MAX, 0);
    to->gpu = get_integer(reader, object, "gpu", 0, COUNT_MAX, 0);
    to->gpu_name = get_string(reader, object, "gpu_name", false);
    to->memory_bytes = get_integer(reader, object, "memory_bytes", 0, INT64_MAX, 0);
    to->gpu_memory_bytes = get_integer(reader, object, "gpu_memory_bytes", 0, INT64_MAX, 0);
    to->shm_bytes = get_integer(reader, object, "shm_bytes", 0, INT64_MAX, 0);
    to->interruptible = get_boolean(reader, object, "interruptible");
    to->local = get_boolean(reader, object, "local");
    to->remote = get_boolean(reader, object, "remote");
}

static void parse_lifetime(struct reader *reader, struct lifetime *to, json_t *spec)
{
    g_autofree char *name = get_string(reader, spec, "stop_signal", false);

    to->nodes = get_integer(reader, spec, "nodes", 0, COUNT_MAX, 0);
    to->attempts = get_integer(reader, spec, "attempts", 0, 1000000, 0);
    to->duration_ms = get_integer(reader, spec, "duration_ms", 0, INT64_MAX, 0);
    to->stop_signal = name ? signal_parse(name) : 0;
    if (name && !to->stop_signal)
        refuse(reader, "stop_signal", "a signal that can be caught");
}

static void parse_ports(struct reader *reader, struct run *run, json_t *spec)
{
    unsigned port, local;

    run->ports = parse_strings(reader, spec, "ports");
    for (char **at = run->ports; *at; at++)
        if (!port_parse(*at, &port, &local))
            refuse(reader, "ports", "PORT or PORT:LOCAL");
}

static void parse_cache(struct reader *reader, struct run *run, json_t *spec)
{
    run->cache = parse_strings(reader, spec, "cache");
    for (char **at = run->cache; *at; at++) {
        g_autofree char *clean = artifact_path_normalise(*at);

        if (g_strcmp0(clean, *at) != 0)
            refuse(reader, "cache", "a path without '..' that is not the root");
    }
}

/* What only some providers look at. */
static void parse_provider(struct reader *reader, struct run *run, json_t *spec)
{
    run->python = get_string(reader, spec, "python", false);
    if (run->python && strspn(run->python, "0123456789.") != strlen(run->python))
        refuse(reader, "python", "a version");
    run->setup = parse_strings(reader, spec, "setup");
    run->ide_version = get_string(reader, spec, "ide_version", false);
    run->image = get_string(reader, spec, "image", false);
    run->entrypoint = parse_strings(reader, spec, "entrypoint");
    run->home_dir = get_string(reader, spec, "home_dir", false);
    run->registry_username = get_string(reader, spec, "registry_username", false);
    run->registry_password = get_string(reader, spec, "registry_password", false);
    if (run->registry_password && !is_secret_reference(run->registry_password))
        refuse(reader, "registry_password", "${{ secrets.NAME }}");
}

static void parse_spec(struct reader *reader, struct run *run, json_t *spec)
{
    run->workflow = get_string(reader, spec, "workflow", false);
    run->provider = get_string(reader, spec, "provider", true);
    run->engine = get_string(reader, spec, "engine", false);
    run->user = get_string(reader, spec, "user", false);
    run->code_sha256 = get_string(reader, spec, "code", false);
    if (run->code_sha256 && !is_sha256(run->code_sha256))
        refuse(reader, "code", "64 hexadecimal digits");
    run->working_dir = get_string(reader, spec, "working_dir", false);
    if (run->working_dir && (g_path_is_absolute(run->working_dir) || path_climbs(run->working_dir)))
        refuse(reader, "working_dir", "a path below the code");
    run->commands = parse_strings(reader, spec, "commands");
    run->args = parse_strings(reader, spec, "args");
    run->env = parse_strings(reader, spec, "env");
    for (char **at = run->env; *at; at++)
        if (!**at || **at == '=')
            refuse(reader, "env", "NAME=VALUE or NAME");
    parse_ports(reader, run, spec);
    parse_cache(reader, run, spec);
    parse_provider(reader, run, spec);
    parse_resources(reader, &run->resources, json_object_get(spec, "resources"));
    parse_lifetime(reader, &run->lifetime, spec);
    parse_artifacts(reader, run, spec);
    parse_deps(reader, run, spec);
    run->grace_s = get_integer(reader, spec, "grace_s", 0, 86400, run->grace_s);
}

static void parse_owner(struct reader *reader, struct run_owner *owner, json_t *object)
{
    if (!object)
        return;
    owner->host = get_string(reader, object, "host", true);
    owner->machine = get_string(reader, object, "machine", true);
    owner->pid = get_integer(reader, object, "pid", 1, INT32_MAX, 0);
    if (owner->pid == 0)
        refuse(reader, "pid", "the number of a process");
    owner->start_ticks = get_integer(reader, object, "start_ticks", 0, INT64_MAX, 0);
    owner->work_dir = get_string(reader, object, "work_dir", false);
}

static void parse_state(struct reader *reader, struct run *run, json_t *state)
{
    g_autofree char *status = get_string(reader, state, "status", true);

    if (status && !run_status_parse(status, &run->status))
        refuse(reader, "status", "a status of a run");
    g_free(run->id);
    run->id = get_name(reader, state, "id", true);
    run->attempt = get_integer(reader, state, "attempt", 1, 1000000, 1);
    run->exit_code = get_integer(reader, state, "exit_code", -1, 255, -1);
    run->reason = get_string(reader, state, "reason", false);
    run->submitted_ms = get_integer(reader, state, "submitted_ms", 0, INT64_MAX, 0);
    run->started_ms = get_integer(reader, state, "started_ms", 0, INT64_MAX, 0);
    run->finished_ms = get_integer(reader, state, "finished_ms", 0, INT64_MAX, 0);
    run->engine_job = get_string(reader, state, "engine_job", false);
    run->revision = get_integer(reader, state, "revision", 0, INT64_MAX - 1, 0);
    run->write_id = get_string(reader, state, "write", false);
    parse_owner(reader, &run->owner, json_object_get(state, "owner"));
}

static bool check_version(struct reader *reader, json_t *root)
{
    json_t *version = json_object_get(root, "version");

    if (json_is_integer(version) && json_integer_value(version) > RUN_JSON_VERSION)
        return error_set(reader->error, ENOTSUP,
                         "%s was written by a newer dstack (version %" JSON_INTEGER_FORMAT
                         "): update this one",
                         reader->what, json_integer_value(version));
    if (!json_is_integer(version) || json_integer_value(version) != RUN_JSON_VERSION)
        return error_set(reader->error, EINVAL, "%s: version: expected %d", reader->what,
                         RUN_JSON_VERSION);
    return true;
}

static void check_names(struct reader *reader, const struct run *run, json_t *root)
{
    g_autofree char *repo = get_name(reader, root, "repo", true);
    g_autofree char *name = get_name(reader, root, "name", true);

    if (g_strcmp0(repo, run->repo) != 0)
        refuse(reader, "repo", run->repo);
    if (g_strcmp0(name, run->name) != 0)
        refuse(reader, "name", run->name);
}

struct run *run_parse(const char *repo, const char *name, const char *data, size_t size,
                      GError **error)
{
    g_autofree char *what = g_strdup_printf("runs/%s/%s.json", repo, name);
    struct reader reader = {what, error, false};
    g_autoptr(Run) run = run_new(repo, name);
    g_autoptr(Json) root = NULL;
    json_error_t bad;
    json_t *spec, *state;

    if (size > DOCUMENT_MAX)
        return error_set(error, EFBIG, "%s is larger than a run document can be", what), NULL;
    root = json_loadb(data, size, JSON_REJECT_DUPLICATES, &bad);
    if (!root) {
        error_set(error, EINVAL, "%s is not a run document: line %d: %s", what, bad.line, bad.text);
        return NULL;
    }
    if (!check_version(&reader, root))
        return NULL;
    check_names(&reader, run, root);
    spec = get_object(&reader, root, "spec");
    state = get_object(&reader, root, "state");
    if (spec)
        parse_spec(&reader, run, spec);
    if (state)
        parse_state(&reader, run, state);
    return reader.failed ? NULL : g_steal_pointer(&run);
}
