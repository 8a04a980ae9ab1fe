/* Variables in what a workflow says.
 *
 * shape:  ${{ run.name }} is the run's name, ${{ run.args }} the arguments behind the workflow's
 *         name, each quoted for the shell where it needs to be, ${{ secrets.NAME }} a secret; $$ is
 *         a $. Everything else is the shell's.
 * safety: in a text for the shell a secret's value never stands: it is replaced by the environment
 *         variable that holds it, quoted as the place needs it, so that no script and no list of
 *         processes has it.
 * errors: EINVAL for a variable that there is not, one that does not end, and a secret where the
 *         shell would not replace it; ENOENT for a secret that there is not.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct variables {
    const char *run_name;
    char **args;
    const GPtrArray *secrets; /* struct secret*: for values; NULL: they are empty */

    bool uses_args;  /* set when run.args was among them */
    GPtrArray *used; /* NULL, or where names of secrets (char*) are added */
};

/* TEXT with its variables replaced; the caller's. */
char *variables_for_shell(struct variables *variables, const char *text, GError **error);
char *variables_for_value(struct variables *variables, const char *text, GError **error);

/* TEXT as it must be written to be itself again. The caller's. */
char *variables_escape(const char *text);
