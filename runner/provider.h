/* Providers say how a run's commands are executed. One entry each, no NULL functions. */
#pragma once

#include "runner/run.h"

struct provider {
    const char *name;
    /* Writes what it needs into RUN's work directory; what to execute, argv[0] being a path. */
    char **(*prepare)(const struct run *run, GError **error);
};

extern const struct provider provider_bash;

/* NULL and ENOENT, with the names there are, for one that is not known. */
const struct provider *provider_find(const char *name, GError **error);

/* The environment of RUN's commands: ours without the store's credentials, the job's own, the
 * workflow's. */
char **provider_environment(const struct run *run);
