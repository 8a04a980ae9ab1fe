#include "runner/cli/cli.h"

#include "config/error.h"

#include <stdio.h>

static int run_init(const struct command *command, int argc, char **argv)
{
    struct repo repo = {0};
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, NULL, &argc, &argv, 0, 0, &status))
        return status;
    ok = repo_init(".", &repo, &error);
    if (ok)
        printf("%s\n", repo.id);
    if (ok)
        fprintf(stderr, "Runs, tags and secrets of %s belong to repo %s\n", repo.top, repo.id);
    repo_clear(&repo);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_init = {"init", "", "Makes this directory a repo.", run_init};
