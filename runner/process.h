/* Starting the processes of a job so that none outlives the job.
 *
 * shape:   a child gets a session and process group of its own, /dev/null as input, and a signal
 *          when the thread that started it dies (PR_SET_PDEATHSIG): start from the main thread.
 * threads: fork is followed by async-signal-safe calls only, so other threads may exist.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

struct process_options {
    char **argv; /* argv[0] is a path */
    char **env;
    const char *cwd;  /* NULL: ours */
    int output;       /* for stdout and stderr */
    int parent_death; /* the signal for when we die; 0: none */
};

bool process_start(const struct process_options *options, pid_t *pid, GError **error);

/* 0..255, 128 + N for signal N. */
int process_exit_code(int wait_status);
char *process_exit_text(int wait_status); /* "exit status 3", "killed by signal 9 (Killed)" */

/* PROGRAM beside our own executable, else in PATH. */
char *program_find(const char *program, GError **error);
