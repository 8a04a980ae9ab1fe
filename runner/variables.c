#include "runner/variables.h"
#include "config/error.h"
#include <string.h>

#define SAFE "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-"

static void append_args(GString *to, char **args)
{
    for (char **arg = args; arg && *arg; arg++) {
        g_autofree char *quoted =
            **arg && !(*arg)[strspn(*arg, SAFE)] ? g_strdup(*arg) : g_shell_quote(*arg);

        g_string_append_printf(to, "%s%s", arg == args ? "" : " ", quoted);
    }
}

/* NAME, as it stands between the braces, replaced at the end of TO. */
static bool append_variable(GString *to, const char *name, const char *run_name, char **args,
                            bool *uses_args, GError **error)
{
    if (strcmp(name, "run.name") == 0) {
        g_string_append(to, run_name);
    } else if (strcmp(name, "run.args") == 0) {
        append_args(to, args);
        if (uses_args)
            *uses_args = true;
    } else {
        return error_set(error, EINVAL,
                         "unknown variable \"%s\"; there are run.name and run.args, and $${{ is a "
                         "plain ${{",
                         name);
    }
    return true;
}

char *variables_replace(const char *text, const char *run_name, char **args, bool *uses_args,
                        GError **error)
{
    g_autoptr(GString) to = g_string_new(NULL);

    while (*text) {
        g_autofree char *name = NULL;
        const char *end;

        if (strncmp(text, "${{", 3) != 0) {
            g_string_append_c(to, *text);
            text += text[0] == '$' && text[1] == '$' ? 2 : 1;
            continue;
        }
        end = strstr(text, "}}");
        if (!end)
            return error_set(error, EINVAL, "\"%.20s\" has no }}", text), NULL;
        name = g_strstrip(g_strndup(text + 3, (gsize)(end - text - 3)));
        if (!append_variable(to, name, run_name, args, uses_args, error))
            return NULL;
        text = end + 2;
    }
    return g_string_free(g_steal_pointer(&to), FALSE);
}
