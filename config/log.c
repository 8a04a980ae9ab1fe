#include "config/log.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warning", "info", "debug"};

/* Written once at start, read by every thread. */
static atomic_int current_level = -1;
static atomic_int log_fd = STDERR_FILENO;

static int level_from_environment(int otherwise)
{
    const char *name = g_getenv("DSTACK_LOG");

    for (int i = 0; name && i <= LOG_DEBUG; i++)
        if (strcmp(name, level_names[i]) == 0)
            return i;
    return otherwise;
}

void log_set_level(enum log_level level)
{
    atomic_store(&current_level, level_from_environment(level));
}

void log_set_fd(int fd)
{
    atomic_store(&log_fd, fd);
}

static void G_GNUC_PRINTF(2, 0) write_line(enum log_level level, const char *format, va_list args)
{
    g_autofree char *message = NULL, *line = NULL, *time = NULL;
    g_autoptr(GDateTime) now = NULL;
    int limit = atomic_load(&current_level);
    ssize_t written;

    if (limit < 0) {
        limit = level_from_environment(LOG_WARNING);
        atomic_store(&current_level, limit);
    }
    if ((int)level > limit)
        return;
    now = g_date_time_new_now_utc();
    time = g_date_time_format(now, "%Y-%m-%dT%H:%M:%S.%fZ");
    message = g_strdup_vprintf(format, args);
    g_strdelimit(message, "\r\n", ' '); /* one line an event, whatever a server said */
    line = g_strdup_printf("%s %s %s\n", time, level_names[level], message);
    written = write(atomic_load(&log_fd), line, strlen(line));
    (void)written; /* nowhere left to say it */
}

#define DEFINE_LOG(name, level)                                                                    \
    void name(const char *format, ...)                                                             \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        write_line(level, format, args);                                                           \
        va_end(args);                                                                              \
    }

DEFINE_LOG(log_error, LOG_ERROR)
DEFINE_LOG(log_warning, LOG_WARNING)
DEFINE_LOG(log_info, LOG_INFO)
DEFINE_LOG(log_debug, LOG_DEBUG)
