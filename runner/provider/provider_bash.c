/* bash: the commands, one after the other, in one `bash -e`. */
#include "config/error.h"
#include "runner/provider/provider.h"
#include "runner/provider/python.h"

static char *find_bash(GError **error)
{
    char *bash = g_find_program_in_path("bash");

    if (!bash)
        error_set(error, ENOENT, "there is no bash on this machine: install it");
    return bash;
}

static bool check(const struct run *run, GError **error)
{
    g_autofree char *bash = find_bash(error);

    return bash && python_check(run->python, error);
}

static char **prepare(struct launch *launch, GError **error)
{
    g_autofree char *bash = find_bash(error);
    g_autofree char *text = bash ? launch_script(launch, launch->run->commands, error) : NULL;
    g_autofree char *script = text ? launch_write(launch, "script", text, error) : NULL;
    char *argv[] = {bash, "-e", script, NULL};

    return script && python_prepare(launch, error) ? g_strdupv(argv) : NULL;
}

const struct provider provider_bash = {
    .name = "bash", .check = check, .prepare = prepare, .clean = provider_clean_nothing};
