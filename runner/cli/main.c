/* dstack: runs workflows, here or on a remote, and keeps what they make. */
#include "config/autofd.h"
#include "runner/cli/cli.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static void print_help(FILE *out)
{
    fprintf(out,
            "dstack %s: runs workflows, here or on a remote, and keeps what they make.\n\n"
            "usage: dstack COMMAND [OPTION…] [ARGUMENT…]\n\n",
            DSTACK_VERSION);
    for (const struct command *const *at = cli_commands; *at; at++)
        fprintf(out, "  %-10s %s\n", (*at)->name, (*at)->summary);
    fprintf(out, "\n  dstack COMMAND --help tells more; dstack --version prints the version.\n");
}

/* What was not written was not shown: a full disk must not look like success. */
static int end_output(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    cli_say("dstack", "not everything could be written to standard output");
    return status ? status : 1;
}

int main(int argc, char **argv)
{
    const struct command *command;
    g_autofree char *text = NULL;

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
    command = cli_command_find(argv[1]);
    if (command)
        return end_output(command->run(command, argc - 1, argv + 1));
    text = g_strdup_printf("no command \"%s\"; see dstack --help", argv[1]);
    cli_say("dstack", text);
    return 2;
}
