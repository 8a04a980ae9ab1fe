/* Processes of this machine: who they are, whether they still live, and ending those of a job.
 *
 * shape:  a process is named by PID and start time (field 22 of /proc/PID/stat), so that a reused
 *         PID is not taken for it; a machine by its boot id and PID namespace. The processes of a
 *         job are found by the id they carry in their environment, whatever session, group or
 *         parent they moved to.
 * source: proc(5).
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* In the environment of a job's commands, and of its mounts. */
#define JOB_VARIABLE   "DSTACK_JOB"
#define MOUNT_VARIABLE "DSTACK_JOB_MOUNT"

char *machine_id(void);

/* 0 when there is no such process, or only a zombie. */
uint64_t process_start_ticks(pid_t pid);
bool process_is_alive(pid_t pid, uint64_t start_ticks);

/* Sends SIGNAL to every process of this user with VARIABLE=ID in its environment, but ourselves;
 * returns how many there were. Signal 0 only counts. */
unsigned processes_signal(const char *variable, const char *id, int signal);

/* The same until none is left, for at most TIMEOUT_MS. */
bool processes_end(const char *variable, const char *id, int signal, unsigned timeout_ms);

/* Lazily unmounts every FUSE mount at PATH or below it. */
void mounts_detach(const char *path);

/* Removes a tree; never crosses into another filesystem. Reports what it could not remove. */
bool tree_remove(const char *path, GError **error);
