/* bash: the commands, one after the other, in one `bash -e`. */
#include "config/error.h"
#include "runner/provider.h"
#include "runner/variables.h"

/* Everything the script says; NULL and *ERROR for a variable that there is not. */
static char *script_text(const struct run *run, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (char **at = run->commands; at && *at; at++) {
        g_autofree char *command = variables_replace(*at, run->name, run->args, NULL, error);

        if (!command)
            return NULL;
        g_string_append_printf(text, "%s\n", command);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static char **prepare(const struct run *run, GError **error)
{
    g_autofree char *script = g_build_filename(run->owner.work_dir, "script", NULL);
    g_autofree char *text = script_text(run, error);
    g_autofree char *bash = g_find_program_in_path("bash");
    char *argv[] = {bash, "-e", script, NULL};

    if (!text)
        return NULL;
    if (!bash)
        return error_set(error, ENOENT, "there is no bash on this machine: install it"), NULL;
    if (!g_file_set_contents(script, text, -1, error))
        return NULL;
    return g_strdupv(argv);
}

const struct provider provider_bash = {"bash", prepare};
