/* A run's mounted artifacts, and its mounted deps (read-only): one dstack-mount process each.
 *
 * shape:   started with SIGTERM as parent-death signal, so that they save and unmount themselves
 *          when the runner dies; MOUNT_VARIABLE in their environment says whose they are. What a
 *          mount says of itself stands in its status file.
 * threads: the runner's main one.
 */
#pragma once

#include "runner/engine/engine.h"
#include "runner/run/run.h"

struct mounts;

/* Who starts them: *STOP (an atomic) not 0 gives up with ECANCELED; SAY hears what a mount waits
 * for, such as the lease of another machine. */
struct mounts_starter {
    const int *stop;
    void (*say)(const char *text, void *user);
    void *user;
};

/* Starts all and waits until each is ready; on failure none is left. */
struct mounts *mounts_start(const struct run_root *root, const struct run *run,
                            const struct mounts_starter *starter, GError **error);

/* False and the reason in *ERROR, once, when one has ended. MOUNTS may be NULL. */
bool mounts_alive(struct mounts *mounts, GError **error);

/* SIGTERM to all, waits until each has saved, for at most LIMIT_MS (-1: as long as a mount takes by
 * itself); those that do not end are killed. STARTER (may be NULL) hears what they wait for. False
 * and *ERROR when something was not saved. Whatever is still mounted is detached. Frees MOUNTS
 * (NULL: none). */
bool mounts_stop(struct mounts *mounts, int64_t limit_ms, const struct mounts_starter *starter,
                 GError **error);
