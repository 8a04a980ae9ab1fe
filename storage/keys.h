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

/* What mounts keep beside the files, in directories of these names: no file of anybody's. */
#define KEYS_MOUNT_DIR ".dstack-mount/"
#define KEYS_INDEX_DIR ".dstack-index/"
bool keys_is_of_mount(const char *key);

/* [A-Za-z0-9._-], no leading dot, 1 to 100 bytes: what may stand for REPO, RUN or TAG. */
bool keys_name_is_valid(const char *name);
