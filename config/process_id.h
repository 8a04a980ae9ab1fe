/* Who a process is: PID and start time, so that a reused PID is not taken for it; and which machine
 * it is on: its boot and PID namespace, within which PIDs mean something.
 *
 * source: proc(5).
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

char *machine_id(void); /* the caller's */

/* 0 when there is no such process, or only a zombie. */
uint64_t process_start_ticks(pid_t pid);
bool process_is_alive(pid_t pid, uint64_t start_ticks);
