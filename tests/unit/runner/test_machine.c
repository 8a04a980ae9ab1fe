/* Processes found by their environment and told apart by their start. */
#include "runner/machine.h"
#include "runner/process.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t start(const char *script, const char *id)
{
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), JOB_VARIABLE, id, TRUE);
    struct process_options options = {
        .argv = (char **)argv, .env = env, .output = 2, .parent_death = SIGKILL};
    g_autoptr(GError) error = NULL;
    pid_t pid;

    cr_assert(process_start(&options, &pid, &error), "%s", error ? error->message : "");
    return pid;
}

Test(machine, a_reused_pid_is_another_process)
{
    uint64_t ticks = process_start_ticks(getpid());

    cr_assert_gt(ticks, 0);
    cr_assert(process_is_alive(getpid(), ticks));
    cr_assert_not(process_is_alive(getpid(), ticks + 1));
}

Test(machine, what_moved_to_its_own_session_is_found)
{
    g_autofree char *id = g_uuid_string_random();
    pid_t pid = start("setsid sleep 100 & exec sleep 100", id);

    unsigned found = 0;

    for (int i = 0; i < 100 && found < 2; i++) {
        g_usleep(20000);
        found = processes_signal(JOB_VARIABLE, id, 0);
    }
    cr_assert_eq(found, 2);
    cr_assert(processes_end(JOB_VARIABLE, id, SIGKILL, 5000));
    waitpid(pid, NULL, 0);
}

/* It has no environment for an instant, over and over. */
Test(machine, what_starts_itself_again_and_again_is_found)
{
    g_autofree char *id = g_uuid_string_random();
    pid_t pid = start("export LOOP='exec sh -c \"$LOOP\"'; eval \"$LOOP\"", id);

    for (int i = 0; i < 1000; i++)
        cr_assert_eq(processes_signal(JOB_VARIABLE, id, 0), 1, "at %d", i);
    cr_assert(processes_end(JOB_VARIABLE, id, SIGKILL, 5000));
    waitpid(pid, NULL, 0);
}

Test(machine, a_program_that_is_not_there)
{
    const char *argv[] = {"/no/such/program", NULL};
    struct process_options options = {.argv = (char **)argv, .env = NULL, .output = 2};
    g_autoptr(GError) error = NULL;
    pid_t pid;

    cr_assert_not(process_start(&options, &pid, &error));
    cr_assert_eq(error->code, ENOENT);
}

Test(machine, exit_codes)
{
    int status;

    waitpid(start("exit 3", "x"), &status, 0);
    cr_assert_eq(process_exit_code(status), 3);
    waitpid(start("kill -9 $$", "x"), &status, 0);
    cr_assert_eq(process_exit_code(status), 137);
}

Test(machine, a_tree_is_removed_with_its_links_only)
{
    g_autofree char *dir = g_dir_make_tmp("dstack-test-tree-XXXXXX", NULL);
    g_autofree char *link = g_build_filename(dir, "link", NULL);
    g_autofree char *other = g_dir_make_tmp("dstack-test-tree-XXXXXX", NULL);
    g_autofree char *kept = g_build_filename(other, "kept", NULL);

    cr_assert(g_file_set_contents(kept, "x", 1, NULL));
    cr_assert_eq(symlink(other, link), 0);
    cr_assert(tree_remove(dir, NULL));
    cr_assert_not(g_file_test(dir, G_FILE_TEST_EXISTS));
    cr_assert(g_file_test(kept, G_FILE_TEST_EXISTS));
    cr_assert(tree_remove(other, NULL));
}

/* A module cache of Go, or a data set with modes that say "hands off". Root is never refused, so it
 * is tried as somebody else. */
Test(machine, directories_that_nobody_may_write_are_removed)
{
    g_autofree char *top = g_dir_make_tmp("dstack-tree-XXXXXX", NULL);
    g_autofree char *inner = g_build_filename(top, "a/b", NULL);
    g_autofree char *file = g_build_filename(inner, "file", NULL);
    g_autofree char *outer = g_build_filename(top, "a", NULL);
    int status;
    pid_t pid;

    cr_assert_eq(g_mkdir_with_parents(inner, 0755), 0);
    cr_assert(g_file_set_contents(file, "x", 1, NULL));
    if (geteuid() == 0)
        cr_assert(!chown(top, 65534, 65534) && !chown(outer, 65534, 65534) &&
                  !chown(inner, 65534, 65534));
    cr_assert(!g_chmod(inner, 0555) && !g_chmod(outer, 0555));
    pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
            _exit(2);
        _exit(tree_remove(outer, NULL) ? 0 : 1);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(status, 0);
    cr_expect(!g_file_test(outer, G_FILE_TEST_EXISTS));
    cr_assert(tree_remove(top, NULL));
}
