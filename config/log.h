/* The program's own log: one line an event, "TIME LEVEL message", to stderr or a file.
 *
 * threads: any. A line is written with one write(2).
 * safety:  never pass a secret or a signed header.
 */
#pragma once

#include <glib.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* Lines above LEVEL are dropped. The default is LOG_WARNING; DSTACK_LOG=error|warning|info|debug
 * in the environment sets it before main's choice, and wins. */
void log_set_level(enum log_level level);

/* Sends lines to FD from now on (default 2). The caller keeps FD open. */
void log_set_fd(int fd);

void log_error(const char *format, ...) G_GNUC_PRINTF(1, 2);
void log_warning(const char *format, ...) G_GNUC_PRINTF(1, 2);
void log_info(const char *format, ...) G_GNUC_PRINTF(1, 2);
void log_debug(const char *format, ...) G_GNUC_PRINTF(1, 2);
