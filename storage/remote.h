/* From what the user configured to stores: this machine's ROOT, a remote's ROOT, and the artifacts
 * of a run or tag.
 */
#pragma once

#include "config/settings.h"
#include "storage/store.h"

/* ROOT of local runs: $DSTACK_HOME as a file store. */
struct store *local_open(GError **error);
char *local_url(void);

/* ROOT of REMOTE, which was asked whether it is there and lets us in; the error names the remote
 * and what to look at. And the options to open it with (which borrow from REMOTE). */
struct store *remote_open(const struct remote *remote, GError **error);
void remote_options(const struct remote *remote, struct store_options *options);

/* The artifacts of "RUN" or ":TAG" of the current directory's repo: here if they are here, else on
 * the default remote. URL is the caller's. */
struct store *remote_open_artifacts(const char *run_or_tag, char **url, GError **error);
