#include "config/yaml_doc.h"

#include "config/error.h"

#include <string.h>
#include <yaml.h>

#define TEXT_MAX  (1024 * 1024)
#define NODES_MAX 100000
#define DEPTH_MAX 64

struct reading {
    const char *name;
    yaml_parser_t parser;
    unsigned nodes, depth;
};

void yaml_node_free(struct yaml_node *node)
{
    if (!node)
        return;
    g_clear_pointer(&node->items, g_ptr_array_unref);
    g_clear_pointer(&node->keys, g_ptr_array_unref);
    g_free(node->text);
    g_free(node);
}

static bool fail(struct reading *r, yaml_mark_t mark, GError **error, const char *what)
{
    return error_set(error, EINVAL, "%s:%zu:%zu: %s", r->name, mark.line + 1, mark.column + 1,
                     what);
}

static bool next_event(struct reading *r, yaml_event_t *event, GError **error)
{
    if (yaml_parser_parse(&r->parser, event))
        return true;
    if (r->parser.problem && r->parser.context) {
        g_autofree char *what = g_strdup_printf("%s %s", r->parser.problem, r->parser.context);

        return fail(r, r->parser.problem_mark, error, what);
    }
    return fail(r, r->parser.problem_mark, error,
                r->parser.problem ? r->parser.problem : "not YAML");
}

static struct yaml_node *node_new(const yaml_event_t *event, enum yaml_kind kind)
{
    struct yaml_node *node = g_new0(struct yaml_node, 1);

    node->kind = kind;
    node->line = event->start_mark.line + 1;
    node->column = event->start_mark.column + 1;
    if (kind != YAML_SCALAR)
        node->items = g_ptr_array_new_with_free_func((GDestroyNotify)yaml_node_free);
    if (kind == YAML_MAP)
        node->keys = g_ptr_array_new_with_free_func((GDestroyNotify)yaml_node_free);
    return node;
}

static struct yaml_node *read_node(struct reading *r, yaml_event_t *event, GError **error);

static struct yaml_node *read_scalar(struct reading *r, yaml_event_t *event, GError **error)
{
    const char *text = (const char *)event->data.scalar.value;
    struct yaml_node *node;

    if (strlen(text) != event->data.scalar.length) {
        fail(r, event->start_mark, error, "a zero byte in a text");
        return NULL;
    }
    node = node_new(event, YAML_SCALAR);
    node->text = g_strdup(text);
    node->is_null = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
                    (!*text || !strcmp(text, "~") || !strcmp(text, "null"));
    return node;
}

static bool add_key(struct reading *r, struct yaml_node *map, struct yaml_node *key,
                    yaml_mark_t mark, GError **error)
{
    g_autofree char *what = NULL;

    if (key->kind != YAML_SCALAR)
        what = g_strdup("a key must be a simple text");
    else if (yaml_node_get(map, key->text))
        what = g_strdup_printf("\"%s\" is given twice", key->text);
    g_ptr_array_add(map->keys, key);
    return what ? fail(r, mark, error, what) : true;
}

/* The children of a list or map, up to its end event. */
static bool read_children(struct reading *r, struct yaml_node *node, GError **error)
{
    bool want_key = node->kind == YAML_MAP;

    for (;;) {
        yaml_event_t event;
        struct yaml_node *child;
        bool ok;

        if (!next_event(r, &event, error))
            return false;
        if (event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return true;
        }
        child = read_node(r, &event, error);
        ok = child != NULL;
        if (ok && node->kind == YAML_MAP && want_key)
            ok = add_key(r, node, child, event.start_mark, error);
        else if (ok)
            g_ptr_array_add(node->items, child);
        yaml_event_delete(&event);
        if (!ok)
            return false;
        want_key = node->kind == YAML_MAP && !want_key;
    }
}

static struct yaml_node *read_node(struct reading *r, yaml_event_t *event, GError **error)
{
    struct yaml_node *node;

    if (++r->nodes > NODES_MAX || r->depth >= DEPTH_MAX) {
        fail(r, event->start_mark, error, "too many or too deeply nested values");
        return NULL;
    }
    if (event->type == YAML_SCALAR_EVENT)
        return read_scalar(r, event, error);
    if (event->type == YAML_ALIAS_EVENT) {
        fail(r, event->start_mark, error, "aliases (*name) are not supported; write the value out");
        return NULL;
    }
    node = node_new(event, event->type == YAML_MAPPING_START_EVENT ? YAML_MAP : YAML_LIST);
    r->depth++;
    if (!read_children(r, node, error)) {
        yaml_node_free(node);
        return NULL;
    }
    r->depth--;
    return node;
}

/* Skips to the first node of the first document; an empty stream gives an empty map. */
static struct yaml_node *read_document(struct reading *r, GError **error)
{
    struct yaml_node *node = NULL;

    for (;;) {
        yaml_event_t event;
        yaml_event_type_t type;

        if (!next_event(r, &event, error)) {
            yaml_node_free(node);
            return NULL;
        }
        type = event.type;
        if (type == YAML_STREAM_END_EVENT) {
            if (!node)
                node = node_new(&event, YAML_MAP);
            yaml_event_delete(&event);
            return node;
        }
        if (node && type == YAML_DOCUMENT_START_EVENT) {
            fail(r, event.start_mark, error, "more than one document in a file");
            yaml_event_delete(&event);
            yaml_node_free(node);
            return NULL;
        }
        if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
            type != YAML_DOCUMENT_END_EVENT) {
            node = read_node(r, &event, error);
            if (!node) {
                yaml_event_delete(&event);
                return NULL;
            }
        }
        yaml_event_delete(&event);
    }
}

struct yaml_node *yaml_doc_parse(const char *name, const char *text, size_t size, GError **error)
{
    struct reading r = {.name = name};
    struct yaml_node *node;

    if (size > TEXT_MAX) {
        error_set(error, EFBIG, "%s: more than 1 MiB", name);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        error_set(error, ENOMEM, "%s: no memory", name);
        return NULL;
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, size);
    node = read_document(&r, error);
    yaml_parser_delete(&r.parser);
    if (node && node->kind == YAML_SCALAR && node->is_null) {
        node->kind = YAML_MAP;
        node->items = g_ptr_array_new_with_free_func((GDestroyNotify)yaml_node_free);
        node->keys = g_ptr_array_new_with_free_func((GDestroyNotify)yaml_node_free);
    }
    return node;
}

const struct yaml_node *yaml_node_get(const struct yaml_node *map, const char *key)
{
    for (guint i = 0; map->kind == YAML_MAP && i < map->keys->len; i++) {
        const struct yaml_node *found = map->keys->pdata[i];

        if (found->kind == YAML_SCALAR && strcmp(found->text, key) == 0)
            return i < map->items->len ? map->items->pdata[i] : found;
    }
    return NULL;
}

const char *yaml_node_kind_name(const struct yaml_node *node)
{
    if (node->kind == YAML_LIST)
        return "a list";
    if (node->kind == YAML_MAP)
        return "a map";
    return node->is_null ? "nothing" : "a text";
}
