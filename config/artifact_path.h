/* Paths that a workflow names: of artifacts and caches. */
#pragma once

#include <stdbool.h>

/* PATH without "./", doubled and trailing slashes: "output", "~/x" or "/x". NULL when it is none
 * that can be kept: "/", "~", "./~/x", one with "..", one that is not UTF-8 or too long. The
 * caller's. */
char *artifact_path_normalise(const char *path);

/* Whether files of these two (normalised) paths would meet under one key of the store. */
bool artifact_paths_clash(const char *one, const char *two);
