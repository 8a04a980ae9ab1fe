#include "config/paths.h"

#include <glib.h>

char *dstack_home(void)
{
    const char *home = g_getenv("DSTACK_HOME");

    if (home && *home)
        return g_canonicalize_filename(home, NULL);
    return g_build_filename(g_get_home_dir(), ".dstack", NULL);
}

char *dstack_home_path(const char *name)
{
    g_autofree char *home = dstack_home();

    return g_build_filename(home, name, NULL);
}

char *file_url(const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, "%", -1);
    g_autofree char *escaped = g_strjoinv("%25", parts);

    return g_strconcat("file://", escaped, NULL);
}
