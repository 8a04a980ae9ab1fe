#include "runner/cli/cli_transfer.h"

#include <signal.h>
#include <string.h>
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

void cli_show_progress(const char *label, const struct transfer_progress *now, void *user)
{
    struct progress **progress = user;

    if (!label) {
        g_clear_pointer(progress, progress_free);
        return;
    }
    if (!*progress || strcmp(progress_label(*progress), label) != 0) {
        progress_free(*progress);
        *progress = progress_new(label, STDERR_FILENO);
    }
    progress_report(now, *progress);
}
