#include "fusefs/signals.h"

#include <glib.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

static uint64_t mask_of(const char *status, const char *name)
{
    const char *line = strstr(status, name);

    return line ? g_ascii_strtoull(line + strlen(name), NULL, 16) : 0;
}

static uint64_t bit(int number)
{
    return UINT64_C(1) << (number - 1);
}

bool status_asks_to_end(const char *status)
{
    uint64_t pending = mask_of(status, "\nSigPnd:") | mask_of(status, "\nShdPnd:");
    uint64_t blocked = mask_of(status, "\nSigBlk:"), ignored = mask_of(status, "\nSigIgn:");
    uint64_t caught = mask_of(status, "\nSigCgt:");
    uint64_t asking = bit(SIGINT) | bit(SIGTERM) | bit(SIGHUP) | bit(SIGQUIT) | bit(SIGKILL);
    uint64_t harmless = bit(SIGCHLD) | bit(SIGCONT) | bit(SIGURG) | bit(SIGWINCH) | bit(SIGSTOP) |
                        bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU);

    pending &= ~(blocked | ignored);
    return pending & (asking | ~(caught | harmless));
}

bool task_is_asked_to_end(pid_t tid, bool unknown)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)tid);
    g_autofree char *status = NULL;

    if (tid <= 0 || !g_file_get_contents(path, &status, NULL, NULL))
        return unknown;
    return status_asks_to_end(status);
}
