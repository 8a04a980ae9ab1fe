/* A YAML document as a tree that knows where each node stood. The one file that knows libyaml.
 *
 * names:   libyaml exports yaml_free and the like: ours begin with yaml_doc_ and yaml_node_.
 * shape:   scalars, lists and maps (keys are scalars, in order, no duplicates). Aliases and anchors
 *          are refused: nothing here needs them, and they are how small files become large trees.
 * errors:  EINVAL, "FILE:LINE:COLUMN: what is wrong". Lines and columns count from 1.
 * limits:  1 MiB of text, 100,000 nodes, 64 levels.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml_node {
    enum yaml_kind kind;
    unsigned line, column;
    char *text;       /* scalar */
    bool is_null;     /* a plain scalar that is empty, ~ or null */
    GPtrArray *items; /* list: struct yaml_node*; map: the values */
    GPtrArray *keys;  /* map: struct yaml_node*, as many as items */
};

/* NAME is for messages. An empty document is a map without keys. */
struct yaml_node *yaml_doc_parse(const char *name, const char *text, size_t size, GError **error);
void yaml_node_free(struct yaml_node *node); /* takes NULL */
typedef struct yaml_node YamlNode;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(YamlNode, yaml_node_free)

const struct yaml_node *yaml_node_get(const struct yaml_node *map,
                                      const char *key);        /* NULL: not there */
const char *yaml_node_kind_name(const struct yaml_node *node); /* "a list", … */
