/* The values of a workflow's keys that say what it wants from its machine: environment, resources,
 * ports, caches, image. They are checked here, once; docs/workflows.md says what each may be. */
#pragma once

#include "config/yaml_doc.h"

/* False and EINVAL, "FILE:LINE:COLUMN: …", for the first value of MAP that is wrong. */
bool workflow_check_values(const char *file, const struct yaml_node *map, GError **error);

/* "NAME=VALUE" or "NAME". A credential of the store must be a NAME alone: what is written here ends
 * up in the store. PLACE begins the message. */
bool workflow_env_check(const char *entry, const char *place, GError **error);

/* Whether NAME=… would be the store's own credentials. */
bool env_is_credential(const char *entry);
