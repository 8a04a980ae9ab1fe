/* The status file: how whoever started dstack-mount learns what it is doing. One JSON document,
 * replaced atomically: {"state", "pid", "mountpoint", "error", "unsaved"}.
 *
 *   mounting -> ready -> draining -> done | failed        mounting -> failed
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/* PATH NULL: does nothing. ERROR and UNSAVED (char*) may be NULL. A failure to write is logged. */
void status_write(const char *path, const char *state, const char *mountpoint, const char *error,
                  const GPtrArray *unsaved);
