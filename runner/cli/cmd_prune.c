#include "runner/cli/cli.h"

#include "runner/cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool prune(struct cli_roots *roots, const char *workflow, uint64_t *count, GError **error)
{
    for (unsigned i = 0; i < cli_roots_count(roots); i++) {
        struct store *root = cli_root(roots, i, error);
        uint64_t here = 0;

        if (!root || !cache_prune(root, roots->repo.id, workflow, &here, error))
            return false;
        *count += here;
    }
    return true;
}

static int run_prune(const struct command *command, int argc, char **argv)
{
    struct cli_roots roots;
    GError *error = NULL;
    uint64_t count = 0;
    int status;
    bool ok;

    if (!cli_parse(command, NULL, &argc, &argv, 2, 2, &status))
        return status;
    if (strcmp(argv[1], "cache") != 0) {
        cli_say("dstack prune", "there is only: dstack prune cache WORKFLOW");
        return 2;
    }
    ok = cli_roots_open(&roots, &error) && prune(&roots, argv[2], &count, &error);
    cli_roots_clear(&roots);
    if (ok)
        fprintf(stderr, "%" PRIu64 " files removed\n", count);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_prune = {"prune", "cache WORKFLOW", "Removes the caches of a workflow.",
                                  run_prune};
