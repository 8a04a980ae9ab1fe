/* Slurm's programs, here or on a host over ssh, and what the cluster has.
 *
 * source: sbatch(1), sinfo(1), scontrol(1), scancel(1).
 * errors: those of tool.h; ENOENT with what to do when Slurm is not on this machine.
 */
#pragma once

#include "config/settings.h"
#include "runner/run/run.h"

enum { SLURM_ASK_MS = 10000, SLURM_SUBMIT_MS = 60000 };

/* Runs ARGV with INPUT (may be NULL) on stdin. HOST NULL: here. */
bool slurm_run(const char *host, const char *const *argv, const char *input, unsigned timeout_ms,
               char **output, GError **error);

/* The partition RUN goes to; NULL: the cluster's default. Borrowed. */
const char *slurm_partition(const struct slurm_settings *slurm, const struct run *run);

/* Whether the cluster has what RUN asks for; the error says what it has. CONSTRAINT (the caller's):
 * the nodes' features that do; NULL: any. */
bool slurm_fits(const struct slurm_settings *slurm, const struct run *run, char **constraint,
                GError **error);
