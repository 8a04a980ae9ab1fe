/* What every store must do, whichever driver it has: one suite for all of them. What a driver
 * cannot do by its caps is not asked of it. */
#pragma once

#include "storage/store.h"

/* Works below PREFIX (ends in '/'), which it empties first and leaves empty. False and the first
 * thing that was wrong in *ERROR. *CHECKS (may be NULL): how many cases ran. */
bool conformance_run(struct store *store, const char *prefix, unsigned *checks, GError **error);
