/* Keys, and from settings, runs and tags to stores. */
#include "config/error.h"
#include "config/repo.h"
#include "storage/keys.h"
#include "storage/remote.h"
#include <criterion/criterion.h>
#include <ftw.h>
#include <glib/gstdio.h>
#include <string.h>

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    return remove(path);
}

/* A fresh home with an awkward name, and below it the work directory, which is entered. */
static char *home_make(void)
{
    char *home = g_dir_make_tmp("dstack-100%41 a-XXXXXX", NULL);
    g_autofree char *work = g_build_filename(home, "work", ".dstack", NULL);

    g_setenv("DSTACK_HOME", home, TRUE);
    cr_assert_eq(g_mkdir_with_parents(work, 0700), 0);
    cr_assert_eq(g_chdir(work), 0);
    cr_assert_eq(g_chdir(".."), 0);
    return home;
}

static void home_remove(const char *home)
{
    cr_assert_eq(g_chdir("/"), 0);
    cr_assert_eq(nftw(home, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void write_below(const char *top, const char *key, const char *text)
{
    g_autofree char *path = g_build_filename(top, key, NULL);
    g_autofree char *directory = g_path_get_dirname(path);

    cr_assert_eq(g_mkdir_with_parents(directory, 0700), 0);
    cr_assert(g_file_set_contents(path, text, -1, NULL));
}

/* The artifacts of NAME hold one file, "f", of this text. */
static void holds(const char *name, const char *expected)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *url = NULL, *text = NULL;
    g_autoptr(Store) store = remote_open_artifacts(name, &url, &error);
    size_t size;

    cr_assert_not_null(store, "%s: %s", name, error ? error->message : "");
    cr_assert_not_null(url);
    cr_assert(store_read(store, "x/f", 100, &text, &size, NULL, &error), "%s: %s", name,
              error ? error->message : "");
    cr_assert_eq(size, strlen(expected));
    cr_assert_eq(memcmp(text, expected, size), 0, "%s holds something else", name);
}

static void fails(const char *name, int code)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *url = NULL;

    cr_assert_null(remote_open_artifacts(name, &url, &error), "%s was found", name);
    cr_assert(error_is(error, code), "%s: %s", name, error->message);
    cr_assert_null(url);
}

Test(keys, names)
{
    static const char *const bad[] = {"", ".a", "..", "a/b", "a b", "a\n", "\303\244"};
    g_autofree char *longest = g_strnfill(100, 'a'), *too_long = g_strnfill(101, 'a');

    cr_assert(keys_name_is_valid("aZ9._-"));
    cr_assert(keys_name_is_valid(longest));
    cr_assert_not(keys_name_is_valid(too_long));
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        cr_assert_not(keys_name_is_valid(bad[i]), "\"%s\"", bad[i]);
}

Test(remote, artifacts_of_runs_and_tags_here_first_then_there)
{
    g_autofree char *home = home_make();
    g_autofree char *there = g_build_filename(home, "remote", NULL);
    struct repo repo;

    cr_assert(repo_find(".", &repo, NULL));
    {
        g_autofree char *one = g_strdup_printf("artifacts/%s/one-1/x/f", repo.id);
        g_autofree char *two = g_strdup_printf("artifacts/%s/two-1/x/f", repo.id);
        g_autofree char *here_tag = keys_tag(repo.id, "here");
        g_autofree char *there_tag = keys_tag(repo.id, "there");
        g_autofree char *bad_tag = keys_tag(repo.id, "bad");

        write_below(home, one, "local");
        write_below(there, one, "remote");
        write_below(there, two, "two");
        write_below(home, here_tag, "{\"version\": 1, \"run\": \"one-1\"}");
        write_below(there, there_tag, "{\"version\": 1, \"run\": \"two-1\"}");
        write_below(home, bad_tag, "{\"version\": 1, \"run\": \"../../x\"}");
    }
    holds("one-1", "local");
    holds("two-1", "two");
    holds(":here", "local");
    holds(":there", "two");
    fails("three-1", ENOENT);
    fails(":none", ENOENT);
    fails(":bad", EINVAL);
    fails("../x", EINVAL);
    fails(":", EINVAL);
    repo_clear(&repo);
    home_remove(home);
}

Test(remote, a_file_url_that_is_no_path_makes_no_directory)
{
    g_autofree char *home = home_make();
    g_autoptr(GError) error = NULL;
    struct remote *remote = remote_new("r", "file://below/here");

    cr_assert_null(remote_open(remote, &error));
    cr_assert(error_is(error, EINVAL), "%s", error->message);
    cr_assert_not(g_file_test("below", G_FILE_TEST_EXISTS));
    remote_free(remote);
    home_remove(home);
}
