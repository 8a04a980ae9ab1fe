#include "config/workflow_keys.h"

#include "config/schema.h"

#include <string.h>

enum { BASH = 1, DOCKER = 2, CODE = 4, LAB = 8, NOTEBOOK = 16 };
enum { IDE = CODE | LAB | NOTEBOOK, ALL = BASH | DOCKER | IDE };

/* In the order of the bits. */
static const char *const providers[] = {"bash", "docker", "code", "lab", "notebook", NULL};

static const struct {
    const char *name;
    unsigned providers;
} keys[] = {
    {"name", ALL},          {"provider", ALL},
    {"help", ALL},          {"deps", ALL},
    {"env", ALL},           {"artifacts", ALL},
    {"cache", ALL},         {"resources", ALL},
    {"ports", ALL},         {"working_dir", ALL},
    {"ssh", BASH | IDE},    {"commands", BASH | DOCKER},
    {"image", DOCKER},      {"entrypoint", DOCKER},
    {"home_dir", DOCKER},   {"registry_auth", DOCKER},
    {"python", BASH | IDE}, {"setup", IDE},
    {"version", IDE},       {"retry", ALL},
    {"nodes", BASH},        {"stop_signal", BASH | DOCKER},
};

const char *const *workflow_providers(void)
{
    return providers;
}

static bool check_spelling(const char *file, const struct yaml_node *map, const char *what,
                           GError **error)
{
    const char *names[G_N_ELEMENTS(keys) + 1] = {NULL};

    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++)
        names[i] = keys[i].name;
    return schema_check_keys(file, map, names, what, error);
}

static char *provider_names(unsigned mask)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (unsigned i = 0; providers[i]; i++)
        if (mask & 1U << i)
            g_string_append_printf(text, "%s%s", text->len ? ", " : "", providers[i]);
    return g_string_free(g_steal_pointer(&text), FALSE);
}

/* The provider's bit; 0 and *ERROR when there is none. */
static unsigned find_provider(const char *file, const struct yaml_node *map, const char *what,
                              GError **error)
{
    const struct yaml_node *node = yaml_node_get(map, "provider");
    g_autofree char *known = provider_names(ALL);

    if (!node) {
        schema_error(file, map, error, "%s needs \"provider\" (one of %s)", what, known);
        return 0;
    }
    for (unsigned i = 0; node->kind == YAML_SCALAR && providers[i]; i++)
        if (strcmp(providers[i], node->text) == 0)
            return 1U << i;
    schema_error(file, node, error, "unknown provider \"%s\"; there are: %s",
                 node->kind == YAML_SCALAR ? node->text : yaml_node_kind_name(node), known);
    return 0;
}

bool workflow_check_keys(const char *file, const struct yaml_node *map, const char *what,
                         GError **error)
{
    unsigned provider = 0;

    if (!check_spelling(file, map, what, error))
        return false;
    provider = find_provider(file, map, what, error);
    for (unsigned i = 0; provider && i < map->keys->len; i++) {
        const struct yaml_node *key = map->keys->pdata[i];

        for (unsigned k = 0; k < G_N_ELEMENTS(keys); k++)
            if (strcmp(keys[k].name, key->text) == 0 && !(keys[k].providers & provider)) {
                g_autofree char *whose = provider_names(keys[k].providers);
                g_autofree char *here = provider_names(provider);

                return schema_error(file, key, error,
                                    "\"%s\" in %s is a key of provider %s, not of %s", key->text,
                                    what, whose, here);
            }
    }
    return provider != 0;
}
