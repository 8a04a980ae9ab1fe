/* Whether the kernel ended something for want of memory: of the machine, or of a cgroup.
 *
 * limits: the count is the machine's; a process that somebody else killed at the same time as
 * another job ran out of memory is taken for one that did. source: proc(5), /proc/vmstat.
 */
#pragma once

#include <stdint.h>

/* How often so far; 0 where the kernel does not count. */
uint64_t oom_kills(void);
