/* Steps that fail, or whose answer is lost, in the middle of what is made of several: names and
 * attributes are what the programs were told, or the store is asked again. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/fs_internal.h"

#include "storage/store_driver.h"
#include "tests/support/held_store.h"

#include <pthread.h>
#include <stdatomic.h>

#define MIB (1u << 20)

static struct store *below;

static void set_up_held(void)
{
    struct fs_options options = {
        .sync_interval_ms = 200, .attr_ttl_ms = 200, .budget_bytes = 16 * MIB, .part_bytes = MIB};

    below = memory_store_new();
    below->caps.min_part_bytes = MIB;
    store = held_store_new(below);
    fs = fs_new(store, &options);
}

static void tear_down_held(void)
{
    held_store_fail(store, 0, NULL, 0);
    cr_expect(fs_drain(fs, 5000, NULL));
    fs_free(fs);
    cr_expect_eq(memory_store_uploads(below), 0);
    store_unref(store);
    store_unref(below);
}

TestSuite(steps, .init = set_up_held, .fini = tear_down_held, .timeout = 30);

static struct fs_file *create_in(uint64_t dir, const char *name, int flags)
{
    struct fs_file *file;
    struct stat st;

    cr_assert_eq(fs_create(fs, &caller, dir, name, 0644, flags, &file, &st), 0);
    return file;
}

static void write_bytes(struct fs_file *file, uint64_t size)
{
    g_autofree char *data = g_malloc(MIB);

    memset(data, 'x', MIB);
    for (uint64_t at = 0; at < size; at += MIB)
        cr_assert_eq(fs_write(fs, &caller, file, at, data, MIN(MIB, size - at)), 0);
}

static void close_file(struct fs_file *file, int expected)
{
    cr_expect_eq(fs_flush(fs, &caller, file), expected);
    fs_release(fs, file);
}

static char *mode_in_store(const char *key)
{
    struct store_object object = {0};
    char *mode;

    cr_assert(store_head(below, key, &object, NULL));
    mode = g_strdup(g_hash_table_lookup(object.metadata, "mode"));
    store_object_clear(&object);
    return mode;
}

static bool exists(const char *key)
{
    struct store_object object = {0};
    bool found = store_head(below, key, &object, NULL);

    store_object_clear(&object);
    return found;
}

Test(steps, a_directory_with_an_unsaved_file_is_not_empty)
{
    struct fs_file *file;
    struct stat dir, other;

    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &dir), 0);
    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "other", 0755, &other), 0);
    held_store_fail(store, STORE_PUT, "d/f", EIO);
    file = create_in(dir.st_ino, "f", O_WRONLY);
    write_bytes(file, 100);
    close_file(file, EIO);
    cr_expect_eq(fs_rmdir(fs, &caller, FS_ROOT, "d"), ENOTEMPTY);
    cr_expect_eq(fs_rename(fs, &caller, FS_ROOT, "other", FS_ROOT, "d", 0), ENOTEMPTY);
    held_store_fail(store, 0, NULL, 0);
    cr_expect(fs_drain(fs, 5000, NULL));
    cr_expect(exists("d/f"));
    cr_expect_not(exists("f"), "saved under the name of a file in the root");
}

Test(steps, a_file_whose_removal_failed_has_all_its_bytes)
{
    struct fs_file *file = create_in(FS_ROOT, "big", O_WRONLY);
    g_autofree char *data = NULL;
    size_t size = 0;

    held_store_fail(store, STORE_COMMIT, NULL, EDQUOT);
    write_bytes(file, 40 * MIB);
    close_file(file, EDQUOT);
    held_store_fail(store, STORE_DELETE, NULL, EIO);
    cr_expect_eq(fs_unlink(fs, &caller, FS_ROOT, "big"), EIO);
    held_store_fail(store, 0, NULL, 0);
    cr_expect(fs_drain(fs, 5000, NULL), "it was not removed, and is saved");
    data = in_store("big", &size);
    cr_assert_eq(size, 40 * MIB);
    cr_expect(data[0] == 'x' && memcmp(data, data + 1, size - 1) == 0);
}

/* What is over quota can be removed: nobody needs its bytes. */
Test(steps, a_file_that_the_store_does_not_take_is_removed)
{
    struct fs_file *file = create_in(FS_ROOT, "big", O_WRONLY);

    held_store_fail(store, STORE_COMMIT, NULL, EDQUOT);
    write_bytes(file, 40 * MIB);
    close_file(file, EDQUOT);
    cr_expect_eq(fs_unlink(fs, &caller, FS_ROOT, "big"), 0);
    cr_expect_not(exists("big"));
}

Test(steps, attributes_that_were_not_taken_are_not_taken_for_saved)
{
    struct fs_file *file = create_in(FS_ROOT, "f", O_WRONLY);
    struct stat to = {.st_mode = 0600}, st;
    g_autofree char *mode = NULL;

    write_bytes(file, 100);
    close_file(file, 0);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "f", &st), 0);
    held_store_fail(store, STORE_COPY, NULL, EIO);
    cr_expect_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MODE, &st), EIO);
    held_store_fail(store, 0, NULL, 0);
    cr_expect(fs_drain(fs, 5000, NULL));
    mode = mode_in_store("f");
    cr_expect_str_eq(mode, "33152", "%s", mode); /* 0100600 */
}

static bool is_impatient(const struct fs_caller *who)
{
    return atomic_load((atomic_bool *)who->user);
}

static int impatient_unlink(struct fs_caller *who)
{
    return fs_unlink(fs, who, FS_ROOT, "f");
}

static int impatient_move(struct fs_caller *who)
{
    return fs_rename(fs, who, FS_ROOT, "from", FS_ROOT, "to", 0);
}

static int (*impatient_act)(struct fs_caller *who);
static atomic_bool patience_is_over;

static void *act_impatiently(void *user)
{
    struct fs_caller who = caller;

    who.interrupted = is_impatient;
    who.user = &patience_is_over;
    return GINT_TO_POINTER(impatient_act(&who));
}

/* ACT, which a signal ends behind a call of VERB that the store carries out. */
static void act_without_answer(int (*act)(struct fs_caller *), enum store_verb verb)
{
    pthread_t thread;
    void *error;

    impatient_act = act;
    atomic_store(&patience_is_over, false);
    held_store_hold_answers(store, verb, NULL);
    pthread_create(&thread, NULL, act_impatiently, NULL);
    while (!held_store_waiting(store))
        g_usleep(1000);
    atomic_store(&patience_is_over, true);
    pthread_join(thread, &error);
    held_store_release(store);
    cr_expect_eq(GPOINTER_TO_INT(error), EINTR);
}

Test(steps, a_name_whose_removal_was_not_answered_is_asked_for)
{
    struct fs_file *file = create_in(FS_ROOT, "f", O_WRONLY);
    struct stat st;

    write_bytes(file, 100);
    close_file(file, 0);
    act_without_answer(impatient_unlink, STORE_DELETE);
    cr_expect_not(exists("f"));
    cr_expect_eq(fs_lookup(fs, &caller, FS_ROOT, "f", &st), ENOENT);
}

Test(steps, copies_of_a_rename_that_were_not_answered_do_not_stay)
{
    struct stat dir;

    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "from", 0755, &dir), 0);
    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);

        close_file(create_in(dir.st_ino, name, O_WRONLY), 0);
    }
    act_without_answer(impatient_move, STORE_COPY);
    cr_expect(exists("from/f0") && exists("from/f1") && exists("from/f2"));
    cr_expect(!exists("to/") && !exists("to/f0") && !exists("to/f1") && !exists("to/f2"));
}

Test(steps, a_directory_that_is_removed_is_not_to_be_saved)
{
    struct stat to = {.st_mode = 0700}, st;

    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &st), 0);
    held_store_fail(store, STORE_PUT, "d/", EIO);
    cr_expect_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MODE, &st), EIO);
    cr_expect_eq(fs_rmdir(fs, &caller, FS_ROOT, "d"), 0);
    cr_expect_eq(g_queue_get_length(&fs->dirty), 0, "it is held for ever");
}
