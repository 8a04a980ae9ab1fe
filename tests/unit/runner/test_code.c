/* Snapshots of a working tree, and what extraction refuses. */
#include "config/autofd.h"
#include "config/error.h"
#include "runner/machine.h"
#include "runner/submit/code.h"
#include "tests/support/memory_store.h"
#include <archive.h>
#include <archive_entry.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *temporary(void)
{
    char *dir = g_dir_make_tmp("dstack-test-code-XXXXXX", NULL);

    cr_assert_not_null(dir);
    return dir;
}

static void put(const char *dir, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *parent = g_path_get_dirname(path);

    cr_assert_eq(g_mkdir_with_parents(parent, 0755), 0);
    cr_assert(g_file_set_contents(path, text, -1, NULL));
}

static void run_in(const char *dir, const char *command)
{
    g_autofree char *line = g_strdup_printf("cd '%s' && %s", dir, command);
    const char *argv[] = {"sh", "-c", line, NULL};
    int status = -1;

    cr_assert(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL,
                           &status, NULL));
    cr_assert_eq(status, 0, "%s", line);
}

Test(code, git_decides_what_belongs)
{
    g_autofree char *dir = temporary();
    g_autoptr(GPtrArray) files = NULL;
    g_autofree char *names = NULL;

    put(dir, ".gitignore", "*.o\n");
    put(dir, "a.c", "1");
    put(dir, "a.o", "2");
    put(dir, "sub/new \xc3\xa9.txt", "3");
    run_in(dir, "git init -q . && git add a.c && git config core.quotepath on");
    files = code_files(dir, NULL);
    cr_assert_not_null(files);
    g_ptr_array_add(files, NULL);
    names = g_strjoinv("|", (char **)files->pdata);
    cr_assert_str_eq(names, ".gitignore|a.c|sub/new \xc3\xa9.txt");
    cr_assert(tree_remove(dir, NULL));
}

Test(code, repos_inside_the_repo_belong_to_it)
{
    g_autofree char *dir = temporary();
    g_autoptr(GPtrArray) files = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *names = NULL;

    put(dir, "lib/.gitignore", "*.o\n");
    put(dir, "lib/in.c", "1");
    put(dir, "lib/in.o", "2");
    put(dir, "cloned/deep/new.c", "3");
    put(dir, "not there/a", "4");
    run_in(dir,
           "git init -q && git -C lib init -q && git -C lib add in.c && git -C cloned init -q && "
           "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a "
           "GIT_COMMITTER_EMAIL=a && git -C lib commit -q -m a && "
           "git -C 'not there' init -q && git -C 'not there' add a && "
           "git -C 'not there' commit -q -m a && git add lib 'not there' 2>/dev/null && "
           "rm -r 'not there'/a 'not there'/.git"); /* as `git clone` without --recurse */
    files = code_files(dir, &error);
    cr_assert_not_null(files, "%s", error ? error->message : "");
    g_ptr_array_add(files, NULL);
    names = g_strjoinv("|", (char **)files->pdata);
    cr_assert_str_eq(names, "cloned/deep/new.c|lib/.gitignore|lib/in.c|not there", "%s", names);
    cr_assert(tree_remove(dir, NULL));
}

Test(code, comes_back_identical)
{
    g_autoptr(Store) root = memory_store_new();
    g_autofree char *dir = temporary(), *back = temporary();
    g_autofree char *sha256 = NULL, *again = NULL;
    g_autoptr(GError) error = NULL;

    put(dir, "run.sh", "echo hi\n");
    put(dir, "deep/er/empty", "");
    put(dir, ".git/config", "not part of it");
    put(dir, "\xc3\xa9", "a name that is not ASCII, in the locale C");
    put(dir, "\xff", "a name that is no text at all");
    run_in(dir, "chmod 755 run.sh && ln -s run.sh link && ln -s /etc/passwd out && "
                "ln -s \xc3\xa9 \xc3\xa8");
    cr_assert(code_save(root, dir, "a-run", &sha256, &error), "%s", error ? error->message : "");
    cr_assert(code_save(root, dir, "a-run", &again, NULL));
    cr_assert_str_eq(sha256, again);
    cr_assert(code_restore(root, sha256, back, &error), "%s", error ? error->message : "");
    run_in(back, "test -x run.sh && test \"$(readlink link)\" = run.sh && test -f deep/er/empty "
                 "&& test ! -e .git && test ! -L out && test -f \xc3\xa8 && test -f \xff && test "
                 "\"$(cat run.sh)\" = 'echo hi'");
    cr_assert(tree_remove(dir, NULL) && tree_remove(back, NULL));
}

Test(code, damage_is_noticed)
{
    g_autoptr(Store) root = memory_store_new();
    g_autofree char *dir = temporary(), *sha256 = NULL, *key = NULL;
    g_autoptr(GError) error = NULL;

    put(dir, "a", "1");
    cr_assert(code_save(root, dir, "a-run", &sha256, NULL));
    key = g_strdup_printf("code/%s.tar.zst", sha256);
    cr_assert(store_write(root, key, "other", 5, NULL, NULL, NULL));
    cr_assert_not(code_restore(root, sha256, dir, &error));
    cr_assert(error_is(error, EIO), "%s", error->message);
    cr_assert(tree_remove(dir, NULL));
}

/* An archive of one or two entries as an attacker would write it: NAME (to LINK), then THROUGH. */
static int evil(const char *name, const char *link, const char *through)
{
    g_autofree char *path = g_strdup("/tmp/dstack-test-evil-XXXXXX");
    struct archive *archive = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    int fd = g_mkstemp_full(path, O_RDWR | O_CLOEXEC, 0600);

    unlink(path);
    archive_write_set_format_pax_restricted(archive);
    archive_write_add_filter_zstd(archive);
    cr_assert_eq(archive_write_open_fd(archive, fd), ARCHIVE_OK);
    archive_entry_set_pathname(entry, name);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_filetype(entry, link ? AE_IFLNK : AE_IFREG);
    archive_entry_set_size(entry, link ? 0 : 1);
    if (link)
        archive_entry_set_symlink(entry, link);
    cr_assert_eq(archive_write_header(archive, entry), ARCHIVE_OK);
    if (!link)
        archive_write_data(archive, "x", 1);
    if (through) {
        archive_entry_clear(entry);
        archive_entry_set_pathname(entry, through);
        archive_entry_set_perm(entry, 0644);
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_size(entry, 1);
        cr_assert_eq(archive_write_header(archive, entry), ARCHIVE_OK);
        archive_write_data(archive, "x", 1);
    }
    cr_assert_eq(archive_write_close(archive), ARCHIVE_OK);
    archive_entry_free(entry);
    archive_write_free(archive);
    return fd;
}

static void expect_refused(const char *name, const char *link, const char *through)
{
    g_autofree char *dir = temporary();
    g_auto(fd_t) fd = evil(name, link, through);
    g_autoptr(GError) error = NULL;

    cr_assert_not(code_unpack(fd, dir, &error), "%s was extracted", name);
    cr_assert_not_null(error);
    cr_assert(tree_remove(dir, NULL));
}

Test(code, extraction_stays_inside)
{
    expect_refused("../escape", NULL, NULL);
    expect_refused("/tmp/dstack-test-escape", NULL, NULL);
    expect_refused("a/../../escape", NULL, NULL);
    expect_refused("link", "/tmp", NULL);
    expect_refused("link", "../..", NULL);
    expect_refused("a/link", "../../x", NULL);
    expect_refused("link", "sub", "link/through");
    cr_assert_not(g_file_test("/tmp/dstack-test-escape", G_FILE_TEST_EXISTS));
    cr_assert_not(g_file_test("/tmp/escape", G_FILE_TEST_EXISTS));
}
