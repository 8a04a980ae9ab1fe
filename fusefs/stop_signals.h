/* The signals that tell a mount to save and end: SIGTERM, SIGINT, SIGHUP, which are blocked.
 *
 * shape:  a mount that belongs to a job heeds those of its parent alone, while that lives. A batch
 *         system sends SIGTERM to every process of a job, whose commands may still want to save.
 * source: sigwaitinfo(2).
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

/* In the first thread, before there are others. */
void stop_signals_block(void);

/* Waits for one, for at most TIMEOUT_MS (-1: for ever). PARENT 0: anybody's counts. The signal's
 * number; 0: none came. */
int stop_signals_wait(pid_t parent, int timeout_ms);
