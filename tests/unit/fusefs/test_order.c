/* What is closed later is not visible earlier, also when a close fails in between. */
#include "tests/unit/fusefs/fixture.h"

#include "tests/support/held_store.h"

#include <pthread.h>

static struct store *below;

static void set_up_held(void)
{
    struct fs_options options = {.sync_interval_ms = 3600000}; /* only closes publish */

    below = memory_store_new();
    store = held_store_new(below);
    fs = fs_new(store, &options);
}

static void tear_down_held(void)
{
    tear_down();
    store_unref(below);
}

TestSuite(order, .init = set_up_held, .fini = tear_down_held, .timeout = 30);

static bool is_in_store(const char *key)
{
    size_t size;
    g_autofree char *data = in_store(key, &size);

    return data != NULL;
}

static struct fs_file *create_with_bytes(const char *name)
{
    struct stat st;
    struct fs_file *file = create(name, &st);

    cr_assert_eq(fs_write(fs, &caller, file, 0, name, strlen(name)), 0);
    return file;
}

static void *flush(void *file)
{
    return GINT_TO_POINTER(fs_flush(fs, &caller, file));
}

static void *rename_tmp(void *user)
{
    return GINT_TO_POINTER(
        fs_rename(fs, &caller, FS_ROOT, ".metadata.tmp", FS_ROOT, ".metadata", 0));
}

/* STEP, which makes VISIBLE appear, waits for the shard whose close has failed. */
static void expect_behind_shard(void *(*step)(void *), void *user, const char *visible)
{
    pthread_t thread;
    void *result;

    held_store_fail(store, STORE_PUT, NULL, 0);
    held_store_hold(store, STORE_PUT, "shard");
    cr_assert_eq(pthread_create(&thread, NULL, step, user), 0);
    for (int i = 0; i < 500 && held_store_waiting(store) == 0; i++)
        g_usleep(10000);
    cr_assert_eq(held_store_waiting(store), 1, "the shard is tried again first");
    g_usleep(300000);
    cr_assert_not(is_in_store(visible), "it is visible before the shard");
    held_store_release(store);
    pthread_join(thread, &result);
    cr_assert_eq(GPOINTER_TO_INT(result), 0);
    cr_assert(is_in_store("shard"));
    cr_assert(is_in_store(visible));
}

static struct fs_file *create_shard_whose_close_fails(void)
{
    struct fs_file *shard = create_with_bytes("shard");

    held_store_fail(store, STORE_PUT, "shard", EIO);
    cr_assert_eq(fs_flush(fs, &caller, shard), EIO);
    return shard;
}

Test(order, a_close_comes_after_one_that_failed_before)
{
    struct fs_file *shard = create_shard_whose_close_fails();
    struct fs_file *metadata = create_with_bytes(".metadata");

    expect_behind_shard(flush, metadata, ".metadata");
    fs_release(fs, metadata);
    fs_release(fs, shard);
}

Test(order, a_rename_comes_after_a_close_that_failed_before)
{
    struct fs_file *metadata = create_with_bytes(".metadata.tmp"), *shard;

    cr_assert_eq(fs_flush(fs, &caller, metadata), 0);
    fs_release(fs, metadata);
    shard = create_shard_whose_close_fails();
    expect_behind_shard(rename_tmp, NULL, ".metadata");
    fs_release(fs, shard);
}

Test(order, a_close_fails_while_one_before_it_cannot_be_saved)
{
    struct fs_file *shard = create_shard_whose_close_fails();
    struct fs_file *metadata = create_with_bytes(".metadata");

    cr_assert_eq(fs_flush(fs, &caller, metadata), EIO);
    held_store_fail(store, STORE_PUT, NULL, 0);
    cr_assert_eq(fs_flush(fs, &caller, metadata), 0);
    cr_assert(is_in_store("shard"));
    cr_assert(is_in_store(".metadata"));
    fs_release(fs, metadata);
    fs_release(fs, shard);
}

Test(order, a_close_whose_answer_is_an_error_is_done_again_by_the_next)
{
    struct fs_file *shard = create_with_bytes("shard"), *metadata;
    pthread_t thread;
    void *result;

    held_store_hold(store, STORE_PUT, "shard");
    cr_assert_eq(pthread_create(&thread, NULL, flush, shard), 0);
    while (held_store_waiting(store) == 0)
        g_usleep(1000);
    metadata = create_with_bytes(".metadata");
    held_store_drop(store, EIO);
    pthread_join(thread, &result);
    cr_assert_eq(GPOINTER_TO_INT(result), EIO);
    cr_assert_not(is_in_store("shard"));
    cr_assert_eq(fs_flush(fs, &caller, metadata), 0);
    cr_assert(is_in_store("shard"));
    fs_release(fs, metadata);
    fs_release(fs, shard);
}

/* Attributes are saved with the bytes that could not be. */
Test(order, a_chmod_comes_after_a_close_that_failed_before)
{
    struct fs_file *shard = create_shard_whose_close_fails();
    struct fs_file *metadata = create_with_bytes(".metadata");
    struct stat to = {.st_mode = 0600}, st;

    cr_assert_eq(fs_flush(fs, &caller, metadata), EIO);
    fs_release(fs, metadata);
    fs_release(fs, shard);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, ".metadata", &st), 0);
    cr_expect_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MODE, &st), EIO);
    cr_expect_not(is_in_store(".metadata"), "it is visible before the shard");
    held_store_fail(store, STORE_PUT, NULL, 0);
    cr_expect_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MODE, &st), 0);
    cr_expect(is_in_store("shard") && is_in_store(".metadata"));
}
