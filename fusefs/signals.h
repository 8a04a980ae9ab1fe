/* Whether a signal that arrived while a call waits is one that should end the wait.
 *
 * FUSE tells that there is one, not which. A program that handles SIGCHLD or SIGALRM does not
 * expect its close() or rename() to fail for it, since on other filesystems they do not; one that
 * is asked to end does not want to wait.
 *
 * source: proc(5), signal(7).
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* STATUS is the text of /proc/TID/status. */
bool status_asks_to_end(const char *status);

/* UNKNOWN: the answer when nothing can be learnt of TID. */
bool task_is_asked_to_end(pid_t tid, bool unknown);
