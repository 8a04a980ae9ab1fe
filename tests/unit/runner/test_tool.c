/* Other programs: what they say, how long they may take. */
#include "config/error.h"
#include "runner/tool.h"
#include <criterion/criterion.h>
#include <string.h>

static bool shell(const char *script, const char *input, char **output, GError **error)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    const struct tool tool = {argv, input, 1000};

    return tool_run(&tool, output, error);
}

Test(tool, answers)
{
    g_autofree char *input = g_strnfill(300000, 'x'), *output = NULL;
    g_autoptr(GError) error = NULL;

    cr_assert(shell("cat; echo noise >&2", input, &output, &error), "%s", error->message);
    cr_assert_str_eq(output, input);
}

Test(tool, says_why_it_failed)
{
    g_autoptr(GError) said = NULL, silent = NULL, killed = NULL;

    cr_assert_not(shell("echo two >&2; echo lines >&2; exit 3", NULL, NULL, &said));
    cr_assert(error_is(said, EIO) && strcmp(said->message, "sh: two lines") == 0, "%s",
              said->message);
    cr_assert_not(shell("exit 3", NULL, NULL, &silent));
    cr_assert(strstr(silent->message, "without a word"), "%s", silent->message);
    cr_assert_not(shell("kill -9 $$", NULL, NULL, &killed));
    cr_assert(error_is(killed, EIO));
}

Test(tool, is_not_there)
{
    const char *const argv[] = {"no-such-program-of-ours", NULL};
    const struct tool tool = {argv, NULL, 2000};
    g_autoptr(GError) error = NULL;

    cr_assert_not(tool_run(&tool, NULL, &error));
    cr_assert(error_is(error, ENOENT), "%s", error->message);
}

Test(tool, is_killed_when_it_takes_too_long)
{
    int64_t began_us = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;

    cr_assert_not(shell("exec sleep 100", NULL, NULL, &error));
    cr_assert(error_is(error, ETIMEDOUT), "%s", error->message);
    cr_assert_lt(g_get_monotonic_time() - began_us, 10 * G_USEC_PER_SEC);
}
