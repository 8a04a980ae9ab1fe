/* Options of sbatch that a person may add, and those that are ours.
 *
 * source: sbatch(1) of Slurm 20.11 to 24.05; getopt_long(3) takes abbreviations of long names.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/* EINVAL, and why, unless OPTION is one word that is an option and changes nothing that a run's
 * status, logs, stop or restart depend on. */
bool slurm_option_check(const char *option, GError **error);
