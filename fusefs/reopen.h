/* Opens that came too late, and whom they are owed to.
 *
 * Between the kernel's LOOKUP of a name and its OPEN of what was found, the name may go to another
 * file. The OPEN fails with ESTALE then; the kernel looks the name up and opens once more, and once
 * only (do_filp_open in Linux' fs/namei.c). So that no program sees the error, a name is taken away
 * only after those who were told have come again, and they do not find one that is just being
 * taken away.
 *
 * threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define REOPEN_MS 1000 /* who does not come again, being killed, is not waited for longer */

struct reopens;

struct reopens *reopens_new(void);
void reopens_free(struct reopens *reopens);

/* TASK (a thread's id; all that are unknown are 0) waits for what becomes of INO's name, and may be
 * told to open once more. */
void reopens_wait(struct reopens *reopens, pid_t task, uint64_t ino);
/* INO's name is gone: who waits for that will be told. */
void reopens_tell(struct reopens *reopens, uint64_t ino);
/* TASK is told. When it was told before, it is not waited for again: the program has the error. */
void reopens_add(struct reopens *reopens, pid_t task);
/* It did, or it will not. */
void reopens_end(struct reopens *reopens, pid_t task);
/* Whether TASK, or anybody, was told. */
bool reopens_expect_task(struct reopens *reopens, pid_t task);
bool reopens_expect_any(struct reopens *reopens);
