/* From a workflow to a run that is on its way: snapshot of the code, document, engine.
 *
 * errors:  whatever was half-made is marked failed or removed; no run is left that looks alive.
 */
#pragma once

#include "runner/engine.h"
#include "runner/run.h"

struct workflow;

struct submit_request {
    struct store *root;    /* already open */
    struct run_root where; /* the same, as the runner opens it */
    const struct workflow *workflow;
    const char *repo;     /* REPO in keys */
    const char *code_dir; /* the working tree's top */
    const char *run_name; /* NULL: choose one */
    const char *engine;   /* NULL: "local" */
};

struct run *submit_run(const struct submit_request *request, GError **error);

/* The step after the workflow was turned into RUN (repo, workflow, commands, artifacts, env):
 * for callers that made it otherwise. */
bool submit_prepared(struct run *run, struct store *root, const struct run_root *where,
                     const char *code_dir, GError **error);
