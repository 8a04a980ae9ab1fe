#include "runner/job/mount_status.h"
#include <jansson.h>
#include <string.h>

static char *join_paths(json_t *unsaved)
{
    g_autoptr(GString) text = g_string_new(NULL);
    json_t *path;
    size_t i;

    json_array_foreach(unsaved, i, path)
    {
        if (json_is_string(path))
            g_string_append_printf(text, "%s%s", text->len ? ", " : "", json_string_value(path));
        if (text->len > 500) {
            g_string_append(text, " …");
            break;
        }
    }
    return text->len ? g_strdup(text->str) : NULL;
}

void mount_status_read(const char *path, struct mount_status *status)
{
    json_t *root = json_load_file(path, 0, NULL);
    const char *state = json_string_value(json_object_get(root, "state"));

    status->ready = state && strcmp(state, "ready") == 0;
    status->error = g_strdup(json_string_value(json_object_get(root, "error")));
    status->unsaved = join_paths(json_object_get(root, "unsaved"));
    json_decref(root);
}

void mount_status_clear(struct mount_status *status)
{
    g_clear_pointer(&status->error, g_free);
    g_clear_pointer(&status->unsaved, g_free);
}
