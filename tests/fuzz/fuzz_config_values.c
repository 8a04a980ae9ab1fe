/* Values that come from outside without a document around them: sizes, durations, ports, paths,
 * names and URLs of repositories. */
#include "config/artifact_path.h"
#include "config/repo.h"
#include "config/resources.h"
#include "config/units.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* It stands in keys of the store and in names of files. */
static void check_id(char *id)
{
    if (id && (!*id || *id == '.' || strlen(id) > 100 || strchr(id, '/')))
        abort();
    g_free(id);
}

static void check_path(const char *text)
{
    g_autofree char *path = artifact_path_normalise(text);
    g_autofree char *again = path ? artifact_path_normalise(path) : NULL;

    if (path && (strcmp(path, again) != 0 || !artifact_paths_clash(path, path)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    unsigned port = 0, local = 0;
    uint64_t bytes = 0;
    int64_t ms = 0;

    if (size_parse(text, &bytes))
        g_free(size_format(bytes));
    if (duration_parse(text, &ms)) {
        if (ms < 0)
            abort();
        g_free(ago_format(0, ms));
    }
    if (port_parse(text, &port, &local) && (port > 65535 || local > 65535))
        abort();
    check_id(repo_id_of_name(text));
    check_id(repo_id_of_url(text));
    check_path(text);
    return 0;
}
