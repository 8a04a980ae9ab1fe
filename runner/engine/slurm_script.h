/* The script that Slurm runs on a node, and the programs that it needs there.
 *
 * shape:  dstack-runner and dstack-mount are taken from where they are on the submitting machine,
 * if the node has them there too; else from ROOT, where they are kept as bin/SHA256. What goes
 *         wrong before there is a runner to say it becomes the job's comment in Slurm.
 */
#pragma once

#include "runner/engine/engine.h"

/* Uploads the programs if ROOT does not have them. The script is the caller's. */
char *slurm_script(const struct run_root *root, const struct run *run, GError **error);
