#include "runner/cli/cli.h"

const struct command *const cli_commands[] = {
    &cmd_run,     &cmd_ps,     &cmd_logs,       &cmd_stop, &cmd_ls,    &cmd_cp,
    &cmd_tags,    &cmd_push,   &cmd_pull,       &cmd_rm,   &cmd_prune, &cmd_init,
    &cmd_secrets, &cmd_config, &cmd_completion, NULL,
};

const struct command *cli_command_find(const char *name)
{
    for (const struct command *const *at = cli_commands; *at; at++)
        if (g_str_equal((*at)->name, name))
            return *at;
    return NULL;
}
