/* bash: the commands, one after the other, in one `bash -e`. */
#include "config/error.h"
#include "runner/provider.h"

static char **prepare(const struct run *run, GError **error)
{
    g_autofree char *script = g_build_filename(run->owner.work_dir, "script", NULL);
    g_autofree char *commands = g_strjoinv("\n", run->commands);
    g_autofree char *text = g_strconcat(commands, "\n", NULL);
    g_autofree char *bash = g_find_program_in_path("bash");
    char *argv[] = {bash, "-e", script, NULL};

    if (!bash)
        return error_set(error, ENOENT, "there is no bash on this machine: install it"), NULL;
    if (!g_file_set_contents(script, text, -1, error))
        return NULL;
    return g_strdupv(argv);
}

const struct provider provider_bash = {"bash", prepare};
