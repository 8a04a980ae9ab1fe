/* Reading what an earlier attempt left in mounted artifacts before the commands ask for it: the
 * newest files first, into the kernel's page cache.
 *
 * threads: one of its own.
 */
#pragma once

#include "runner/run/run.h"

struct read_ahead;

/* Of all that is mounted of RUN, if this is not its first attempt, as far as a quarter of the
 * memory that is free goes. NULL: nothing to do. */
struct read_ahead *read_ahead_start(const struct run *run);
/* Asks for the end; and waits for it: a read may last until the mount is gone. Both take NULL. */
void read_ahead_cancel(struct read_ahead *ahead);
void read_ahead_stop(struct read_ahead *ahead);

/* Reads the files below PATHS (char*), the newest first, while they fit into LIMIT_BYTES; *STOP (an
 * atomic) ends it. How many bytes were read. */
uint64_t read_ahead_newest(GPtrArray *paths, uint64_t limit_bytes, const int *stop);
