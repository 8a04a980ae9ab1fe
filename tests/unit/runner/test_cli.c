/* What subcommands share: finding runs and tags, and refusing what cannot be one. */
#include "config/error.h"
#include "runner/cli/cli.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *top;
static struct cli_roots roots;

static void set_up(void)
{
    g_autofree char *home = NULL;

    top = g_dir_make_tmp("dstack-cli-XXXXXX", NULL);
    home = g_build_filename(top, "home", NULL);
    g_setenv("DSTACK_HOME", home, TRUE);
    cr_assert_eq(chdir(top), 0);
    cr_assert(cli_roots_open(&roots, NULL));
}

static void tear_down(void)
{
    const char *argv[] = {"rm", "-rf", top, NULL};

    cli_roots_clear(&roots);
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL,
                 NULL);
    g_free(top);
}

TestSuite(cli, .init = set_up, .fini = tear_down);

static void add_run(const char *name)
{
    g_autoptr(Run) run = run_new(roots.repo.id, name);
    g_autoptr(GError) error = NULL;

    run->provider = g_strdup("bash");
    cr_assert(run_store_create(roots.local, run, &error), "%s", error ? error->message : "");
}

static int tags(const char *a, const char *b, const char *c)
{
    char *argv[] = {"tags", (char *)a, (char *)b, (char *)c, NULL};

    return cmd_tags.run(&cmd_tags, c ? 4 : 3, argv);
}

Test(cli, a_run_that_is_not_there_says_what_to_do)
{
    g_autoptr(GError) error = NULL;

    cr_assert_null(cli_find_run(&roots, "no-run-1", &error));
    cr_assert(error_is(error, ENOENT));
    cr_assert_not_null(strstr(error->message, "dstack ps -a"), "%s", error->message);
}

Test(cli, a_name_with_a_slash_is_refused)
{
    g_autoptr(GError) error = NULL;

    cr_assert_null(cli_find_run(&roots, "../x", &error));
    cr_assert(error_is(error, EINVAL));
}

Test(cli, tags_take_both_orders_and_go)
{
    g_autofree char *run = NULL, *other = NULL;

    add_run("calm-owl-1");
    cr_assert_eq(tags("add", "calm-owl-1", "one"), 0);
    cr_assert_eq(tags("add", "two", "calm-owl-1"), 0);
    cr_assert_eq(cli_resolve(&roots, ":one", &run, NULL, NULL), roots.local);
    cr_assert_str_eq(run, "calm-owl-1");
    cr_assert_eq(cli_resolve(&roots, ":two", &other, NULL, NULL), roots.local);
    cr_assert_eq(tags("delete", "one", NULL), 0);
    cr_assert_eq(tags("delete", "one", NULL), 1);
    cr_assert_eq(tags("add", "no-run-1", "no-run-2"), 1);
    cr_assert_eq(tags("remove", "two", NULL), 2);
}
