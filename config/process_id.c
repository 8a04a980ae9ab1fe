#include "config/process_id.h"

#include <stdio.h>
#include <string.h>

char *machine_id(void)
{
    g_autofree char *boot = NULL, *space = NULL;

    if (!g_file_get_contents("/proc/sys/kernel/random/boot_id", &boot, NULL, NULL))
        boot = g_strdup(g_get_host_name());
    space = g_file_read_link("/proc/self/ns/pid", NULL);
    return g_strdup_printf("%s/%s", g_strstrip(boot), space ? space : "");
}

uint64_t process_start_ticks(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    unsigned long long ticks = 0;
    const char *rest;
    char state = 'Z';

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    rest = strrchr(text, ')'); /* the name before it may hold anything */
    if (!rest || sscanf(rest + 1,
                        " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                        "%*s %llu",
                        &state, &ticks) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : ticks;
}

bool process_is_alive(pid_t pid, uint64_t start_ticks)
{
    return pid > 0 && start_ticks && process_start_ticks(pid) == start_ticks;
}
