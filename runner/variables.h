/* Variables in a workflow's commands.
 *
 * shape:  ${{ run.name }} is the run's name, ${{ run.args }} the arguments behind the workflow's
 *         name, each quoted for the shell where it needs to be; $$ is a $. Everything else is the
 *         shell's.
 * errors: EINVAL for a variable that there is not, and one that does not end.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/* TEXT with its variables replaced; the caller's. USES_ARGS (may be NULL) becomes true when
 * run.args is among them. */
char *variables_replace(const char *text, const char *run_name, char **args, bool *uses_args,
                        GError **error);
