/* What Slurm says of a job, and what that means for its run.
 *
 * source: scontrol(1), "show job", with -o; the states of squeue(1), "JOB STATE CODES".
 * safety: the text is foreign; whatever it is, the result is usable.
 */
#pragma once

#include "runner/engine/engine.h"

enum { SLURM_WARN_S = 30 }; /* before the time limit, the job gets SIGTERM */

struct slurm_job {
    char *name, *state, *reason, *time_limit;
    char *complaint;     /* what the job's script said of its node; NULL: nothing */
    bool is_requeued;    /* Slurm will start it, or has started it, once more */
    int64_t preempted_s; /* since 1970; 0: it is not */
    int64_t end_s;       /* when it will be ended; 0: not known */
};

void slurm_job_parse(const char *text, struct slurm_job *job);
void slurm_job_clear(struct slurm_job *job);

/* ANSWER's reason is the caller's. */
void slurm_job_judge(const struct slurm_job *job, struct engine_answer *answer);

/* What the SIGTERM means that the job got a moment before NOW_MS. SIGNAL's why is the caller's. */
void slurm_job_judge_signal(const struct slurm_job *job, int64_t now_ms,
                            struct engine_signal *signal);
