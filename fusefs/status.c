#include "fusefs/status.h"

#include "config/log.h"
#include "fusefs/fs.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

static json_t *list_of(const GPtrArray *names)
{
    json_t *list = json_array();

    for (guint i = 0; names && i < names->len; i++) {
        g_autofree char *name = g_utf8_make_valid(names->pdata[i], -1);

        json_array_append_new(list, json_string(name));
    }
    return list;
}

void status_write(const char *path, const char *state, const char *mountpoint,
                  const struct fs_recovered *recovered, const char *error, const GPtrArray *unsaved)
{
    static const struct fs_recovered none;
    const struct fs_recovered *r = recovered ? recovered : &none;
    g_autoptr(GError) why = NULL;
    json_t *document;
    char *text;

    if (!path)
        return;
    document =
        json_pack("{s:s, s:i, s:s, s:s?, s:o, s:{s:I, s:I, s:o, s:o}}", "state", state, "pid",
                  (int)getpid(), "mountpoint", mountpoint, "error", error, "unsaved",
                  list_of(unsaved), "recovered", "files", (json_int_t)r->files, "bytes",
                  (json_int_t)r->bytes, "aside", list_of(r->aside), "lost", list_of(r->lost));
    text = document ? json_dumps(document, JSON_COMPACT) : NULL;
    json_decref(document);
    if (!text || !g_file_set_contents(path, text, -1, &why))
        log_error("status file %s: %s", path, why ? why->message : "cannot be made");
    free(text);
}
