/* Whether an interrupted run may begin again, and what is in its document then. */
#include "config/error.h"
#include "runner/run/restart.h"
#include "runner/run/run_store.h"
#include "tests/support/memory_store.h"
#include <criterion/criterion.h>
#include <string.h>

static struct run *make(void)
{
    struct run *run = run_new("demo", "a-1");

    run->provider = g_strdup("bash");
    run->submitted_ms = run_now_ms() - 5000;
    return run;
}

Test(restart, is_bounded)
{
    g_autoptr(Run) run = make();
    g_autofree char *never = NULL, *attempts = NULL, *duration = NULL;

    cr_assert_not(run_may_restart(run, &never));
    cr_assert(strstr(never, "neither interruptible"), "%s", never);
    run->resources.interruptible = true;
    cr_assert(run_may_restart(run, NULL));
    run->lifetime.attempts = 2;
    cr_assert(run_may_restart(run, NULL));
    run->attempt = 2;
    cr_assert_not(run_may_restart(run, &attempts));
    cr_assert(strstr(attempts, "2 attempts are used up"), "%s", attempts);
    run->lifetime.attempts = 0;
    run->lifetime.duration_ms = 1000;
    cr_assert_not(run_may_restart(run, &duration));
    cr_assert(strstr(duration, "1 s for retries"), "%s", duration);
}

Test(restart, nobody_owns_an_interrupted_run)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(GError) error = NULL;
    g_autoptr(Run) run = make();
    g_autoptr(Run) back = NULL;

    cr_assert(run_store_create(root, run, &error), "%s", error ? error->message : "");
    cr_assert(run_store_move(root, run, RUN_SUBMITTED, NULL, NULL));
    run->owner.host = g_strdup("h");
    run->owner.machine = g_strdup("m");
    run->owner.pid = 7;
    cr_assert(run_store_move(root, run, RUN_DOWNLOADING, NULL, NULL));
    cr_assert(run_interrupt(root, run, "the machine went", &error));
    back = run_store_load(root, "demo", "a-1", &error);
    cr_assert_eq(back->status, RUN_INTERRUPTED);
    cr_assert_null(back->owner.host);
    cr_assert_str_eq(back->reason, "the machine went");
    cr_assert(run_begin_again(root, back, &error));
    cr_assert_eq(back->attempt, 2);
    cr_assert_eq(back->status, RUN_PENDING);
    cr_assert_null(back->reason);
    cr_assert_not(run_begin_again(root, run, NULL), "somebody else was faster");
    cr_assert_eq(run->attempt, 1);
}
