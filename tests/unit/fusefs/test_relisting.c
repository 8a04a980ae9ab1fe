/* On a mount that is not alone, what is known of a file grows old after a second: a listing that
 * says that it has not changed makes it new again, without a HEAD, and never where it has changed.
 */
#include "tests/unit/fusefs/fixture.h"

#include "storage/store_driver.h"
#include "tests/support/faulty_store.h"

#include <stdio.h>

#define FILES  40
#define TTL_MS 30
#define LONG_S 5 /* ago: what changed then is over for any gateway's clock */

static struct store *counted;
static struct stat dir;
static int64_t ahead_ms;

/* The store's clock goes on to MS after the next second begins that is SECONDS ahead. */
static void let_pass(unsigned seconds, unsigned ms)
{
    int64_t now = g_get_real_time() / 1000 + ahead_ms;

    ahead_ms += 1000 - now % 1000 + (seconds - 1) * 1000 + ms;
    memory_store_set_clock(store, ahead_ms);
    g_usleep((TTL_MS + 10) * 1000);
}

static void mount_fs(void)
{
    struct fs_options options = {.sync_interval_ms = 60000, .attr_ttl_ms = TTL_MS};

    fs = fs_new(counted, &options);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "d", &dir), 0);
}

static void set_up_objects(void)
{
    ahead_ms = 0;
    set_up_store();
    memory_store_imitate_s3(store);
    counted = faulty_store_new(store);
    let_pass(1, 200);
    for (unsigned i = 0; i < FILES; i++) {
        g_autofree char *key = g_strdup_printf("d/f%04u", i);

        cr_assert(store_write(store, key, "0123456789", 10, NULL, NULL, NULL));
    }
    mount_fs();
}

static void tear_down_objects(void)
{
    cr_assert(fs_drain(fs, 20000, NULL));
    fs_free(fs);
    store_unref(counted);
    tear_down_store();
}

TestSuite(relisting, .init = set_up_objects, .fini = tear_down_objects, .timeout = 60);

static void look(struct fs_dir *handle, const struct fs_entry *entry, struct stat *st)
{
    if (!fs_dir_stat(fs, handle, entry, st))
        cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, entry->name, st), 0, "%s", entry->name);
}

/* As `ls -l`, after which the kernel still has all inodes; returns how many HEADs it cost. The mode
 * of NAME (NULL: of none) goes into MODE. */
static unsigned ls_l(const char *name, mode_t *mode)
{
    unsigned before = faulty_store_calls(counted, STORE_HEAD), count = 0;
    struct fs_entry entry;
    struct fs_dir *handle;

    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    for (uint64_t at = 2; fs_dir_entry(handle, at, &entry); at++, count++) {
        struct stat st;

        look(handle, &entry, &st);
        cr_assert_eq(st.st_size, 10);
        if (name && strcmp(name, entry.name) == 0)
            *mode = st.st_mode & 07777;
    }
    fs_closedir(fs, handle);
    cr_assert_eq(count, FILES);
    return faulty_store_calls(counted, STORE_HEAD) - before;
}

static void chmod_here(const char *name, mode_t mode)
{
    struct stat st, to = {.st_mode = S_IFREG | mode};

    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, name, &st), 0);
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MODE, &st), 0);
}

Test(relisting, what_has_not_changed_is_not_asked_for_again)
{
    let_pass(LONG_S, 200);
    cr_expect_geq(ls_l(NULL, NULL), FILES);
    for (unsigned i = 0; i < 3; i++) {
        let_pass(1, 200);
        cr_expect_eq(ls_l(NULL, NULL), 0);
    }
}

Test(relisting, a_change_by_another_client_is_asked_for)
{
    struct store_object before = {0}, after = {0};
    mode_t mode = 0;

    let_pass(LONG_S, 200);
    ls_l(NULL, NULL);
    cr_assert(store_head(store, "d/f0007", &before, NULL));
    for (unsigned i = 0; i < 3; i++) {
        let_pass(i ? 1 : 2, 200); /* also in the second that follows the change before */
        chmod_elsewhere("d/f0007", i % 2 ? "33152" : "33188");
        let_pass(3, 200);
        cr_expect_eq(ls_l("f0007", &mode), 1);
        cr_expect_eq(mode, i % 2 ? 0600 : 0644, "%o", mode);
    }
    cr_assert(store_head(store, "d/f0007", &after, NULL));
    cr_expect_str_eq(before.etag, after.etag, "an ETag would tell");
    store_object_clear(&before);
    store_object_clear(&after);
}

/* A HEAD tells the time to the second: whether the object changed since, in the same one, no
 * listing tells for sure. */
Test(relisting, what_was_told_in_the_second_of_its_last_change_is_asked_for)
{
    mode_t mode = 0;

    let_pass(LONG_S, 200);
    chmod_elsewhere("d/f0007", "33188");
    let_pass(1, 0);
    ls_l("f0007", &mode);
    cr_assert_eq(mode, 0644, "%o", mode);
    chmod_elsewhere("d/f0007", "33152");
    let_pass(LONG_S, 200);
    cr_expect_eq(ls_l("f0007", &mode), 1);
    cr_expect_eq(mode, 0600, "%o", mode);
    let_pass(1, 200);
    cr_expect_eq(ls_l("f0007", &mode), 0);
}

/* In the same second, as long as the store's clock has not gone on. */
Test(relisting, what_changed_in_the_second_in_which_it_was_told_is_asked_for)
{
    mode_t mode = 0;

    let_pass(LONG_S, 100);
    chmod_elsewhere("d/f0007", "33188");
    ls_l("f0007", &mode);
    cr_assert_eq(mode, 0644, "%o", mode);
    g_usleep((TTL_MS + 10) * 1000);
    chmod_elsewhere("d/f0007", "33152");
    g_usleep((TTL_MS + 10) * 1000);
    cr_expect_geq(ls_l("f0007", &mode), 1);
    cr_expect_eq(mode, 0600, "%o", mode);
}

Test(relisting, what_was_removed_or_replaced_is_seen)
{
    struct stat st;
    mode_t mode = 0;

    let_pass(LONG_S, 200);
    ls_l(NULL, NULL);
    let_pass(3, 200);
    cr_assert(store_write(store, "d/f0003", "abcdefghij", 10, NULL, NULL, NULL));
    cr_assert(store_delete(store, "d/f0004", NULL));
    cr_assert(store_write(store, "d/f9999", "abcdefghij", 10, NULL, NULL, NULL));
    ls_l("f9999", &mode);
    cr_expect_neq(mode, 0);
    cr_expect_eq(fs_lookup(fs, &caller, dir.st_ino, "f0004", &st), ENOENT);
}

/* What is done here counts at once, and for the mount itself no listing takes it back. */
Test(relisting, a_change_made_here_is_kept)
{
    mode_t mode = 0;

    let_pass(LONG_S, 200);
    ls_l(NULL, NULL);
    let_pass(2, 200);
    chmod_here("f0007", 0640);
    for (unsigned i = 0; i < 3; i++) {
        ls_l("f0007", &mode);
        cr_expect_eq(mode, 0640, "%o", mode);
        let_pass(2, 500);
    }
    cr_expect_eq(ls_l("f0007", &mode), 0);
}

Test(relisting, a_change_by_another_client_right_after_one_made_here_is_seen)
{
    mode_t mode = 0;

    let_pass(LONG_S, 200);
    ls_l(NULL, NULL);
    let_pass(3, 100);
    chmod_here("f0007", 0640);
    chmod_elsewhere("d/f0007", "33152");
    let_pass(3, 200);
    cr_expect_eq(ls_l("f0007", &mode), 1);
    cr_expect_eq(mode, 0600, "%o", mode);
}

/* What counts is when the store looked at it. */
Test(relisting, what_was_told_late_is_asked_for)
{
    struct stat st;
    mode_t mode = 0;

    let_pass(LONG_S, 200);
    chmod_elsewhere("d/f0007", "33188");
    memory_store_answer_late(store, 8000);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0007", &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 0644, "%o", st.st_mode);
    memory_store_answer_late(store, 0);
    chmod_elsewhere("d/f0007", "33152");
    let_pass(10, 200);
    ls_l("f0007", &mode);
    cr_expect_eq(mode, 0600, "%o", mode);
}

/* By a gateway whose clock is behind: the object's time goes back. */
Test(relisting, a_change_of_an_earlier_time_is_asked_for)
{
    mode_t mode = 0;

    let_pass(LONG_S, 200);
    ls_l(NULL, NULL);
    memory_store_set_clock(store, ahead_ms - 2 * LONG_S * 1000);
    chmod_elsewhere("d/f0007", "33152");
    let_pass(1, 200);
    cr_expect_eq(ls_l("f0007", &mode), 1);
    cr_expect_eq(mode, 0600, "%o", mode);
}

static void set_up_lagging(void)
{
    set_up_objects();
    store->caps.has_current_list = counted->caps.has_current_list = false;
}

/* A listing that may lag says nothing of what is now. */
Test(relisting, where_listings_lag_each_file_is_asked_for, .init = set_up_lagging)
{
    let_pass(LONG_S, 200);
    ls_l(NULL, NULL);
    for (unsigned i = 0; i < 2; i++) {
        let_pass(LONG_S, 200);
        cr_expect_geq(ls_l(NULL, NULL), FILES);
    }
}
