#include "runner/engine/engine.h"
#include "config/error.h"
#include <string.h>

static const struct engine *const ENGINES[] = {&engine_local, &engine_slurm};

const struct engine *engine_find(const char *name, GError **error)
{
    for (guint i = 0; i < G_N_ELEMENTS(ENGINES); i++)
        if (strcmp(ENGINES[i]->name, name) == 0)
            return ENGINES[i];
    error_set(error, ENOENT, "there is no engine \"%s\": use local or slurm", name);
    return NULL;
}

const struct engine *engine_of(const struct run *run, GError **error)
{
    return engine_find(run->engine ? run->engine : "local", error);
}
