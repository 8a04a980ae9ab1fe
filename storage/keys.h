/* Where things are below ROOT. The same layout for local runs and on a remote, so that push and
 * pull are copies of trees. All results are the caller's.
 *
 *   artifacts/REPO/RUN/PATH/…   runs/REPO/RUN.json   logs/REPO/RUN/…   tags/REPO/TAG.json
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

char *keys_artifacts(const char *repo, const char *run); /* artifacts/REPO/RUN/ */
char *keys_tag(const char *repo, const char *tag);       /* tags/REPO/TAG.json */
char *keys_tags(const char *repo);                       /* tags/REPO/ */

/* [A-Za-z0-9._-], no leading dot, 1 to 100 bytes: what may stand for REPO, RUN or TAG. */
bool keys_name_is_valid(const char *name);
