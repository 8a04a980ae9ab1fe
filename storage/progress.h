/* Progress of a transfer on stderr: a bar on a terminal, a line every few seconds elsewhere.
 *
 * shape:   give progress_report as transfer_options.progress and the progress as its user.
 * threads: one, the transfer's.
 */
#pragma once

#include "storage/transfer.h"

struct progress;

/* LABEL stands before each line ("upload model"). FD is where lines go (2), a terminal or not. */
struct progress *progress_new(const char *label, int fd);
const char *progress_label(const struct progress *progress);
void progress_report(const struct transfer_progress *now, void *progress);
/* Ends the bar's line. Takes NULL. */
void progress_free(struct progress *progress);

/* One line without its end, at most WIDTH columns: "LABEL  [####    ]  …". WIDTH 0: no bar. */
char *progress_format(const char *label, const struct transfer_progress *now, double seconds,
                      unsigned width);
