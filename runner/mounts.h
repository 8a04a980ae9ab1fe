/* A run's mounted artifacts, and its mounted deps (read-only): one dstack-mount process each.
 *
 * shape:   started with SIGTERM as parent-death signal, so that they save and unmount themselves
 *          when the runner dies; MOUNT_VARIABLE in their environment says whose they are. What a
 *          mount says of itself stands in its status file.
 * threads: the runner's main one.
 */
#pragma once

#include "runner/engine.h"
#include "runner/run.h"

struct mounts;

/* Starts all and waits until each is ready; on failure none is left. *STOP (an atomic) not 0 gives
 * up with ECANCELED. */
struct mounts *mounts_start(const struct run_root *root, const struct run *run, const int *stop,
                            GError **error);

/* PID has ended with WAIT_STATUS: true and the reason in *ERROR when it was one of these. */
bool mounts_ended(struct mounts *mounts, pid_t pid, int wait_status, GError **error);

/* SIGTERM to all, waits until each has saved; those that do not end are killed. False and *ERROR
 * when something was not saved. Whatever is still mounted is detached. Frees MOUNTS (NULL: none).
 */
bool mounts_stop(struct mounts *mounts, GError **error);
