/* Units, repo ids and settings. */
#include "config/error.h"
#include "config/repo.h"
#include "config/settings.h"
#include "config/units.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

Test(units, sizes)
{
    uint64_t bytes;
    g_autofree char *text = size_format(7864320);

    cr_assert(size_parse("7.5MiB", &bytes));
    cr_assert_eq(bytes, 7864320);
    cr_assert(size_parse("64kb", &bytes));
    cr_assert_eq(bytes, 65536);
    cr_assert_not(size_parse("-1", &bytes));
    cr_assert_not(size_parse("1x", &bytes));
    cr_assert_not(size_parse("", &bytes));
    cr_assert_not(size_parse("0x10", &bytes));
    cr_assert_not(size_parse("1e3", &bytes));
    cr_assert_not(size_parse("99999999PB", &bytes));
    cr_assert_str_eq(text, "7.5MiB");
}

Test(units, durations)
{
    int64_t ms;

    cr_assert(duration_parse("2h", &ms));
    cr_assert_eq(ms, 7200000);
    cr_assert_not(duration_parse("2", &ms));
    cr_assert_not(duration_parse("h", &ms));
    cr_assert_not(duration_parse("2hh", &ms));
}

Test(repo, one_id_for_every_form_of_a_url)
{
    static const char *const urls[] = {"https://host/me/code.git", "git@host:me/code.git",
                                       "ssh://git@host:22/me/code/", "https://u:p@host/me/code"};

    for (unsigned i = 0; i < G_N_ELEMENTS(urls); i++) {
        g_autofree char *id = repo_id_of_url(urls[i]);

        cr_assert_str_eq(id, "me.code", "%s gave %s", urls[i], id);
    }
}

Test(repo, long_names_give_ids_that_fit_and_differ)
{
    g_autofree char *name = g_strnfill(100, 'n');
    g_autofree char *one_url = g_strdup_printf("https://host/owner/%sa", name);
    g_autofree char *two_url = g_strdup_printf("https://host/owner/%sb", name);
    g_autofree char *ssh_url = g_strdup_printf("git@host:owner/%sa.git", name);
    g_autofree char *one = repo_id_of_url(one_url), *two = repo_id_of_url(two_url);
    g_autofree char *ssh = repo_id_of_url(ssh_url);

    cr_assert_leq(strlen(one), 100);
    cr_assert_str_neq(one, two);
    cr_assert_str_eq(one, ssh);
}

Test(repo, a_plain_directory_has_one_from_below_too)
{
    g_autofree char *top = g_dir_make_tmp("dstack-repo-XXXXXX", NULL);
    g_autofree char *marker = g_build_filename(top, ".dstack", NULL);
    g_autofree char *below = g_build_filename(top, "a", NULL);
    struct repo one, two;

    g_mkdir(marker, 0700);
    g_mkdir(below, 0700);
    cr_assert(repo_find(top, &one, NULL));
    cr_assert(repo_find(below, &two, NULL));
    cr_assert_str_eq(one.id, two.id);
    cr_assert_str_eq(one.top, two.top);
    repo_clear(&one);
    repo_clear(&two);
    g_rmdir(marker);
    g_rmdir(below);
    g_rmdir(top);
}

/* Taken for a plain directory it would have another id, and what git ignores would be code. */
Test(repo, git_that_does_not_answer_is_an_error)
{
    g_autofree char *top = g_dir_make_tmp("dstack-repo-XXXXXX", NULL);
    g_autofree char *below = g_build_filename(top, "a", NULL);
    const char *argv[] = {"git", "init", "-q", top, NULL};
    const char *clear[] = {"/bin/rm", "-r", top, NULL};
    g_autoptr(GError) refused = NULL, none = NULL;
    struct repo repo;

    cr_assert(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL,
                           NULL, NULL));
    g_mkdir(below, 0700);
    g_setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1", TRUE);
    cr_assert_not(repo_find(below, &repo, &refused));
    cr_assert(error_is(refused, EACCES) && strstr(refused->message, "safe.directory"), "%s",
              refused->message);
    g_setenv("PATH", "/nowhere", TRUE);
    cr_assert_not(repo_find(below, &repo, &none));
    cr_assert(error_is(none, ENOENT) && strstr(none->message, "install git"), "%s", none->message);
    cr_assert(g_spawn_sync(NULL, (char **)clear, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL));
    cr_assert(repo_find("/tmp", &repo, NULL));
    cr_assert_not(repo.is_git);
    repo_clear(&repo);
}

static char *home_make(void)
{
    char *home = g_dir_make_tmp("dstack-home-XXXXXX", NULL);

    g_setenv("DSTACK_HOME", home, TRUE);
    return home;
}

static void home_remove(const char *home)
{
    g_autofree char *file = g_build_filename(home, "config.yaml", NULL);

    g_unlink(file);
    cr_assert_eq(g_rmdir(home), 0, "something was left in %s", home);
}

Test(settings, come_back_as_saved)
{
    g_autofree char *home = home_make();
    g_autoptr(GError) error = NULL;
    struct settings settings, back;
    struct remote *remote = remote_new("one", "s3://bucket/a: \"b\"");
    bool embedded;

    remote->endpoint = g_strdup("http://127.0.0.1:1");
    remote->cacert = g_strdup("/etc/it's.pem");
    remote->virtual_host = true;
    remote->unsigned_payload = true;
    remote->slurm.partition = g_strdup("it's");
    remote->slurm.submit_host = g_strdup("me@login");
    remote->slurm.options = g_strsplit("--exclusive|--comment=a b", "|", -1);
    cr_assert(settings_load(&settings, &error));
    settings_put(&settings, remote);
    cr_assert(settings_save(&settings, &error), "%s", error ? error->message : "");
    cr_assert(settings_load(&back, &error), "%s", error ? error->message : "");
    remote = settings_remote(&back, NULL, &embedded, &error);
    cr_assert_not_null(remote);
    cr_assert_not(embedded);
    cr_assert_str_eq(remote->storage, "s3://bucket/a: \"b\"");
    cr_assert_str_eq(remote->endpoint, "http://127.0.0.1:1");
    cr_assert_str_eq(remote->cacert, "/etc/it's.pem");
    cr_assert(remote->virtual_host);
    cr_assert(remote->unsigned_payload);
    cr_assert_str_eq(remote->slurm.partition, "it's");
    cr_assert_str_eq(remote->slurm.submit_host, "me@login");
    cr_assert_str_eq(remote->slurm.options[1], "--comment=a b");
    cr_assert_null(remote->slurm.qos);
    cr_assert_null(settings_remote(&back, "two", &embedded, &error));
    cr_assert_not_null(error);
    settings_clear(&settings);
    settings_clear(&back);
    home_remove(home);
}

Test(settings, without_any_the_remote_is_embedded)
{
    g_autofree char *home = home_make();
    struct settings settings;
    bool embedded = false;

    cr_assert(settings_load(&settings, NULL));
    cr_assert_not_null(settings_remote(&settings, NULL, &embedded, NULL));
    cr_assert(embedded);
    embedded = false;
    cr_assert_not_null(settings_remote(&settings, NULL, &embedded, NULL));
    cr_assert(embedded, "only the first one to ask was told");
    cr_assert(settings_save(&settings, NULL));
    settings_clear(&settings);
    cr_assert(settings_load(&settings, NULL), "what was saved is not read");
    cr_assert_eq(settings.remotes->len, 0);
    settings_clear(&settings);
    home_remove(home);
}

Test(settings, a_wrong_key_has_its_place)
{
    g_autofree char *home = home_make();
    g_autofree char *file = g_build_filename(home, "config.yaml", NULL);
    g_autoptr(GError) error = NULL;
    struct settings settings;

    g_file_set_contents(file, "remotes:\n  - name: a\n    storag: x\n", -1, NULL);
    cr_assert_not(settings_load(&settings, &error));
    cr_assert_eq(error->code, EINVAL);
    cr_assert_not_null(strstr(error->message, "config.yaml:3:5: "), "%s", error->message);
    settings_clear(&settings);
    home_remove(home);
}

Test(settings, options_that_are_ours_are_refused_with_their_place)
{
    g_autofree char *home = home_make();
    g_autofree char *file = g_build_filename(home, "config.yaml", NULL);
    g_autoptr(GError) error = NULL;
    struct settings settings;

    g_file_set_contents(file,
                        "remotes:\n  - name: a\n    storage: file:///x\n    slurm:\n"
                        "      options: [--exclusive, --requeue]\n",
                        -1, NULL);
    cr_assert_not(settings_load(&settings, &error));
    cr_assert_eq(error->code, EINVAL);
    cr_assert_not_null(strstr(error->message, "config.yaml:5:"), "%s", error->message);
    cr_assert_not_null(strstr(error->message, "\"--requeue\" cannot be"), "%s", error->message);
    settings_clear(&settings);
    home_remove(home);
}

Test(settings, a_submit_host_is_no_option_of_ssh)
{
    g_autofree char *home = home_make();
    g_autofree char *file = g_build_filename(home, "config.yaml", NULL);
    g_autoptr(GError) error = NULL;
    struct settings settings;

    g_file_set_contents(file,
                        "remotes:\n  - name: a\n    storage: file:///x\n    slurm:\n"
                        "      submit_host: -oProxyCommand=x\n",
                        -1, NULL);
    cr_assert_not(settings_load(&settings, &error));
    cr_assert_eq(error->code, EINVAL);
    cr_assert_not_null(strstr(error->message, "config.yaml:5:20: "), "%s", error->message);
    settings_clear(&settings);
    home_remove(home);
}
