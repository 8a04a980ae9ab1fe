/* How a job is ended, and how often it begins again: the workflow's nodes, retry and stop_signal.
 *
 * shape:  0: not asked for.
 */
#pragma once

#include "config/yaml_doc.h"

struct lifetime {
    unsigned nodes;      /* machines at once; 0: one */
    unsigned attempts;   /* starts in all, the first one too */
    int64_t duration_ms; /* no start after so long */
    int stop_signal;     /* instead of SIGTERM */
};

/* "TERM", "SIGUSR1", "10": its number; 0: no signal that can be caught. */
int signal_parse(const char *name);
char *signal_format(int number); /* "USR1"; the caller's */

/* Of a workflow's map. */
bool lifetime_read(const char *file, const struct yaml_node *map, struct lifetime *lifetime,
                   GError **error);
