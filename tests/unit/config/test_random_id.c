#include "config/random_id.h"

#include <criterion/criterion.h>
#include <glib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A process that forked has no twin. */
Test(random_id, differs_behind_a_fork)
{
    g_autofree char *before = random_id(), *here = NULL;
    char there[33] = "";
    int ends[2], status;
    pid_t pid;

    cr_assert_eq(pipe(ends), 0);
    pid = fork();
    if (pid == 0) {
        g_autofree char *id = random_id();

        _exit(write(ends[1], id, 32) == 32 ? 0 : 1);
    }
    here = random_id();
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    cr_assert_eq(read(ends[0], there, 32), 32);
    cr_expect_eq(strspn(here, "0123456789abcdef"), 32);
    cr_expect_str_neq(here, there);
    cr_expect_str_neq(here, before);
}
