/* What a run's commands are started with: environment, secrets, ports.
 *
 * shape:  the environment is the runner's without what opens the store and its secrets, then what
 *         every job gets, the repo's secrets, the workflow's env, and $PORT_0…, each over those
 *         before it.
 * safety: secrets are in the environment alone: never in argv, in a file or in a message.
 */
#pragma once

#include "runner/run/run.h"
#include "runner/secrets/mask.h"
#include "runner/submit/variables.h"
#include "storage/store.h"

struct launch_port {
    unsigned port;  /* where the program listens */
    unsigned local; /* where that is on this machine */
};

struct launch {
    const struct run *run;
    GPtrArray *secrets; /* struct secret* */
    struct mask *mask;  /* NULL: nothing to hide */
    GArray *ports;      /* struct launch_port */
    char **env;
    GPtrArray *names; /* char*: what of env is the job's own */
    struct variables variables;
};

/* Reads ROOT's secrets and chooses ports. */
bool launch_prepare(struct launch *launch, struct store *root, const struct run *run,
                    GError **error);
void launch_clear(struct launch *launch);

void launch_set(struct launch *launch, const char *name, const char *value);

/* COMMANDS with their variables replaced, a line each; NULL and *ERROR. */
char *launch_script(struct launch *launch, char **commands, GError **error);

/* Writes TEXT to the work directory's NAME, and says where that is. The caller's. */
char *launch_write(const struct launch *launch, const char *name, const char *text, GError **error);

/* EADDRINUSE when somebody listens on one of RUN's ports on this machine. */
bool launch_check_ports(const struct run *run, GError **error);
