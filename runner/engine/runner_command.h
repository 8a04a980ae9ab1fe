/* How dstack-runner is called. */
#pragma once

#include "runner/engine/engine.h"

/* PROGRAM and its arguments for RUN; the caller's. */
char **runner_command(const char *program, const struct run_root *root, const struct run *run);
