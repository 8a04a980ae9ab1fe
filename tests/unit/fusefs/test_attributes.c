/* What `ls -l` costs, and that what it shows is true, also when others changed it. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/lease.h"
#include "tests/support/faulty_store.h"

#include <pthread.h>
#include <stdio.h>

#define FILES 1050 /* two pages of a listing */
#define INDEX ".dstack-index/d/.dstack-index"

static struct store *counted;
static struct lease *lease;
static struct stat dir;

static void mount_fs(bool exclusive)
{
    struct lease_options how = {.exclusive = true, .ttl_ms = 60000};
    struct fs_options options = {.sync_interval_ms = 60000, .attr_ttl_ms = 60000};
    struct lease_record *previous;

    if (exclusive)
        lease = lease_acquire(counted, &how, &previous, NULL);
    options.lease = lease;
    options.read_only = !exclusive;
    fs = fs_new(counted, &options);
}

static void unmount_fs(void)
{
    cr_assert(fs_drain(fs, 20000, NULL));
    fs_free(fs);
    lease_release(lease);
    lease = NULL;
}

/* What happens to FS here happens as if nobody had mounted it before. */
static void mount_again(bool exclusive)
{
    unmount_fs();
    mount_fs(exclusive);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "d", &dir), 0);
}

static mode_t mode_of(unsigned i)
{
    return 0400 + i % 0400;
}

static void make_file(const char *name, unsigned i)
{
    struct fs_file *file;
    struct stat st;

    cr_assert_eq(fs_create(fs, &caller, dir.st_ino, name, mode_of(i), O_WRONLY, &file, &st), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "0123456789", i % 10), 0);
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

static void make_files(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%04u", i);
        make_file(name, i);
    }
}

static void set_up_files(void)
{
    set_up_store();
    counted = faulty_store_new(store);
    mount_fs(true);
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &dir), 0);
    make_files(FILES);
}

static void tear_down_files(void)
{
    unmount_fs();
    store_unref(counted);
    tear_down_store();
}

TestSuite(attributes, .init = set_up_files, .fini = tear_down_files, .timeout = 60);

static unsigned requests(void)
{
    return faulty_store_calls(counted, STORE_VERBS);
}

static unsigned heads(void)
{
    return faulty_store_calls(counted, STORE_HEAD);
}

static void stat_name(const char *name, struct stat *st)
{
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, name, st), 0, "%s", name);
    fs_forget(fs, st->st_ino, 1);
}

/* As the kernel does it: what a listing does not tell is looked up. Returns how many names. */
static unsigned ls_l(void)
{
    struct fs_entry entry;
    struct fs_dir *handle;
    unsigned count = 0;

    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    for (uint64_t at = 2; fs_dir_entry(handle, at, &entry); at++, count++) {
        struct stat st;
        unsigned i;

        if (fs_dir_stat(fs, handle, &entry, &st))
            fs_forget(fs, st.st_ino, 1);
        else
            stat_name(entry.name, &st);
        cr_assert_eq(st.st_ino, entry.ino, "%s", entry.name);
        if (sscanf(entry.name, "f%u", &i) != 1)
            continue;
        cr_assert_eq(st.st_mode, S_IFREG | mode_of(i), "%s: %o", entry.name, st.st_mode);
        cr_assert_eq(st.st_size, i % 10);
        cr_assert_eq(st.st_uid, 1);
        cr_assert_eq(st.st_gid, 2);
        cr_assert(st.st_mtim.tv_nsec || st.st_mtim.tv_sec);
    }
    fs_closedir(fs, handle);
    return count;
}

/* Without a look at the attributes. */
static void read_names(void)
{
    struct fs_dir *handle;

    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    fs_closedir(fs, handle);
}

Test(attributes, the_first_listing_costs_its_pages_and_the_index)
{
    unsigned before;
    struct stat st;
    int64_t mtime_ns;

    stat_name("f0007", &st);
    mtime_ns = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
    mount_again(true);
    before = requests();
    cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(requests() - before, 3, "%u", requests() - before); /* 2 pages, one GET */
    stat_name("f0007", &st);
    cr_assert_eq(st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec, mtime_ns);
    before = requests();
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(requests(), before);
}

Test(attributes, what_was_made_here_is_listed_without_a_request)
{
    unsigned before = requests();

    cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(requests(), before);
}

Test(attributes, who_only_reads_has_them_too)
{
    unsigned before;

    mount_again(false);
    before = requests();
    cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(requests() - before, 3, "%u", requests() - before);
}

Test(attributes, a_chmod_by_another_client_is_seen)
{
    unsigned before;
    struct stat st;

    unmount_fs();
    chmod_elsewhere("d/f0005", "33152"); /* 0600 */
    mount_fs(true);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "d", &dir), 0);
    before = heads();
    stat_name("f0005", &st);
    cr_assert_eq(st.st_mode, S_IFREG | 0600, "%o", st.st_mode);
    chmod_elsewhere("d/f0005", "33029"); /* as ls_l expects */
    mount_again(true);
    before = heads();
    cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(heads() - before, 1, "%u", heads() - before);
}

Test(attributes, a_change_by_another_client_while_mounted_is_seen_by_the_next)
{
    struct stat st;

    stat_name("f0005", &st);
    g_usleep(1000);
    chmod_elsewhere("d/f0005", "33152");
    mount_again(true);
    read_names();
    stat_name("f0005", &st);
    cr_assert_eq(st.st_mode, S_IFREG | 0600, "%o", st.st_mode);
}

Test(attributes, a_file_replaced_by_another_client_is_the_new_one)
{
    struct stat st;
    struct fs_file *file;
    GByteArray *bytes;
    bool keep;

    unmount_fs();
    cr_assert(store_write(store, "d/f0005", "other", 5, NULL, NULL, NULL)); /* the same size */
    mount_fs(true);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "d", &dir), 0);
    stat_name("f0005", &st);
    cr_assert_eq(st.st_mode, S_IFREG | 0666);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
    bytes = read_all(file);
    cr_assert(bytes->len == 5 && !memcmp(bytes->data, "other", 5));
    g_byte_array_unref(bytes);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

Test(attributes, a_file_replaced_after_the_listing_is_found_again)
{
    struct fs_file *file;
    struct stat st;
    bool keep;
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    mount_again(true);
    cr_assert_eq(ls_l(), FILES);
    cr_assert(store_write(store, "d/f0005", "other", 5, NULL, NULL, NULL));
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
    /* never a mixture */
    cr_assert_eq(fs_read(fs, &caller, file, 0, 1, collect, bytes), ESTALE);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDWR, &file, &keep), 0);
    cr_assert_eq(fs_read(fs, &caller, file, 0, 1, collect, bytes), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 4, "x", 1), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

Test(attributes, what_is_read_of_an_indexed_file_needs_no_head)
{
    unsigned before;

    mount_again(true);
    cr_assert_eq(ls_l(), FILES);
    before = requests();
    for (unsigned i = 1; i <= 9; i++) {
        g_autofree char *name = g_strdup_printf("f%04u", i);
        struct fs_file *file;
        GByteArray *bytes;
        struct stat st;
        bool keep;

        cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, name, &st), 0);
        cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
        bytes = read_all(file);
        cr_assert(bytes->len == i && !memcmp(bytes->data, "0123456789", i));
        g_byte_array_unref(bytes);
        fs_release(fs, file);
        fs_forget(fs, st.st_ino, 1);
    }
    cr_assert_eq(requests() - before, 9, "%u", requests() - before); /* a GET each */
}

Test(attributes, a_change_keeps_what_the_index_does_not_tell)
{
    struct stat st, to = {.st_mode = 0600};
    struct store_object object = {0};
    struct fs_file *file;
    size_t size;
    g_autofree char *text = NULL;
    bool keep;

    stat_name("f0005", &st);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &st), 0);
    cr_assert_eq(fs_setxattr(fs, &caller, st.st_ino, "user.a", "1", 1, 0), 0);
    fs_forget(fs, st.st_ino, 1);
    mount_again(true);
    cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &st), 0);
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MODE, &st), 0);
    cr_assert(store_head(store, "d/f0005", &object, NULL));
    cr_assert_str_eq(g_hash_table_lookup(object.metadata, "mode"), "33152");
    cr_assert(g_hash_table_lookup(object.metadata, "xattr"));
    fs_forget(fs, st.st_ino, 1);
    mount_again(true);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_WRONLY | O_APPEND, &file, &keep), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "more", 4), 0);
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    text = in_store("d/f0005", &size);
    cr_assert(size == 9 && !memcmp(text, "01234more", 9));
    {
        struct store_object after = {0};

        cr_assert(store_head(store, "d/f0005", &after, NULL));
        cr_assert_str_eq(g_hash_table_lookup(after.metadata, "dstack-lineage"),
                         g_hash_table_lookup(object.metadata, "dstack-lineage"));
        cr_assert(g_hash_table_lookup(after.metadata, "xattr"));
        store_object_clear(&after);
    }
    store_object_clear(&object);
}

static void *rename_slowly(void *user)
{
    return GINT_TO_POINTER(fs_rename(fs, &caller, dir.st_ino, "f0005", dir.st_ino, "renamed", 0));
}

/* While the file is on its way to another key, no answer of the store is of use. */
Test(attributes, who_opens_it_while_it_is_renamed_keeps_what_the_index_does_not_tell)
{
    struct store_object object = {0};
    struct fs_file *file;
    pthread_t thread;
    struct stat st;
    void *error;
    bool keep;

    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &st), 0);
    cr_assert_eq(fs_setxattr(fs, &caller, st.st_ino, "user.a", "1", 1, 0), 0);
    fs_forget(fs, st.st_ino, 1);
    mount_again(true);
    read_names();
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &st), 0);
    faulty_store_delay(counted, 200);
    pthread_create(&thread, NULL, rename_slowly, NULL);
    g_usleep(100000);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_WRONLY | O_APPEND, &file, &keep), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "more", 4), 0);
    pthread_join(thread, &error);
    cr_assert_null(error);
    faulty_store_delay(counted, 0);
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    cr_assert(store_head(store, "d/renamed", &object, NULL));
    cr_expect_eq(object.size_bytes, 9);
    cr_expect(g_hash_table_lookup(object.metadata, "xattr"), "lost");
    store_object_clear(&object);
}

Test(attributes, extended_attributes_are_asked_for_only_where_there_are_any)
{
    g_autoptr(GBytes) names = NULL, value = NULL;
    struct stat with, without;
    unsigned before;

    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &with), 0);
    cr_assert_eq(fs_setxattr(fs, &caller, with.st_ino, "user.a", "1", 1, 0), 0);
    fs_forget(fs, with.st_ino, 1);
    mount_again(true);
    cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0005", &with), 0);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0006", &without), 0);
    before = requests();
    cr_assert_eq(fs_listxattr(fs, &caller, without.st_ino, &names), 0);
    cr_assert_eq(g_bytes_get_size(names), 0);
    cr_assert_eq(requests(), before);
    cr_assert_eq(fs_getxattr(fs, &caller, with.st_ino, "user.a", &value), 0);
    cr_assert_eq(g_bytes_get_size(value), 1);
    cr_assert_eq(requests(), before + 1);
    fs_forget(fs, with.st_ino, 1);
    fs_forget(fs, without.st_ino, 1);
}

Test(attributes, symlinks_are_told_with_their_targets)
{
    struct stat st;
    unsigned before;

    cr_assert_eq(fs_symlink(fs, &caller, "f0001", dir.st_ino, "link", &st), 0);
    fs_forget(fs, st.st_ino, 1);
    for (unsigned i = 0; i < 2; i++) {
        g_autofree char *target = NULL;

        before = requests();
        cr_assert_eq(ls_l(), FILES + 1);
        cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "link", &st), 0);
        cr_assert(S_ISLNK(st.st_mode));
        cr_assert_eq(fs_readlink(fs, &caller, st.st_ino, &target), 0);
        cr_assert_str_eq(target, "f0001");
        cr_assert_eq(requests() - before, i ? 3 : 0, "%u", requests() - before);
        fs_forget(fs, st.st_ino, 1);
        mount_again(true);
    }
}

Test(attributes, without_an_index_or_with_a_damaged_one_they_are_asked_for)
{
    static const char *const texts[] = {"", "dstack-index 1\nnot zlib", "dstack-index 2\n"};

    for (unsigned i = 0; i <= G_N_ELEMENTS(texts); i++) {
        unsigned before;

        mount_again(true);
        if (i)
            cr_assert(
                store_write(store, INDEX, texts[i - 1], strlen(texts[i - 1]), NULL, NULL, NULL));
        else
            cr_assert(store_delete(store, INDEX, NULL));
        before = heads();
        cr_assert_eq(ls_l(), FILES);
        cr_assert_eq(heads() - before, FILES);
    }
}

Test(attributes, an_index_that_cannot_be_written_harms_nobody)
{
    size_t size;

    cr_assert(fs_drain(fs, 20000, NULL));
    faulty_store_fail(counted, STORE_PUT, 1, 1, EIO);
    mount_again(true);
    cr_assert_null(in_store(INDEX, &size));
    cr_assert_eq(ls_l(), FILES);
}

Test(attributes, names_learnt_of_lookups_get_theirs_of_the_index_too)
{
    unsigned before;
    struct stat st;

    mount_again(true);
    stat_name("f0007", &st); /* learns all names */
    before = heads();
    cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(heads(), before);
}

Test(attributes, a_few_more_files_are_added_to_the_index)
{
    unsigned before;

    mount_again(true);
    for (unsigned i = FILES; i < FILES + 64; i++) {
        g_autofree char *name = g_strdup_printf("f%04u", i);

        make_file(name, i);
    }
    mount_again(true);
    before = heads();
    cr_assert_eq(ls_l(), FILES + 64);
    cr_assert_eq(heads(), before);
}

Test(attributes, few_changes_write_no_index)
{
    size_t before_size, size;
    g_autofree char *before = NULL, *after = NULL;

    mount_again(true);
    before = in_store(INDEX, &before_size);
    for (unsigned i = FILES; i < FILES + 10; i++) {
        g_autofree char *name = g_strdup_printf("f%04u", i);

        make_file(name, i);
    }
    mount_again(true);
    after = in_store(INDEX, &size);
    cr_assert(before && after && size == before_size && !memcmp(before, after, size));
}

Test(attributes, a_renamed_directory_has_its_own)
{
    size_t size;

    mount_again(true);
    cr_assert_eq(ls_l(), FILES);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "d", FS_ROOT, "e", 0), 0);
    {
        unsigned before = requests();

        cr_assert_eq(ls_l(), FILES);
        cr_assert(requests() - before <= 2); /* the old index is removed meanwhile */
    }
    unmount_fs();
    cr_assert_null(in_store(INDEX, &size));
    mount_fs(true);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "e", &dir), 0);
    {
        unsigned before = heads();

        cr_assert_eq(ls_l(), FILES);
        cr_assert_eq(heads(), before);
    }
}

Test(attributes, a_removed_directory_leaves_no_index)
{
    size_t size;

    mount_again(true);
    cr_assert_eq(ls_l(), FILES);
    for (unsigned i = 0; i < FILES; i++) {
        g_autofree char *name = g_strdup_printf("f%04u", i);

        cr_assert_eq(fs_unlink(fs, &caller, dir.st_ino, name), 0);
    }
    cr_assert_eq(fs_rmdir(fs, &caller, FS_ROOT, "d"), 0);
    unmount_fs();
    cr_assert_null(in_store(INDEX, &size));
    mount_fs(true);
}

static unsigned count_indexes(void)
{
    g_autoptr(StoreCall) list = store_call_new(STORE_LIST, ".dstack-index/");

    cr_assert(store_run(store, list, NULL));
    return list->objects->len;
}

static void unlink_files(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        g_autofree char *name = g_strdup_printf("f%04u", i);

        cr_assert_eq(fs_unlink(fs, &caller, dir.st_ino, name), 0);
    }
}

/* Too few are left for its index to be read again. */
Test(attributes, a_directory_that_became_small_leaves_no_index)
{
    unlink_files(10, FILES);
    mount_again(true);
    cr_assert_eq(ls_l(), 10);
    cr_assert_eq(count_indexes(), 0); /* it was always small for an index */
    make_files(100);
    mount_again(true);
    cr_assert_eq(count_indexes(), 1);
    unlink_files(10, 100);
    mount_again(true);
    unlink_files(0, 10);
    cr_assert_eq(fs_rmdir(fs, &caller, FS_ROOT, "d"), 0);
    unmount_fs();
    cr_expect_eq(count_indexes(), 0);
    mount_fs(true);
}

Test(attributes, what_is_renamed_over_a_directory_leaves_no_index_of_it)
{
    struct stat other;

    mount_again(true);
    unlink_files(10, FILES);
    mount_again(true);
    unlink_files(0, 10);
    mount_again(true);
    cr_assert_eq(count_indexes(), 1);
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "new", 0755, &other), 0);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "new", FS_ROOT, "d", 0), 0);
    unmount_fs();
    cr_expect_eq(count_indexes(), 0);
    mount_fs(true);
}

Test(attributes, who_shares_leaves_no_index_either)
{
    struct fs_options options = {.attr_ttl_ms = 60000};

    mount_again(true);
    unlink_files(0, FILES - 5);
    unmount_fs();
    cr_assert_eq(count_indexes(), 1);
    fs = fs_new(counted, &options);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "d", FS_ROOT, "e", 0), 0);
    fs_free(fs);
    cr_expect_eq(count_indexes(), 0);
    mount_fs(true);
}
