#include "config/artifact_path.h"

#include <glib.h>
#include <string.h>

enum { PATH_MAX_BYTES = 1000 }; /* an object's key has 1024 */

char *artifact_path_normalise(const char *path)
{
    g_auto(GStrv) segments = g_strsplit(path, "/", -1);
    g_autoptr(GPtrArray) kept = g_ptr_array_new();
    g_autofree char *joined = NULL;
    bool has_tilde;

    for (char **segment = segments; *segment; segment++) {
        if (strcmp(*segment, "..") == 0)
            return NULL;
        if (**segment && strcmp(*segment, ".") != 0)
            g_ptr_array_add(kept, *segment);
    }
    if (kept->len == 0 || strlen(path) > PATH_MAX_BYTES || !g_utf8_validate(path, -1, NULL))
        return NULL;
    /* "./~/x" is not "~/x", and there is no other way to say it. */
    has_tilde = *path != '/' && strcmp(kept->pdata[0], "~") == 0;
    if (has_tilde && (kept->len == 1 || kept->pdata[0] != segments[0]))
        return NULL;
    g_ptr_array_add(kept, NULL);
    joined = g_strjoinv("/", (char **)kept->pdata);
    return *path == '/' ? g_strconcat("/", joined, NULL) : g_steal_pointer(&joined);
}

/* Where PATH is below a run's artifacts: there "x", "~/x" and "/x" are one. */
static const char *stored_path(const char *path)
{
    if (g_str_has_prefix(path, "~/"))
        return path + 2;
    return *path == '/' ? path + 1 : path;
}

static bool is_within(const char *path, const char *top)
{
    size_t length = strlen(top);

    return strncmp(path, top, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

bool artifact_paths_clash(const char *one, const char *two)
{
    const char *a = stored_path(one), *b = stored_path(two);

    if (a - one == b - two)
        return strcmp(a, b) == 0;
    return is_within(a, b) || is_within(b, a);
}
