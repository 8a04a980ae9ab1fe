#include "runner/cli/cli_transfer.h"

#include <signal.h>
#include <unistd.h>

/* Written by the signal handler. */
static int stop;

static void on_signal(int number)
{
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    signal(number, SIG_DFL); /* a second one does not wait */
}

void cli_transfer_begin(struct cli_transfer *transfer, const char *label)
{
    transfer->progress = progress_new(label, STDERR_FILENO);
    transfer->options = (struct transfer_options){.only_changed = true,
                                                  .progress = progress_report,
                                                  .progress_user = transfer->progress,
                                                  .stop = &stop};
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
}

void cli_transfer_end(struct cli_transfer *transfer)
{
    g_clear_pointer(&transfer->progress, progress_free);
}
