/* Other programs that answer soon: sbatch, scontrol, ssh. Run with a text on stdin, their output
 * kept, killed when they take too long.
 *
 * errors:  ENOENT: there is no such program; ETIMEDOUT; EIO: it failed with what
 *          it said on stderr, cut to one line of 500 bytes.
 * threads: any; a SIGCHLD handler of the caller must not reap what it does not know.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct tool {
    const char *const *argv; /* argv[0] is looked for in PATH */
    const char *input;       /* NULL: nothing */
    unsigned timeout_ms;
};

/* OUTPUT (the caller's; may be NULL): stdout, at most 1 MiB. */
bool tool_run(const struct tool *tool, char **output, GError **error);
