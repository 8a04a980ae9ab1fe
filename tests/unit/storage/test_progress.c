#include "storage/progress.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

static const struct transfer_progress half = {
    .files_done = 1, .files_total = 2, .bytes_done = 512, .bytes_total = 1024, .counting = true};

Test(progress, line_says_what_is_done)
{
    g_autofree char *line = progress_format("up", &half, 1.0, 0);
    g_autofree char *bar = progress_format("up", &half, 1.0, 200);
    g_autofree char *narrow = progress_format("up", &half, 1.0, 10);

    cr_assert(strstr(line, "1 of 2+ files") && !strchr(line, '['));
    cr_assert(strstr(bar, "[############            ]") != NULL);
    cr_assert(strlen(narrow) == 10);
}

Test(progress, more_done_than_known_does_not_overflow)
{
    struct transfer_progress now = {.bytes_done = 10, .bytes_total = 5};
    g_autofree char *bar = progress_format("", &now, 0, 200);

    cr_assert(strstr(bar, "[########################]") != NULL);
}

Test(progress, is_silent_on_a_pipe_at_first)
{
    int fds[2];
    struct progress *progress;
    char byte;

    cr_assert(pipe(fds) == 0);
    progress = progress_new("up", fds[1]);
    progress_report(&half, progress);
    progress_free(progress);
    close(fds[1]);
    cr_assert(read(fds[0], &byte, 1) == 0);
    close(fds[0]);
}
