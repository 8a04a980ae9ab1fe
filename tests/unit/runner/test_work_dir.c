/* Work directories of one attempt after the other. */
#include "runner/machine.h"
#include "runner/work_dir.h"
#include <criterion/criterion.h>

Test(work_dir, an_attempt_removes_what_any_before_it_left)
{
    g_autofree char *home = g_dir_make_tmp("dstack-work-XXXXXX", NULL);
    g_autofree char *first = NULL;
    g_autoptr(Run) run = run_new("demo", "a-b-1");

    g_setenv("DSTACK_HOME", home, TRUE);
    cr_assert(work_dir_create(run, NULL));
    first = g_strdup(run->owner.work_dir);
    cr_assert(work_dir_is_ours(run));
    run->attempt = 3; /* the second was killed before it had one */
    cr_assert(work_dir_create(run, NULL));
    cr_assert_str_neq(run->owner.work_dir, first);
    cr_assert(work_dir_is_ours(run));
    cr_assert_not(g_file_test(first, G_FILE_TEST_EXISTS));
    cr_assert(tree_remove(home, NULL));
}
