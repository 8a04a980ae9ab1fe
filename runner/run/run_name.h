/* Names for runs that people can say: adjective-animal-N. */
#pragma once

#include "storage/store.h"

/* A random adjective and animal, and the first N above every one this pair ever had in REPO, its
 * artifacts included: a name is never given twice while something of it is left. */
char *run_name_choose(struct store *root, const char *repo, GError **error);
