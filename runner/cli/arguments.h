/* Telling a command's own options from the words that are somebody else's. */
#pragma once

#include <glib.h>

/* Sorts ARGV[1…] into OPTIONS (those that ENTRIES or --help have, with their values) and REST, in
 * order, all borrowed. What stands behind "--" is rest. */
void arguments_split(const GOptionEntry *entries, int argc, char **argv, GPtrArray *options,
                     GPtrArray *rest);
