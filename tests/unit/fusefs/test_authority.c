/* An exclusive mount is the authority over its prefix: what it knows costs no request. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/lease.h"
#include "tests/support/faulty_store.h"

static struct store *counted;
static struct lease *lease;

static void set_up_authority(void)
{
    struct lease_options how = {.exclusive = true, .ttl_ms = 60000};
    struct fs_options options = {.sync_interval_ms = 60000};
    struct lease_record *previous;

    set_up_store();
    counted = faulty_store_new(store);
    lease = lease_acquire(counted, &how, &previous, NULL);
    options.lease = lease;
    fs = fs_new(counted, &options);
}

static void tear_down_authority(void)
{
    fs_drain(fs, 5000, NULL);
    fs_free(fs);
    lease_release(lease);
    store_unref(counted);
    tear_down_store();
}

TestSuite(authority, .init = set_up_authority, .fini = tear_down_authority, .timeout = 60);

static unsigned requests(void)
{
    return faulty_store_calls(counted, STORE_VERBS);
}

static void make_file(uint64_t parent, const char *name)
{
    struct fs_file *file;
    struct stat st;

    cr_assert_eq(fs_create(fs, &caller, parent, name, 0644, O_WRONLY, &file, &st), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, name, strlen(name)), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

static unsigned count_names(uint64_t ino)
{
    struct fs_entry entry;
    struct fs_dir *dir;
    unsigned count = 0;

    cr_assert_eq(fs_opendir(fs, &caller, ino, &dir), 0);
    while (fs_dir_entry(dir, count, &entry))
        count++;
    fs_closedir(fs, dir);
    return count - 2; /* "." and ".." */
}

Test(authority, creating_costs_the_put_alone)
{
    struct stat st;
    unsigned before;

    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "x", &st), ENOENT); /* learns the root */
    before = requests();
    for (unsigned i = 0; i < 10; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);

        make_file(FS_ROOT, name);
    }
    cr_assert_eq(requests() - before, 10, "%u", requests() - before);
}

Test(authority, names_that_are_not_there_and_listings_cost_nothing)
{
    struct stat st, dir;
    unsigned before;

    cr_assert(store_write(store, "old", "x", 1, NULL, NULL, NULL));
    cr_assert(store_write(store, "d/in", "x", 1, NULL, NULL, NULL));
    cr_assert_eq(count_names(FS_ROOT), 2);
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "new", 0755, &dir), 0);
    before = requests();
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "nothing", &st), ENOENT);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "nothing", &st), ENOENT);
    cr_assert_eq(count_names(FS_ROOT), 3);
    cr_assert_eq(count_names(dir.st_ino), 0);
    cr_assert_eq(requests(), before);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "old", &st), 0); /* its attributes: one HEAD */
    cr_assert_eq(requests(), before + 1);
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(fs_getattr(fs, &caller, st.st_ino, &st), 0);
    cr_assert_eq(requests(), before + 1);
}

Test(authority, its_own_changes_keep_the_names_right)
{
    struct stat st, dir;

    cr_assert(store_write(store, "old", "x", 1, NULL, NULL, NULL));
    cr_assert_eq(count_names(FS_ROOT), 1);
    make_file(FS_ROOT, "a");
    make_file(FS_ROOT, "b");
    cr_assert_eq(count_names(FS_ROOT), 3);
    cr_assert_eq(fs_unlink(fs, &caller, FS_ROOT, "a"), 0);
    cr_assert_eq(fs_unlink(fs, &caller, FS_ROOT, "old"), 0);
    cr_assert_eq(count_names(FS_ROOT), 1);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "old", &st), ENOENT);
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &dir), 0);
    make_file(dir.st_ino, "in");
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "b", dir.st_ino, "c", 0), 0);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "d", FS_ROOT, "e", 0), 0);
    cr_assert_eq(count_names(FS_ROOT), 1);
    cr_assert_eq(count_names(dir.st_ino), 2);
    cr_assert_eq(fs_rmdir(fs, &caller, FS_ROOT, "e"), ENOTEMPTY);
    cr_assert_eq(fs_unlink(fs, &caller, dir.st_ino, "in"), 0);
    cr_assert_eq(fs_unlink(fs, &caller, dir.st_ino, "c"), 0);
    cr_assert_eq(fs_rmdir(fs, &caller, FS_ROOT, "e"), 0);
    cr_assert_eq(count_names(FS_ROOT), 0);
    fs_forget(fs, dir.st_ino, 1);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "e", &st), ENOENT);
}

Test(authority, a_directory_replaces_an_empty_one)
{
    struct stat one, two, st;

    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "one", 0755, &one), 0);
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "two", 0755, &two), 0);
    make_file(one.st_ino, "f");
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "one", FS_ROOT, "two", 0), 0);
    cr_assert_eq(count_names(FS_ROOT), 1);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "two", &st), 0);
    cr_assert_eq(st.st_ino, one.st_ino);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "one", &st), ENOENT);
    cr_assert_eq(fs_lookup(fs, &caller, one.st_ino, "f", &st), 0);
}

Test(authority, a_rename_that_failed_behind_its_copy_shows_both_names)
{
    struct stat st;

    make_file(FS_ROOT, "from");
    make_file(FS_ROOT, "other");
    faulty_store_fail(counted, STORE_DELETE, 1, 1, EIO);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "from", FS_ROOT, "to", 0), EIO);
    faulty_store_lose(counted, STORE_COPY, 1, 1, EIO);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "to", FS_ROOT, "other", 0), EIO);
    cr_expect_eq(fs_lookup(fs, &caller, FS_ROOT, "from", &st), 0);
    cr_expect_eq(fs_lookup(fs, &caller, FS_ROOT, "to", &st), 0);
    cr_expect_eq(fs_lookup(fs, &caller, FS_ROOT, "other", &st), 0);
    cr_expect_eq(st.st_size, 4, "what is there is a copy of \"from\"");
    cr_expect_eq(count_names(FS_ROOT), 3);
}
