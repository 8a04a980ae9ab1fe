/* What keeps artifacts and code in the store: runs and tags; and removing what nothing keeps.
 *
 * shape:   artifacts/REPO/RUN/ stays while there is a document of RUN or a tag that holds it. Who
 *          removes one of these writes first and looks at the other then; who adds a tag looks at
 *          the run again after writing: one of two at once sees the other.
 * errors:  as of run_store.h; EBUSY: a document in tags/ cannot be read, and may hold the
 * artifacts.
 */
#pragma once

#include "runner/run/run.h"
#include "storage/store.h"
#include "storage/tags.h"

/* Writes TAG. EEXIST when it is another run's, unless MOVE: what it held before is released then.
 */
bool kept_tag_save(struct store *root, const char *repo, const struct tag *tag, bool move,
                   GError **error);

/* Makes tag NAME hold RUN's artifacts, in the same way. */
bool kept_tag_run(struct store *root, const struct run *run, const char *name, bool move,
                  GError **error);

/* Deletes the tag, and the artifacts that nothing else keeps. */
bool kept_remove_tag(struct store *root, const char *repo, const struct tag *tag, GError **error);

/* Removes a finished run with its logs, its code and artifacts that no tag holds (*TAGGED: one
 * does). A removal that was cut off can be repeated. ENOENT, EPERM: as run_store_remove. */
bool kept_remove_run(struct store *root, const char *repo, const char *name, bool *tagged,
                     GError **error);

/* The paths of the artifacts under RUN's prefix: as its document or its tag says, else what is
 * there. NULL and *ERROR. TAG may be NULL. */
char **kept_artifacts(struct store *root, const char *repo, const char *run, const struct tag *tag,
                      GError **error);
