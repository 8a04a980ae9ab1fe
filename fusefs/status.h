/* The status file: how whoever started dstack-mount learns what it is doing. One JSON document,
 * replaced atomically: {"state", "pid", "mountpoint", "error", "unsaved", "recovered"}; the last is
 * {"files", "bytes", "aside", "lost"}, what a journal was good for.
 *
 *   mounting -> ready -> draining -> done | failed        mounting -> failed
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct fs_recovered;

/* PATH NULL: does nothing. RECOVERED, ERROR and UNSAVED (char*) may be NULL. A failure to write is
 * logged. */
void status_write(const char *path, const char *state, const char *mountpoint,
                  const struct fs_recovered *recovered, const char *error,
                  const GPtrArray *unsaved);
