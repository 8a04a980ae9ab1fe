/* The values of a workflow's keys that say what it wants from its machine: environment, resources,
 * ports, caches, image. They are checked here, once; docs/workflows.md says what each may be. */
#pragma once

#include "config/workflow.h"
#include "config/yaml_doc.h"

/* Into WORKFLOW, whose values are empty. False and EINVAL, "FILE:LINE:COLUMN: …", for the first
 * value of MAP that is wrong. */
bool workflow_read_values(const char *file, const struct yaml_node *map, struct workflow *workflow,
                          GError **error);

/* Whether TEXT is one ${{ secrets.NAME }} and nothing else: a password is never written down. */
bool is_secret_reference(const char *text);

/* "NAME=VALUE" or "NAME". A credential of the store must be a NAME alone: what is written here ends
 * up in the store. PLACE begins the message. */
bool workflow_env_check(const char *entry, const char *place, GError **error);

/* Whether NAME=… would be the store's own credentials. */
bool env_is_credential(const char *entry);
