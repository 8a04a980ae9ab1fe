/* Which keys a workflow may have, by its provider. docs/workflows.schema.json says the same to
 * editors; a test holds the two together. */
#pragma once

#include "config/yaml_doc.h"

/* EINVAL, "FILE:LINE:COLUMN: …", for a provider that there is not, for a key that no workflow has
 * (with the one that was meant), and for one that is another provider's. WHAT names the workflow.
 */
bool workflow_check_keys(const char *file, const struct yaml_node *map, const char *what,
                         GError **error);

/* NULL-terminated: "bash", … */
const char *const *workflow_providers(void);
