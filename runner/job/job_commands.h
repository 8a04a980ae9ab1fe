/* Executing a job's commands: from their start to their end, however it comes. */
#pragma once

#include "runner/job/job_watch.h"
#include "runner/job/launch.h"
#include "runner/job/mounts.h"
#include "runner/run/logs.h"

struct job_end {
    int exit_code;       /* -1: no commands were started, or a mount died first */
    enum stop_wish wish; /* they were ended because of it */
    char *reason;        /* why it is a failure; NULL: exit status 0 or a wish */
};

/* Blocks. SIGNALS is a signalfd for SIGCHLD. STOPPING is called once, before
 * the first signal, when a wish ends the commands. False only when they could not be started. */
typedef void job_stopping(enum stop_wish wish, void *user);
bool job_commands_run(struct launch *launch, struct job_watch *watch, struct log_writer *log,
                      struct mounts *mounts, int signals, job_stopping *stopping, void *user,
                      struct job_end *end, GError **error);
