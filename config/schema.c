#include "config/schema.h"

#include "config/error.h"

#include <string.h>

bool schema_error(const char *file, const struct yaml_node *node, GError **error,
                  const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    return error_set(error, EINVAL, "%s:%u:%u: %s", file, node->line, node->column, message);
}

/* Levenshtein's distance; what is longer than any key of ours is far from all of them. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[64];
    size_t length = strlen(b);

    if (length >= G_N_ELEMENTS(row) || strlen(a) >= G_N_ELEMENTS(row))
        return 64;
    for (size_t j = 0; j <= length; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        unsigned diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= length; j++) {
            unsigned up = row[j];
            unsigned best = MIN(up, row[j - 1]) + 1;

            row[j] = MIN(best, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = up;
        }
    }
    return row[length];
}

static const char *nearest(const char *text, const char *const *keys)
{
    const char *best = NULL;
    unsigned least = 3;

    for (; *keys; keys++) {
        unsigned here = distance(text, *keys);

        if (here < least) {
            least = here;
            best = *keys;
        }
    }
    return best;
}

bool schema_check_keys(const char *file, const struct yaml_node *map, const char *const *keys,
                       const char *what, GError **error)
{
    for (guint i = 0; i < map->keys->len; i++) {
        const struct yaml_node *key = map->keys->pdata[i];
        g_autofree char *known = NULL;
        const char *meant;

        if (g_strv_contains(keys, key->text))
            continue;
        meant = nearest(key->text, keys);
        known = g_strjoinv(", ", (char **)keys);
        if (meant)
            return schema_error(file, key, error, "unknown key \"%s\" in %s; did you mean \"%s\"?",
                                key->text, what, meant);
        return schema_error(file, key, error, "unknown key \"%s\" in %s; it may have: %s",
                            key->text, what, known);
    }
    return true;
}

bool schema_text(const char *file, const struct yaml_node *map, const char *key, char **text,
                 GError **error)
{
    const struct yaml_node *node = yaml_node_get(map, key);

    if (!node)
        return true;
    if (node->kind != YAML_SCALAR || node->is_null)
        return schema_error(file, node, error, "\"%s\" must be a text, not %s", key,
                            yaml_node_kind_name(node));
    g_free(*text);
    *text = g_strdup(node->text);
    return true;
}

bool schema_bool(const char *file, const struct yaml_node *map, const char *key, bool *value,
                 GError **error)
{
    const struct yaml_node *node = yaml_node_get(map, key);

    if (!node)
        return true;
    if (node->kind == YAML_SCALAR && !g_ascii_strcasecmp(node->text, "true"))
        *value = true;
    else if (node->kind == YAML_SCALAR && !g_ascii_strcasecmp(node->text, "false"))
        *value = false;
    else
        return schema_error(file, node, error, "\"%s\" must be true or false", key);
    return true;
}

bool schema_texts(const char *file, const struct yaml_node *map, const char *key,
                  bool one_is_enough, char ***texts, GError **error)
{
    const struct yaml_node *node = yaml_node_get(map, key);
    g_autoptr(GPtrArray) found = g_ptr_array_new_with_free_func(g_free);

    if (!node)
        return true;
    if (node->kind == YAML_SCALAR && one_is_enough && !node->is_null) {
        g_ptr_array_add(found, g_strdup(node->text));
    } else if (node->kind != YAML_LIST) {
        return schema_error(file, node, error, "\"%s\" must be a list of texts%s, not %s", key,
                            one_is_enough ? " or a text" : "", yaml_node_kind_name(node));
    }
    for (guint i = 0; node->kind == YAML_LIST && i < node->items->len; i++) {
        const struct yaml_node *item = node->items->pdata[i];

        if (item->kind != YAML_SCALAR || item->is_null)
            return schema_error(file, item, error, "each of \"%s\" must be a text, not %s", key,
                                yaml_node_kind_name(item));
        g_ptr_array_add(found, g_strdup(item->text));
    }
    g_ptr_array_add(found, NULL);
    *texts = (char **)g_ptr_array_free(g_steal_pointer(&found), FALSE);
    return true;
}
