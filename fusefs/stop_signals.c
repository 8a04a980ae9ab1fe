#include "fusefs/stop_signals.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static sigset_t all(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    return set;
}

void stop_signals_block(void)
{
    sigset_t set = all();

    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* The kernel's word that the parent has died comes in the parent's name, too. */
static bool counts(const siginfo_t *info, pid_t parent)
{
    return parent == 0 || info->si_pid == parent || info->si_pid == getpid() || getppid() != parent;
}

int stop_signals_wait(pid_t parent, int timeout_ms)
{
    int64_t until_us = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;
    sigset_t set = all();
    siginfo_t info;

    for (;;) {
        int64_t left_us = MAX(until_us - g_get_monotonic_time(), 0);
        struct timespec left = {left_us / G_USEC_PER_SEC, left_us % G_USEC_PER_SEC * 1000};
        int number = timeout_ms < 0 ? sigwaitinfo(&set, &info) : sigtimedwait(&set, &info, &left);

        if (number > 0 && counts(&info, parent))
            return number;
        if (number < 0 && errno == EAGAIN)
            return 0;
    }
}
