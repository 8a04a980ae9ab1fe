#include "fusefs/signals.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

static bool asks(uint64_t pending, uint64_t blocked, uint64_t ignored, uint64_t caught)
{
    g_autofree char *status =
        g_strdup_printf("Name:\tx\nSigPnd:\t%016lx\nShdPnd:\t%016lx\nSigBlk:\t"
                        "%016lx\nSigIgn:\t%016lx\nSigCgt:\t%016lx\n",
                        0ul, (unsigned long)pending, (unsigned long)blocked, (unsigned long)ignored,
                        (unsigned long)caught);

    return status_asks_to_end(status);
}

static uint64_t bit(int number)
{
    return UINT64_C(1) << (number - 1);
}

Test(signals, those_that_end_a_program_end_its_wait)
{
    cr_assert(asks(bit(SIGKILL), 0, 0, 0));
    cr_assert(asks(bit(SIGTERM), 0, 0, 0));
    cr_assert(asks(bit(SIGINT), 0, 0, bit(SIGINT)), "Ctrl-C of a program that handles it");
    cr_assert(asks(bit(SIGALRM), 0, 0, 0), "the default is to end");
    cr_assert(asks(bit(SIGRTMIN), 0, 0, 0));
}

Test(signals, those_that_are_handled_or_do_nothing_do_not)
{
    cr_assert_not(asks(0, 0, 0, 0));
    cr_assert_not(asks(bit(SIGCHLD), 0, 0, bit(SIGCHLD)));
    cr_assert_not(asks(bit(SIGCHLD), 0, 0, 0));
    cr_assert_not(asks(bit(SIGALRM), 0, 0, bit(SIGALRM)));
    cr_assert_not(asks(bit(SIGUSR1), bit(SIGUSR1), 0, 0), "blocked");
    cr_assert_not(asks(bit(SIGTERM), 0, bit(SIGTERM), 0), "ignored");
}

Test(signals, a_task_that_cannot_be_seen_may_be_ending)
{
    cr_assert(task_is_asked_to_end(0, true));
    cr_assert_not(task_is_asked_to_end(0, false));
    cr_assert_not(task_is_asked_to_end(getpid(), true));
}
