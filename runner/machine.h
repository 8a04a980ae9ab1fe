/* Ending what a job started on this machine: its processes, its mounts, its files.
 *
 * shape:  the processes of a job are found by the id they carry in their environment, whatever
 *         session, group or parent they moved to.
 * source: proc(5).
 */
#pragma once

#include "config/process_id.h"
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* In the environment of a job's commands, and of its mounts. */
#define JOB_VARIABLE   "DSTACK_JOB"
#define MOUNT_VARIABLE "DSTACK_JOB_MOUNT"

/* Sends SIGNAL to every process of this user with VARIABLE=ID in its environment, but ourselves;
 * returns how many there were. Signal 0 only counts. */
unsigned processes_signal(const char *variable, const char *id, int signal);

/* The same until none is left, for at most TIMEOUT_MS. */
bool processes_end(const char *variable, const char *id, int signal, unsigned timeout_ms);

/* Lazily unmounts every FUSE mount at PATH or below it. */
void mounts_detach(const char *path);

/* Removes a tree; never crosses into another filesystem. Reports what it could not remove. */
bool tree_remove(const char *path, GError **error);
