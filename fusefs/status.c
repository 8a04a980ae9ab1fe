#include "fusefs/status.h"

#include "config/log.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

void status_write(const char *path, const char *state, const char *mountpoint, const char *error,
                  const GPtrArray *unsaved)
{
    g_autoptr(GError) why = NULL;
    json_t *document, *names;
    char *text;

    if (!path)
        return;
    names = json_array();
    for (guint i = 0; unsaved && i < unsaved->len; i++) {
        g_autofree char *name = g_utf8_make_valid(unsaved->pdata[i], -1);

        json_array_append_new(names, json_string(name));
    }
    document = json_pack("{s:s, s:i, s:s, s:s?, s:o}", "state", state, "pid", (int)getpid(),
                         "mountpoint", mountpoint, "error", error, "unsaved", names);
    text = document ? json_dumps(document, JSON_COMPACT) : NULL;
    json_decref(document);
    if (!text || !g_file_set_contents(path, text, -1, &why))
        log_error("status file %s: %s", path, why ? why->message : "cannot be made");
    free(text);
}
