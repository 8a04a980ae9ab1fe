/* What stands on the command line of `dstack run`: its options, and the workflow that they make. */
#pragma once

#include "config/repo.h"
#include "config/workflow.h"
#include "runner/cli/cli.h"

struct run_options {
    gboolean detach, interruptible;
    bool remote;
    char *remote_name, *tag, *working_dir;
    char *resume; /* a run to follow, instead of a workflow */
    char *cpu, *memory, *gpu, *gpu_name, *gpu_memory, *shm_size;
    char **commands, **env, **artifacts, **deps, **ports;
    char *workflow, **args; /* borrowed from words */
    char **words;           /* borrowed from argv */
};

/* ARGV must live on. EINVAL: called wrongly. */
bool run_options_parse(struct run_options *options, const struct command *command, int argc,
                       char **argv, GError **error);
void run_options_clear(struct run_options *options);

/* "--remote NAME" names a remote if there is one called so; else NAME is the workflow, or its: then
 * the option becomes "--remote=". The new list is the caller's. */
char **run_options_join_remote(int *argc, char **argv);

/* The workflow that is named, or one of a provider that nobody wrote down, with the options' values
 * over its own. LIST owns it, and is the caller's. Takes its own from options->args. */
struct workflow *run_options_workflow(struct run_options *options, const struct repo *repo,
                                      GPtrArray **list, GError **error);
