#include "config/workflow_values.h"

#include "config/artifact_path.h"
#include "config/error.h"
#include "config/schema.h"
#include "config/units.h"

#include <string.h>

enum { COUNT_MAX = 65536, PORT_MAX = 65535 };

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
    g_auto(GStrv) parts = g_strsplit(text_of(node) ? node->text : "", ":", 3);
    guint count = g_strv_length(parts);
    bool fine = count == 1 || count == 2;

    for (guint i = 0; fine && i < count; i++)
        fine = is_number(parts[i], PORT_MAX);
    return fine || schema_error(file, node, error,
                                "each of \"%s\" must be PORT or PORT:LOCAL, from 1 to 65535, not "
                                "%s",
                                key, shown(node));
}

static bool check_ports(const char *file, const struct yaml_node *node, const char *key,
                        GError **error)
{
    return check_each(file, node, key, check_port, error);
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

static bool check_auth(const char *file, const struct yaml_node *node, const char *key,
                       GError **error)
{
    static const struct key_check checks[] = {
        {"username", check_text}, {"password", check_text}, {NULL, NULL}};

    return check_map(file, node, key, checks, error);
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

bool workflow_check_values(const char *file, const struct yaml_node *map, GError **error)
{
    static const struct key_check checks[] = {{"env", check_env},
                                              {"working_dir", check_below},
                                              {"resources", check_resources},
                                              {"ports", check_ports},
                                              {"cache", check_cache},
                                              {"ssh", check_bool},
                                              {"image", check_text},
                                              {"version", check_text},
                                              {"home_dir", check_text},
                                              {"setup", check_texts},
                                              {"entrypoint", check_texts},
                                              {"registry_auth", check_auth},
                                              {NULL, NULL}};

    return check_keys(file, map, checks, error);
}
