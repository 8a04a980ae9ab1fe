#include "storage/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINE_US   (3 * G_USEC_PER_SEC)
#define BAR_WIDTH 24

struct progress {
    char *label;
    int fd;
    bool is_terminal, is_open; /* a bar stands on the last line */
    int64_t start_us, next_line_us;
};

struct progress *progress_new(const char *label, int fd)
{
    struct progress *progress = g_new0(struct progress, 1);

    progress->label = g_strdup(label);
    progress->fd = fd;
    progress->is_terminal = isatty(fd);
    progress->start_us = g_get_monotonic_time();
    progress->next_line_us = progress->start_us + LINE_US;
    return progress;
}

const char *progress_label(const struct progress *progress)
{
    return progress->label;
}

static void append_bar(GString *line, const struct transfer_progress *now)
{
    uint64_t total = now->bytes_total ? now->bytes_total : now->files_total;
    uint64_t done = now->bytes_total ? now->bytes_done : now->files_done;
    unsigned filled =
        total ? (unsigned)(BAR_WIDTH * ((double)MIN(done, total) / (double)total)) : 0;

    g_string_append(line, " [");
    for (unsigned i = 0; i < BAR_WIDTH; i++)
        g_string_append_c(line, i < filled ? '#' : ' ');
    g_string_append_c(line, ']');
}

char *progress_format(const char *label, const struct transfer_progress *now, double seconds,
                      unsigned width)
{
    GString *line = g_string_new(label);
    g_autofree char *done = g_format_size_full(now->bytes_done, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *total = g_format_size_full(now->bytes_total, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *rate = g_format_size_full(
        seconds > 0 ? (guint64)((double)now->bytes_done / seconds) : 0, G_FORMAT_SIZE_IEC_UNITS);
    const char *more = now->counting ? "+" : "";

    if (width)
        append_bar(line, now);
    g_string_append_printf(
        line, " %s of %s%s, %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT "%s files, %s/s", done,
        total, more, now->files_done, now->files_total, more, rate);
    if (width && g_utf8_strlen(line->str, -1) > (glong)width) {
        g_autofree char *cut = g_utf8_substring(line->str, 0, (glong)width);

        g_string_assign(line, cut);
    }
    return g_string_free(line, FALSE);
}

static void put(const struct progress *progress, const char *text)
{
    size_t left = strlen(text);

    while (left) {
        ssize_t count = write(progress->fd, text, left);

        if (count < 0)
            return; /* nobody reads it: the transfer matters more */
        text += count;
        left -= (size_t)count;
    }
}

static unsigned columns(int fd)
{
    struct winsize size;

    return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

void progress_report(const struct transfer_progress *now, void *user)
{
    struct progress *progress = user;
    int64_t time_us = g_get_monotonic_time();
    double seconds = (double)(time_us - progress->start_us) / G_USEC_PER_SEC;
    g_autofree char *text = NULL;
    g_autofree char *line = NULL;

    if (!progress->is_terminal && time_us < progress->next_line_us)
        return;
    progress->next_line_us = time_us + LINE_US;
    text = progress_format(progress->label, now, seconds,
                           progress->is_terminal ? columns(progress->fd) - 1 : 0);
    line =
        progress->is_terminal ? g_strdup_printf("\r%s\033[K", text) : g_strdup_printf("%s\n", text);
    put(progress, line);
    progress->is_open = progress->is_terminal;
}

void progress_free(struct progress *progress)
{
    if (!progress)
        return;
    if (progress->is_open)
        put(progress, "\n");
    g_free(progress->label);
    g_free(progress);
}
