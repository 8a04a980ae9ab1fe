#include "runner/run/restart.h"
#include "config/error.h"
#include "config/units.h"
#include "runner/machine.h"
#include "runner/run/run_store.h"
#include <unistd.h>

bool run_wants_restarts(const struct run *run)
{
    return run->resources.interruptible || run->lifetime.attempts > 1 ||
           run->lifetime.duration_ms > 0;
}

bool run_may_restart(const struct run *run, char **why_not)
{
    const struct lifetime *limits = &run->lifetime;
    char *why = NULL;

    if (!run_wants_restarts(run))
        why = g_strdup("it is neither interruptible nor has it retry");
    else if (limits->attempts && run->attempt >= limits->attempts)
        why = g_strdup_printf("its %u attempts are used up", limits->attempts);
    else if (limits->duration_ms && run_now_ms() - run->submitted_ms > limits->duration_ms)
        why = g_strdup_printf("its %" G_GINT64_FORMAT " s for retries are over",
                              limits->duration_ms / 1000);
    if (!why)
        return true;
    if (why_not)
        *why_not = why;
    else
        g_free(why);
    return false;
}

void run_own(struct run *run)
{
    g_free(run->owner.host);
    g_free(run->owner.machine);
    run->owner.host = g_strdup(g_get_host_name());
    run->owner.machine = machine_id();
    run->owner.pid = getpid();
    run->owner.start_ticks = process_start_ticks(getpid());
}

void run_disown(struct run *run)
{
    g_clear_pointer(&run->owner.host, g_free);
    g_clear_pointer(&run->owner.machine, g_free);
    g_clear_pointer(&run->owner.work_dir, g_free);
    run->owner.pid = 0;
    run->owner.start_ticks = 0;
}

bool run_interrupt(struct store *root, struct run *run, const char *reason, GError **error)
{
    if (run->status == RUN_INTERRUPTED)
        return true;
    run_disown(run);
    return run_store_move(root, run, RUN_INTERRUPTED, reason, error);
}

bool run_begin_again(struct store *root, struct run *run, GError **error)
{
    run->attempt++;
    run->exit_code = -1;
    g_clear_pointer(&run->reason, g_free);
    if (run_store_move(root, run, RUN_PENDING, NULL, error))
        return true;
    run->attempt--;
    return false;
}
