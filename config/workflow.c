#include "config/workflow.h"

#include "config/artifact_path.h"
#include "config/error.h"
#include "config/schema.h"
#include "config/workflow_keys.h"
#include "config/workflow_values.h"

#include <string.h>

static const char *const artifact_keys[] = {"path", "mount", NULL};
static const char *const dep_keys[] = {"workflow", "tag", "run", "mount", NULL};

static void artifact_free(void *data)
{
    g_free(((struct workflow_artifact *)data)->path);
    g_free(data);
}

static void dep_free(void *data)
{
    struct workflow_dep *dep = data;

    g_free(dep->workflow);
    g_free(dep->tag);
    g_free(dep->run);
    g_free(dep);
}

void workflow_free(struct workflow *workflow)
{
    if (!workflow)
        return;
    g_free(workflow->name);
    g_free(workflow->provider);
    g_free(workflow->help);
    g_free(workflow->working_dir);
    g_free(workflow->python);
    g_free(workflow->image);
    g_free(workflow->home_dir);
    g_free(workflow->version);
    g_free(workflow->registry_username);
    g_free(workflow->registry_password);
    g_free(workflow->place);
    g_strfreev(workflow->commands);
    g_strfreev(workflow->setup);
    g_strfreev(workflow->env);
    g_strfreev(workflow->ports);
    g_strfreev(workflow->cache);
    g_strfreev(workflow->entrypoint);
    resources_clear(&workflow->resources);
    g_ptr_array_unref(workflow->artifacts);
    g_ptr_array_unref(workflow->deps);
    g_free(workflow);
}

struct workflow *workflow_new(const char *name, const char *provider)
{
    struct workflow *workflow = g_new0(struct workflow, 1);

    workflow->name = g_strdup(name);
    workflow->provider = g_strdup(provider);
    workflow->artifacts = g_ptr_array_new_with_free_func(artifact_free);
    workflow->deps = g_ptr_array_new_with_free_func(dep_free);
    return workflow;
}

bool workflow_add_artifact(struct workflow *workflow, const char *path, bool mount,
                           const char *place, GError **error)
{
    struct workflow_artifact *artifact;
    g_autofree char *clean = artifact_path_normalise(path);

    if (!clean)
        return error_set(error, EINVAL,
                         "%s: artifact path \"%s\" is refused: name a directory inside the work "
                         "directory, or an absolute one other than /",
                         place, path);
    for (guint i = 0; i < workflow->artifacts->len; i++) {
        artifact = workflow->artifacts->pdata[i];
        if (artifact_paths_clash(clean, artifact->path))
            return error_set(error, EINVAL,
                             "%s: artifact path \"%s\" is refused: its files would be stored in "
                             "the same place as those of \"%s\"; rename one",
                             place, path, artifact->path);
    }
    artifact = g_new0(struct workflow_artifact, 1);
    artifact->path = g_steal_pointer(&clean);
    artifact->mount = mount;
    g_ptr_array_add(workflow->artifacts, artifact);
    return true;
}

void workflow_add_dep(struct workflow *workflow, const char *of_workflow, const char *tag)
{
    struct workflow_dep *dep = g_new0(struct workflow_dep, 1);

    dep->workflow = g_strdup(of_workflow);
    dep->tag = g_strdup(tag);
    g_ptr_array_add(workflow->deps, dep);
}

static bool read_artifact(const char *file, const struct yaml_node *node, struct workflow *workflow,
                          GError **error)
{
    g_autofree char *path = NULL;
    g_autofree char *place = g_strdup_printf("%s:%u:%u", file, node->line, node->column);
    bool mount = false;

    if (node->kind == YAML_SCALAR)
        return workflow_add_artifact(workflow, node->text, false, place, error);
    if (node->kind != YAML_MAP)
        return schema_error(file, node, error, "an artifact is a map with \"path\"");
    if (!schema_check_keys(file, node, artifact_keys, "an artifact", error) ||
        !schema_text(file, node, "path", &path, error) ||
        !schema_bool(file, node, "mount", &mount, error))
        return false;
    if (!path)
        return schema_error(file, node, error, "an artifact needs \"path\"");
    return workflow_add_artifact(workflow, path, mount, place, error);
}

static bool read_dep(const char *file, const struct yaml_node *node, struct workflow *workflow,
                     GError **error)
{
    struct workflow_dep *dep = g_new0(struct workflow_dep, 1);

    g_ptr_array_add(workflow->deps, dep);
    if (node->kind != YAML_MAP)
        return schema_error(file, node, error,
                            "a dep is a map with \"workflow\", \"tag\" or \"run\"");
    if (!schema_check_keys(file, node, dep_keys, "a dep", error) ||
        !schema_text(file, node, "workflow", &dep->workflow, error) ||
        !schema_text(file, node, "tag", &dep->tag, error) ||
        !schema_text(file, node, "run", &dep->run, error) ||
        !schema_bool(file, node, "mount", &dep->mount, error))
        return false;
    if (!!dep->workflow + !!dep->tag + !!dep->run != 1)
        return schema_error(file, node, error,
                            "a dep has exactly one of \"workflow\", \"tag\" and \"run\"");
    return true;
}

typedef bool read_item(const char *file, const struct yaml_node *node, struct workflow *workflow,
                       GError **error);

static bool read_list(const char *file, const struct yaml_node *map, const char *key,
                      read_item *read, struct workflow *workflow, GError **error)
{
    const struct yaml_node *list = yaml_node_get(map, key);

    if (!list)
        return true;
    if (list->kind != YAML_LIST)
        return schema_error(file, list, error, "\"%s\" must be a list, not %s", key,
                            yaml_node_kind_name(list));
    for (guint i = 0; i < list->items->len; i++)
        if (!read(file, list->items->pdata[i], workflow, error))
            return false;
    return true;
}

/* What its provider cannot do without. */
static bool check_needs(const char *file, const struct yaml_node *map,
                        const struct workflow *workflow, GError **error)
{
    if (strcmp(workflow->provider, "bash") == 0 && (!workflow->commands || !*workflow->commands))
        return schema_error(file, map, error,
                            "workflow \"%s\" needs \"commands\" (a list, or a text of lines)",
                            workflow->name);
    if (strcmp(workflow->provider, "docker") == 0 && !workflow->image)
        return schema_error(file, map, error, "workflow \"%s\" needs \"image\"", workflow->name);
    return true;
}

static bool check_name(const char *file, const struct yaml_node *map,
                       const struct workflow *workflow, GError **error)
{
    const char *c = workflow->name;

    if (!c)
        return schema_error(file, map, error, "a workflow needs \"name\"");
    for (; *c && (g_ascii_isalnum(*c) || strchr("._-", *c)); c++)
        ;
    if (*c || !*workflow->name || *workflow->name == '.' || strlen(workflow->name) > 100)
        return schema_error(file, yaml_node_get(map, "name"), error,
                            "workflow name \"%s\": use letters, digits, '.', '_' and '-'",
                            workflow->name);
    return true;
}

static bool read_workflow(const char *file, const struct yaml_node *map, GPtrArray *list,
                          GError **error)
{
    g_autoptr(Workflow) workflow = workflow_new(NULL, NULL);
    g_autofree char *what = NULL;

    if (map->kind != YAML_MAP)
        return schema_error(file, map, error, "a workflow is a map with \"name\"");
    workflow->place = g_strdup_printf("%s:%u", file, map->line);
    if (!schema_text(file, map, "name", &workflow->name, error))
        return false;
    what = workflow->name ? g_strdup_printf("workflow \"%s\"", workflow->name)
                          : g_strdup("a workflow");
    if (!check_name(file, map, workflow, error) || !workflow_check_keys(file, map, what, error) ||
        !schema_text(file, map, "provider", &workflow->provider, error) ||
        !schema_text(file, map, "help", &workflow->help, error) ||
        !workflow_read_values(file, map, workflow, error) ||
        !read_list(file, map, "artifacts", read_artifact, workflow, error) ||
        !read_list(file, map, "deps", read_dep, workflow, error) ||
        !check_needs(file, map, workflow, error))
        return false;
    for (guint i = 0; i < list->len; i++) {
        const struct workflow *other = list->pdata[i];

        if (strcmp(other->name, workflow->name) == 0)
            return schema_error(file, map, error, "workflow \"%s\" is also at %s", workflow->name,
                                other->place);
    }
    g_ptr_array_add(list, g_steal_pointer(&workflow));
    return true;
}

bool workflows_parse(const char *name, const char *text, size_t size, GPtrArray *list,
                     GError **error)
{
    static const char *const top_keys[] = {"workflows", NULL};
    g_autoptr(YamlNode) top = yaml_doc_parse(name, text, size, error);
    const struct yaml_node *workflows;

    if (!top)
        return false;
    if (top->kind != YAML_MAP)
        return schema_error(name, top, error, "expected \"workflows:\" and a list");
    if (!schema_check_keys(name, top, top_keys, "the file", error))
        return false;
    workflows = yaml_node_get(top, "workflows");
    if (!workflows)
        return true;
    if (workflows->kind != YAML_LIST)
        return schema_error(name, workflows, error, "\"workflows\" must be a list, not %s",
                            yaml_node_kind_name(workflows));
    for (guint i = 0; i < workflows->items->len; i++)
        if (!read_workflow(name, workflows->items->pdata[i], list, error))
            return false;
    return true;
}

static bool load_file(const char *top, const char *name, GPtrArray *list, GError **error)
{
    g_autofree char *path = g_build_filename(top, name, NULL);
    g_autofree char *text = NULL;
    g_autoptr(GError) why = NULL;
    gsize size;

    if (!g_file_get_contents(path, &text, &size, &why))
        return error_set(error, EIO, "%s", why->message);
    return workflows_parse(name, text, size, list, error);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

GPtrArray *workflows_load(const char *top, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)workflow_free);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *directory = g_build_filename(top, ".dstack", "workflows", NULL);
    g_autofree char *single = g_build_filename(top, ".dstack", "workflows.yaml", NULL);
    g_autoptr(GError) why = NULL;
    g_autoptr(GDir) dir = g_dir_open(directory, 0, &why);
    const char *name;

    if (!dir && !g_error_matches(why, G_FILE_ERROR, G_FILE_ERROR_NOENT)) {
        error_set(error, EIO, "%s", why->message);
        return NULL;
    }
    if (g_file_test(single, G_FILE_TEST_EXISTS))
        g_ptr_array_add(names, g_strdup(".dstack/workflows.yaml"));
    while (dir && (name = g_dir_read_name(dir)))
        if (g_str_has_suffix(name, ".yaml") || g_str_has_suffix(name, ".yml"))
            g_ptr_array_add(names, g_build_filename(".dstack/workflows", name, NULL));
    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++)
        if (!load_file(top, names->pdata[i], list, error))
            return NULL;
    return g_steal_pointer(&list);
}

struct workflow *workflows_find(GPtrArray *list, const char *name, GError **error)
{
    g_autoptr(GString) known = g_string_new(NULL);

    for (guint i = 0; i < list->len; i++) {
        struct workflow *workflow = list->pdata[i];

        if (strcmp(workflow->name, name) == 0)
            return workflow;
        g_string_append_printf(known, "%s%s", known->len ? ", " : "", workflow->name);
    }
    if (known->len)
        error_set(error, ENOENT, "no workflow \"%s\"; there are: %s", name, known->str);
    else
        error_set(error, ENOENT,
                  "no workflow \"%s\": no workflows are defined; write .dstack/workflows.yaml",
                  name);
    return NULL;
}
