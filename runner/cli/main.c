/* dstack: runs workflows, here or on a remote, and keeps what they make. */
#include "config/autofd.h"
#include "runner/cli/cli.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct command *const commands[] = {
    &cmd_run,  &cmd_ps,   &cmd_logs, &cmd_stop,  &cmd_ls,   &cmd_cp,      &cmd_tags,
    &cmd_push, &cmd_pull, &cmd_rm,   &cmd_prune, &cmd_init, &cmd_secrets, &cmd_config,
};

static void print_help(FILE *out)
{
    fprintf(out,
            "dstack %s: runs workflows, here or on a remote, and keeps what they make.\n\n"
            "usage: dstack COMMAND [OPTION…] [ARGUMENT…]\n\n",
            DSTACK_VERSION);
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++)
        fprintf(out, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
    fprintf(out, "\n  dstack COMMAND --help tells more; dstack --version prints the version.\n");
}

/* What was not written was not shown: a full disk must not look like success. */
static int end_output(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "dstack: not everything could be written to standard output\n");
    return status ? status : 1;
}

int main(int argc, char **argv)
{
    fd_fill_standard();
    setlocale(LC_ALL, "");
    signal(SIGPIPE, SIG_DFL);
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        !strcmp(argv[1], "help")) {
        print_help(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-v")) {
        printf("dstack %s\n", DSTACK_VERSION);
        return 0;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++)
        if (strcmp(commands[i]->name, argv[1]) == 0)
            return end_output(commands[i]->run(commands[i], argc - 1, argv + 1));
    fprintf(stderr, "dstack: no command \"%s\"; see dstack --help\n", argv[1]);
    return 2;
}
