/* Workflows as users write them, in .dstack/workflows.yaml and .dstack/workflows/ (.yaml, .yml).
 *
 * shape:  docs/workflows.md has every key. Unknown keys, wrong types and duplicate names are
 * errors. errors: EINVAL, "FILE:LINE:COLUMN: what is wrong and what was expected"; ENOENT for a
 * workflow that is not there, with those that are. owns:   a workflow owns everything in it.
 */
#pragma once

#include "config/lifetime.h"
#include "config/resources.h"

#include <glib.h>
#include <stdbool.h>

struct workflow_artifact {
    char *path; /* normalised: "output", "~/x" or "/x"; never "/" or outside the work directory */
    bool mount;
};

struct workflow_dep {
    char *workflow, *tag, *run; /* exactly one */
    bool mount;
};

struct workflow {
    char *name, *provider, *help, *working_dir;
    char *python;         /* the version that is wanted: "3.11" */
    char **commands;      /* NULL: none; the same of the lists below */
    char **setup;         /* commands before an IDE starts */
    char **env;           /* "K=V", or "K" to take over from the environment */
    char **ports;         /* see port_parse */
    char **cache;         /* normalised paths, kept between runs of the workflow */
    GPtrArray *artifacts; /* struct workflow_artifact* */
    GPtrArray *deps;      /* struct workflow_dep* */
    struct resources resources;
    struct lifetime lifetime;

    /* docker, and version of an IDE */
    char *image, *home_dir, *version;
    char **entrypoint;
    char *registry_username, *registry_password; /* the password: ${{ secrets.NAME }} alone */
    char *place;                                 /* "FILE:LINE", for messages */
};

void workflow_free(struct workflow *workflow);
typedef struct workflow Workflow;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Workflow, workflow_free)

/* A workflow that nobody wrote down: `dstack run bash -c '…'`. */
struct workflow *workflow_new(const char *name, const char *provider);

/* Adds PATH as an artifact; EINVAL when it may not be one, or when its files would be stored where
 * another's are (PLACE begins the message). */
bool workflow_add_artifact(struct workflow *workflow, const char *path, bool mount,
                           const char *place, GError **error);

/* One of these is NULL. */
void workflow_add_dep(struct workflow *workflow, const char *of_workflow, const char *tag);

/* Values from elsewhere than a file, over those there are: EINVAL, "PLACE: …". KEY is that of
 * resources; gpu's are gpu, gpu_name, gpu_memory. */
bool workflow_set_resource(struct workflow *workflow, const char *key, const char *text,
                           const char *place, GError **error);
bool workflow_set_ports(struct workflow *workflow, char **ports, const char *place, GError **error);
bool workflow_set_working_dir(struct workflow *workflow, const char *path, const char *place,
                              GError **error);

/* All workflows of one file's text, appended to LIST (struct workflow*). */
bool workflows_parse(const char *name, const char *text, size_t size, GPtrArray *list,
                     GError **error);

/* All workflows below TOP/.dstack. An array that frees its elements. */
GPtrArray *workflows_load(const char *top, GError **error);

/* The one called NAME: still owned by LIST. */
struct workflow *workflows_find(GPtrArray *list, const char *name, GError **error);
