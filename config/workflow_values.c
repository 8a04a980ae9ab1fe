#include "config/workflow_values.h"

#include "config/artifact_path.h"
#include "config/error.h"
#include "config/schema.h"
#include "config/units.h"

#include <stdlib.h>
#include <string.h>

enum { COUNT_MAX = 65536, PORTS_MAX = 64 };

typedef bool check_value(const char *file, const struct yaml_node *node, const char *key,
                         GError **error);

static const char *text_of(const struct yaml_node *node)
{
    return node->kind == YAML_SCALAR && !node->is_null ? node->text : NULL;
}

static const char *shown(const struct yaml_node *node)
{
    return text_of(node) ? node->text : yaml_node_kind_name(node);
}

static bool is_number(const char *text, guint64 max)
{
    return text && g_ascii_string_to_unsigned(text, 10, 1, max, NULL, NULL);
}

static bool check_text(const char *file, const struct yaml_node *node, const char *key,
                       GError **error)
{
    return text_of(node) || schema_error(file, node, error, "\"%s\" must be a text, not %s", key,
                                         yaml_node_kind_name(node));
}

static bool check_bool(const char *file, const struct yaml_node *node, const char *key,
                       GError **error)
{
    const char *text = text_of(node);

    return (text && (!g_ascii_strcasecmp(text, "true") || !g_ascii_strcasecmp(text, "false"))) ||
           schema_error(file, node, error, "\"%s\" must be true or false, not %s", key,
                        shown(node));
}

static bool check_count(const char *file, const struct yaml_node *node, const char *key,
                        GError **error)
{
    return is_number(text_of(node), COUNT_MAX) ||
           schema_error(file, node, error, "\"%s\" must be a whole number of at least 1, not %s",
                        key, shown(node));
}

static bool check_size(const char *file, const struct yaml_node *node, const char *key,
                       GError **error)
{
    uint64_t bytes;

    return (text_of(node) && size_parse(node->text, &bytes) && bytes > 0) ||
           schema_error(file, node, error, "\"%s\" must be a size such as 16GB or 512MB, not %s",
                        key, shown(node));
}

/* One value, or a list of them. */
static bool check_each(const char *file, const struct yaml_node *node, const char *key,
                       check_value *check, GError **error)
{
    if (node->kind != YAML_LIST)
        return check(file, node, key, error);
    for (guint i = 0; i < node->items->len; i++)
        if (!check(file, node->items->pdata[i], key, error))
            return false;
    return true;
}

static bool check_texts(const char *file, const struct yaml_node *node, const char *key,
                        GError **error)
{
    return check_each(file, node, key, check_text, error);
}

static bool check_port(const char *file, const struct yaml_node *node, const char *key,
                       GError **error)
{
    unsigned port, local;

    return (text_of(node) && port_parse(node->text, &port, &local) && port > 0) ||
           schema_error(file, node, error,
                        "each of \"%s\" must be PORT or PORT:LOCAL, from 1 to 65535, not %s", key,
                        shown(node));
}

/* The program's port, and where it is found: neither twice. */
static bool check_ports_differ(const char *file, const struct yaml_node *list, const char *key,
                               GError **error)
{
    for (guint i = 0; i < list->items->len; i++)
        for (guint j = 0; j < i; j++) {
            const struct yaml_node *one = list->items->pdata[i], *two = list->items->pdata[j];
            unsigned port[2], local[2];

            if (port_parse(one->text, &port[0], &local[0]) &&
                port_parse(two->text, &port[1], &local[1]) &&
                (port[0] == port[1] || local[0] == local[1]))
                return schema_error(file, one, error, "\"%s\": %s and %s clash", key, two->text,
                                    one->text);
        }
    return true;
}

static bool check_ports(const char *file, const struct yaml_node *node, const char *key,
                        GError **error)
{
    if (!check_each(file, node, key, check_port, error))
        return false;
    if (node->kind == YAML_LIST && node->items->len > PORTS_MAX)
        return schema_error(file, node, error, "\"%s\": at most %d", key, PORTS_MAX);
    return node->kind != YAML_LIST || check_ports_differ(file, node, key, error);
}

static bool check_cached(const char *file, const struct yaml_node *node, const char *key,
                         GError **error)
{
    static const char *const keys[] = {"path", NULL};
    const struct yaml_node *path = node;
    g_autofree char *clean = NULL;

    if (node->kind == YAML_MAP && !schema_check_keys(file, node, keys, "a cache", error))
        return false;
    if (node->kind == YAML_MAP)
        path = yaml_node_get(node, "path");
    if (!path || !text_of(path))
        return schema_error(file, node, error, "a cache is a path, or a map with \"path\"");
    clean = artifact_path_normalise(path->text);
    return clean || schema_error(file, path, error,
                                 "cache path \"%s\" is refused: name a directory inside the work "
                                 "directory, or an absolute one other than /",
                                 path->text);
}

static bool check_cache(const char *file, const struct yaml_node *node, const char *key,
                        GError **error)
{
    if (node->kind != YAML_LIST)
        return schema_error(file, node, error, "\"%s\" must be a list, not %s", key,
                            yaml_node_kind_name(node));
    return check_each(file, node, key, check_cached, error);
}

struct key_check {
    const char *key;
    check_value *check;
};

/* Every key of CHECKS (which ends with one without a name) that MAP has. */
static bool check_keys(const char *file, const struct yaml_node *map,
                       const struct key_check *checks, GError **error)
{
    for (; checks->key; checks++) {
        const struct yaml_node *node = yaml_node_get(map, checks->key);

        if (node && !checks->check(file, node, checks->key, error))
            return false;
    }
    return true;
}

/* A map that has these keys and no others. */
static bool check_map(const char *file, const struct yaml_node *map, const char *what,
                      const struct key_check *checks, GError **error)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new();

    if (map->kind != YAML_MAP)
        return schema_error(file, map, error, "\"%s\" must be a map, not %s", what,
                            yaml_node_kind_name(map));
    for (const struct key_check *at = checks; at->key; at++)
        g_ptr_array_add(keys, (char *)at->key);
    g_ptr_array_add(keys, NULL);
    return schema_check_keys(file, map, (const char *const *)keys->pdata, what, error) &&
           check_keys(file, map, checks, error);
}

static bool check_gpu(const char *file, const struct yaml_node *node, const char *key,
                      GError **error)
{
    static const struct key_check checks[] = {
        {"name", check_text}, {"count", check_count}, {"memory", check_size}, {NULL, NULL}};

    return node->kind == YAML_MAP ? check_map(file, node, key, checks, error)
                                  : check_count(file, node, key, error);
}

static bool is_true(const struct yaml_node *node)
{
    return node && text_of(node) && !g_ascii_strcasecmp(node->text, "true");
}

static bool check_resources(const char *file, const struct yaml_node *node, const char *key,
                            GError **error)
{
    static const struct key_check checks[] = {{"cpu", check_count},
                                              {"memory", check_size},
                                              {"gpu", check_gpu},
                                              {"shm_size", check_size},
                                              {"local", check_bool},
                                              {"remote", check_bool},
                                              {"interruptible", check_bool},
                                              {NULL, NULL}};

    if (!check_map(file, node, key, checks, error))
        return false;
    if (is_true(yaml_node_get(node, "local")) && is_true(yaml_node_get(node, "remote")))
        return schema_error(file, node, error, "\"local\" and \"remote\" exclude each other");
    return true;
}

bool is_secret_reference(const char *text)
{
    size_t length = strlen(text);
    g_autofree char *name = NULL;

    if (!g_str_has_prefix(text, "${{") || !g_str_has_suffix(text, "}}") || length < 5)
        return false;
    name = g_strstrip(g_strndup(text + 3, length - 5));
    return g_str_has_prefix(name, "secrets.") && strcspn(name, "{} ") == strlen(name);
}

static bool check_password(const char *file, const struct yaml_node *node, const char *key,
                           GError **error)
{
    return (text_of(node) && is_secret_reference(node->text)) ||
           schema_error(file, node, error,
                        "\"%s\" must be ${{ secrets.NAME }}, after dstack secrets add NAME: what "
                        "is written here is kept in the store",
                        key);
}

static bool check_auth(const char *file, const struct yaml_node *node, const char *key,
                       GError **error)
{
    static const struct key_check checks[] = {
        {"username", check_text}, {"password", check_password}, {NULL, NULL}};

    if (!check_map(file, node, key, checks, error))
        return false;
    return (yaml_node_get(node, "username") && yaml_node_get(node, "password")) ||
           schema_error(file, node, error, "\"%s\" needs \"username\" and \"password\"", key);
}

static bool check_absolute(const char *file, const struct yaml_node *node, const char *key,
                           GError **error)
{
    return (text_of(node) && g_path_is_absolute(node->text)) ||
           schema_error(file, node, error, "\"%s\" must be an absolute path, not %s", key,
                        shown(node));
}

static bool check_version(const char *file, const struct yaml_node *node, const char *key,
                          GError **error)
{
    const char *text = text_of(node);

    return (text && *text && strspn(text, "0123456789.") == strlen(text)) ||
           schema_error(file, node, error, "\"%s\" must be a version such as 3.11, not %s", key,
                        shown(node));
}

bool env_is_credential(const char *entry)
{
    static const char *const names[] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN", NULL};
    g_autofree char *name = g_strndup(entry, strcspn(entry, "="));

    return g_strv_contains(names, name);
}

bool workflow_env_check(const char *entry, const char *place, GError **error)
{
    size_t length = strcspn(entry, "=");

    if (length == 0 || g_ascii_isdigit(*entry) ||
        strspn(entry, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") < length)
        return error_set(error, EINVAL, "%s: env \"%s\": write NAME=VALUE, or NAME", place, entry);
    if (entry[length] && env_is_credential(entry))
        return error_set(error, EINVAL,
                         "%s: env %.*s: its value would be kept in the store; write the name "
                         "alone, and set it where the run is started",
                         place, (int)length, entry);
    return true;
}

static bool check_variable(const char *file, const struct yaml_node *node, const char *key,
                           GError **error)
{
    g_autofree char *place = g_strdup_printf("%s:%u:%u", file, node->line, node->column);

    return !text_of(node) || workflow_env_check(node->text, place, error);
}

static bool check_env(const char *file, const struct yaml_node *node, const char *key,
                      GError **error)
{
    if (node->kind != YAML_LIST)
        return schema_error(file, node, error, "\"%s\" must be a list of texts, not %s", key,
                            yaml_node_kind_name(node));
    return check_each(file, node, key, check_text, error) &&
           check_each(file, node, key, check_variable, error);
}

static bool check_below(const char *file, const struct yaml_node *node, const char *key,
                        GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text_of(node) ? node->text : "..", "/", -1);

    return (!g_path_is_absolute(node->text ? node->text : "") &&
            !g_strv_contains((const char *const *)parts, "..")) ||
           schema_error(file, node, error, "\"%s\" must be a directory of the code, not %s", key,
                        shown(node));
}

/* What it was for is an SSH server beside the commands, which would be another way in. */
static bool check_ssh(const char *file, const struct yaml_node *node, const char *key,
                      GError **error)
{
    return check_bool(file, node, key, error) &&
           (!is_true(node) ||
            schema_error(file, node, error,
                         "\"ssh\" cannot be true: dstack starts no SSH server "
                         "beside a job; log in to its machine, or leave this out"));
}

static bool check_values(const char *file, const struct yaml_node *map, GError **error)
{
    static const struct key_check checks[] = {{"env", check_env},
                                              {"working_dir", check_below},
                                              {"resources", check_resources},
                                              {"ports", check_ports},
                                              {"cache", check_cache},
                                              {"ssh", check_ssh},
                                              {"image", check_text},
                                              {"python", check_version},
                                              {"version", check_version},
                                              {"home_dir", check_absolute},
                                              {"setup", check_texts},
                                              {"entrypoint", check_texts},
                                              {"registry_auth", check_auth},
                                              {NULL, NULL}};

    return check_keys(file, map, checks, error);
}

/* --- taking values over that were found right --- */

static void take_gpu(const struct yaml_node *node, struct resources *to)
{
    const struct yaml_node *count = node, *name = NULL, *memory = NULL;

    if (node->kind == YAML_MAP) {
        count = yaml_node_get(node, "count");
        name = yaml_node_get(node, "name");
        memory = yaml_node_get(node, "memory");
    }
    to->gpu = count ? (unsigned)strtoul(count->text, NULL, 10) : 1;
    to->gpu_name = name ? g_strdup(name->text) : NULL;
    if (memory)
        size_parse(memory->text, &to->gpu_memory_bytes);
}

static void take_resources(const struct yaml_node *map, struct resources *to)
{
    const struct yaml_node *cpu = yaml_node_get(map, "cpu"), *gpu = yaml_node_get(map, "gpu");
    const struct yaml_node *memory = yaml_node_get(map, "memory");
    const struct yaml_node *shm = yaml_node_get(map, "shm_size");

    if (cpu)
        to->cpu = (unsigned)strtoul(cpu->text, NULL, 10);
    if (gpu)
        take_gpu(gpu, to);
    if (memory)
        size_parse(memory->text, &to->memory_bytes);
    if (shm)
        size_parse(shm->text, &to->shm_bytes);
    to->interruptible = is_true(yaml_node_get(map, "interruptible"));
    to->local = is_true(yaml_node_get(map, "local"));
    to->remote = is_true(yaml_node_get(map, "remote"));
}

/* A number alone is how many: of free ports, when it is too small to mean one. */
static char **take_ports(const struct yaml_node *node)
{
    g_autoptr(GPtrArray) ports = g_ptr_array_new();
    guint64 count;

    if (node->kind == YAML_LIST)
        for (guint i = 0; i < node->items->len; i++)
            g_ptr_array_add(ports, g_strdup(((struct yaml_node *)node->items->pdata[i])->text));
    else if (g_ascii_string_to_unsigned(node->text, 10, 1, PORTS_MAX, &count, NULL))
        while (count--)
            g_ptr_array_add(ports, g_strdup("0"));
    else
        g_ptr_array_add(ports, g_strdup(node->text));
    g_ptr_array_add(ports, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&ports), FALSE);
}

static char **take_cache(const struct yaml_node *list)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new();

    for (guint i = 0; i < list->items->len; i++) {
        const struct yaml_node *item = list->items->pdata[i];
        const struct yaml_node *path = item->kind == YAML_MAP ? yaml_node_get(item, "path") : item;

        g_ptr_array_add(paths, artifact_path_normalise(path->text));
    }
    g_ptr_array_add(paths, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&paths), FALSE);
}

/* A list as it is; a text as the shell would take it apart. */
static bool read_entrypoint(const char *file, const struct yaml_node *map, char ***words,
                            GError **error)
{
    const struct yaml_node *node = yaml_node_get(map, "entrypoint");
    g_autoptr(GError) why = NULL;

    if (!node || node->kind == YAML_LIST)
        return schema_texts(file, map, "entrypoint", false, words, error);
    return g_shell_parse_argv(node->text, NULL, words, &why) ||
           schema_error(file, node, error, "\"entrypoint\": %s", why->message);
}

static void take_values(const struct yaml_node *map, struct workflow *workflow)
{
    const struct yaml_node *resources = yaml_node_get(map, "resources");
    const struct yaml_node *ports = yaml_node_get(map, "ports");
    const struct yaml_node *cache = yaml_node_get(map, "cache");

    if (resources)
        take_resources(resources, &workflow->resources);
    if (ports)
        workflow->ports = take_ports(ports);
    if (cache)
        workflow->cache = take_cache(cache);
}

bool workflow_read_values(const char *file, const struct yaml_node *map, struct workflow *workflow,
                          GError **error)
{
    const struct yaml_node *auth = yaml_node_get(map, "registry_auth");

    if (!check_values(file, map, error))
        return false;
    take_values(map, workflow);
    return lifetime_read(file, map, &workflow->lifetime, error) &&
           schema_text(file, map, "working_dir", &workflow->working_dir, error) &&
           schema_text(file, map, "python", &workflow->python, error) &&
           schema_text(file, map, "image", &workflow->image, error) &&
           schema_text(file, map, "home_dir", &workflow->home_dir, error) &&
           schema_text(file, map, "version", &workflow->version, error) &&
           schema_texts(file, map, "commands", true, &workflow->commands, error) &&
           schema_texts(file, map, "setup", true, &workflow->setup, error) &&
           schema_texts(file, map, "env", false, &workflow->env, error) &&
           read_entrypoint(file, map, &workflow->entrypoint, error) &&
           (!auth || (schema_text(file, auth, "username", &workflow->registry_username, error) &&
                      schema_text(file, auth, "password", &workflow->registry_password, error)));
}
