#include "runner/cli/cli.h"

#include "runner/job/cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct pruned {
    const char *workflow;
    uint64_t count;
};

static bool prune(struct cli_roots *roots, struct store *root, void *user, GError **error)
{
    struct pruned *pruned = user;
    uint64_t here = 0;
    bool fine = cache_prune(root, roots->repo.id, pruned->workflow, &here, error);

    pruned->count += here;
    return fine;
}

static int run_prune(const struct command *command, int argc, char **argv)
{
    struct cli_roots roots;
    struct pruned pruned = {0};
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, NULL, &argc, &argv, 2, 2, &status))
        return status;
    if (strcmp(argv[1], "cache") != 0) {
        cli_say("dstack prune", "there is only: dstack prune cache WORKFLOW");
        return 2;
    }
    pruned.workflow = argv[2];
    ok = cli_roots_open(&roots, &error) && cache_check(argv[2], &error) &&
         cli_each_root(&roots, prune, &pruned);
    cli_roots_clear(&roots);
    if (ok)
        fprintf(stderr, "%" PRIu64 " files removed\n", pruned.count);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_prune = {"prune", "cache WORKFLOW", "Removes the caches of a workflow.",
                                  run_prune};
