/* Work directories that were kept on this machine because their attempt had no time to save, or
 * could not, and whose run went on all the same.
 *
 * shape:   a kept directory says whose it is (the file "whose": root, repo, run, attempt). The next
 *          attempt on this machine saves what is in the last one's before it restores its
 *          artifacts, and removes it; if that cannot be saved then either, it stays for a person.
 *          Those of runs that went on elsewhere, or that are gone, are removed by the next runner
 *          of the same root. One that a person may want to push stays.
 * errors:  said in the runner's messages; nothing of it fails a run.
 */
#pragma once

#include "runner/engine/engine.h"

/* RUN is about to fetch its files into its new work directory. *STOP: see transfer.h. */
void left_over_settle(struct store *root, const struct run_root *where, const struct run *run,
                      const int *stop);

/* RUN is removed: all that its attempts left here. */
bool left_over_remove(const struct run *run, GError **error);
