/* What commands that move files share: progress on stderr, and Ctrl-C as a clean end.
 *
 * shape:   struct cli_transfer transfer; cli_transfer_begin(&transfer, "Pushing a-1"); pass
 *          &transfer.options; cli_transfer_end.
 * errors:  a transfer that Ctrl-C ends fails with ECANCELED.
 */
#pragma once

#include "storage/progress.h"
#include "storage/transfer.h"

struct cli_transfer {
    struct transfer_options options;
    struct progress *progress;
};

/* For struct log_watcher: USER is a struct progress** that is NULL at first and that the caller
 * frees. */
void cli_show_progress(const char *label, const struct transfer_progress *now, void *user);

void cli_transfer_begin(struct cli_transfer *transfer, const char *label);
void cli_transfer_end(struct cli_transfer *transfer);
