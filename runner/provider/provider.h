/* Providers say how a run's commands are executed. One entry each, no NULL functions. */
#pragma once

#include "runner/job/launch.h"

struct provider {
    const char *name;
    bool has_own_ports; /* its programs do not listen on the machine's ports themselves */
    bool needs_port;    /* one is chosen when the workflow names none */
    /* Whether this machine has what RUN needs; looked at before anything starts. */
    bool (*check)(const struct run *run, GError **error);
    /* Writes what it needs into the run's work directory; what to execute, argv[0] being a path. */
    char **(*prepare)(struct launch *launch, GError **error);
    /* Ends and removes what of RUN is not this machine's process or file. */
    void (*clean)(const struct run *run);
};

extern const struct provider provider_bash, provider_docker, provider_code, provider_lab,
    provider_notebook;

/* NULL and ENOENT, with the names there are, for one that is not known. */
const struct provider *provider_find(const char *name, GError **error);

/* Nothing to clean. */
void provider_clean_nothing(const struct run *run);
