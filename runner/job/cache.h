/* Caches: directories that are kept between the runs of one workflow, below cache/REPO/WORKFLOW/.
 *
 * shape:   synced by size, mtime and mode, down before the commands, up after they succeeded: what
 * a failing run left might make the next one fail. What is gone here goes there too, unless
 *          somebody else wrote it since the run began.
 * errors:  a cache is a convenience: its failure is said in the run's output and fails nothing.
 */
#pragma once

#include "runner/run/logs.h"
#include "runner/run/run.h"

/* *STOP: see transfer.h. The paths that came down whole (char*, the caller's): what is saved of
 * others would be taken for all that there is. */
GPtrArray *cache_fetch(struct store *root, const struct run *run, const int *stop,
                       struct log_writer *log);
void cache_save(struct store *root, const struct run *run, const GPtrArray *fetched,
                const int *stop, struct log_writer *log);

/* EINVAL: no workflow can be called so. */
bool cache_check(const char *workflow, GError **error);

/* Removes the caches of WORKFLOW, which was checked. COUNT: how many files they had. */
bool cache_prune(struct store *root, const char *repo, const char *workflow, uint64_t *count,
                 GError **error);
