/* How far a job's transfers are, for whoever follows the run: runs/REPO/RUN.progress, rewritten
 * every second while something that takes longer than a second goes on, and removed behind it.
 *
 * shape:   LABEL, a newline, and five numbers.
 * threads: the writer's is the transfer's.
 * errors:  none: what cannot be written or read is not shown.
 */
#pragma once

#include "runner/run/run.h"
#include "storage/transfer.h"

struct job_progress {
    struct store *root;
    char *key, *label;
    int64_t next_us;
    bool written;
};

/* OPTIONS report to PROGRESS from now on. */
void job_progress_begin(struct job_progress *progress, struct store *root, const struct run *run,
                        const char *label, struct transfer_options *options);
void job_progress_end(struct job_progress *progress);

/* False: there is none. LABEL is the caller's. */
bool job_progress_read(struct store *root, const char *repo, const char *name, char **label,
                       struct transfer_progress *now);
bool job_progress_parse(const char *text, char **label, struct transfer_progress *now);
