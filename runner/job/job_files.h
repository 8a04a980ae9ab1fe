/* What a job has on disk: its code, deps and artifacts. */
#pragma once

#include "runner/run/run.h"
#include "storage/transfer.h"

/* Code and deps into the work directory, and every artifact's directory. *STOP: see transfer.h. */
bool job_files_fetch(struct store *root, const struct run *run, const int *stop, GError **error);

/* Uploads the artifacts that are not mounted: all of them, also when one fails. */
bool job_files_save(struct store *root, const struct run *run, const int *stop, GError **error);

/* The same for who has other wishes. */
bool job_files_upload(struct store *root, const struct run *run,
                      const struct transfer_options *options, GError **error);
