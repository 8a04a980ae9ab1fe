#include "config/paths.h"

#include <glib.h>
#include <pwd.h>
#include <unistd.h>

char *dstack_home(void)
{
    const char *home = g_getenv("DSTACK_HOME"), *user_home = g_get_home_dir();
    const struct passwd *user = NULL;

    if (home && *home)
        return g_canonicalize_filename(home, NULL);
    if (!g_path_is_absolute(user_home)) /* HOME is set, to nothing */
        user = getpwuid(geteuid());
    return g_build_filename(user ? user->pw_dir : user_home, ".dstack", NULL);
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
