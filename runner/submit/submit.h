/* From a workflow to a run that is on its way: snapshot of the code, document, engine.
 *
 * errors:  whatever was half-made is marked failed or removed; no run is left that looks alive.
 */
#pragma once

#include "runner/engine/engine.h"
#include "runner/run/run.h"

struct workflow;

struct submit_request {
    struct store *root;    /* already open */
    struct run_root where; /* the same, as the runner opens it */
    const struct workflow *workflow;
    char **args;          /* for ${{ run.args }} */
    const char *repo;     /* REPO in keys */
    const char *code_dir; /* the working tree's top; NULL: no code */
    const char *tag;      /* NULL: none; refused when another run has it */
    const char *engine;   /* NULL: "local" */
};

/* Checks everything and saves the code: what can take long or go wrong, and leaves no trace that
 * anyone sees. The run has no name yet. */
struct run *submit_prepare(const struct submit_request *request, GError **error);

/* Makes the run, tags it and hands it to the engine. */
bool submit_start(const struct submit_request *request, struct run *run, GError **error);

/* Hands an interrupted run to its engine once more, as its next attempt. Of REQUEST only where the
 * run is counts. ESTALE: somebody else did so. */
bool submit_again(const struct submit_request *request, struct run *run, GError **error);
