/* Whether this machine has what a job asks for: looked at before a local run starts. */
#pragma once

#include "config/resources.h"
#include <glib.h>

/* ENOSPC and what there is, for the first thing that is too little. IN_CONTAINER: /dev/shm is the
 * container's own, made as large as is asked. */
bool machine_has(const struct resources *resources, bool in_container, GError **error);

/* MemAvailable and MemTotal of /proc/meminfo's text. For tests. */
bool meminfo_parse(const char *text, uint64_t *available_bytes, uint64_t *total_bytes);

/* How many of the GPUs that `nvidia-smi --query-gpu=name,memory.total
 * --format=csv,noheader,nounits` lists (memory in MiB) are called NAME (NULL: any; letters' case
 * and "NVIDIA " do not matter) and have as much memory. For tests. */
unsigned gpus_count(const char *list, const char *name, uint64_t memory_bytes);
