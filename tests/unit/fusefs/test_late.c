/* A signal ends a wait, and not what the store was asked to do: when that lands, nothing that was
 * saved since is lost. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/fs_internal.h"
#include "storage/store_driver.h"
#include "tests/support/held_store.h"

#include <pthread.h>
#include <stdatomic.h>

#define MIB (1u << 20)

static struct store *below;
static atomic_bool is_signalled, is_done;

static void set_up_held(void)
{
    struct fs_options options = {
        .sync_interval_ms = 200, .attr_ttl_ms = 200, .budget_bytes = 32 * MIB, .part_bytes = MIB};

    below = memory_store_new();
    below->caps.min_part_bytes = MIB;
    store = held_store_new(below);
    fs = fs_new(store, &options);
}

static void tear_down_held(void)
{
    held_store_release(store);
    cr_expect(fs_drain(fs, 5000, NULL));
    fs_free(fs);
    cr_expect_eq(memory_store_uploads(below), 0);
    store_unref(store);
    store_unref(below);
}

TestSuite(late, .init = set_up_held, .fini = tear_down_held, .timeout = 30);

static bool is_over(const struct fs_caller *who)
{
    return atomic_load(&is_signalled);
}

static void write_bytes(struct fs_file *file, char byte, size_t size)
{
    g_autofree char *data = g_malloc(MIB);

    memset(data, byte, MIB);
    for (size_t at = 0; at < size; at += MIB)
        cr_assert_eq(fs_write(fs, &caller, file, at, data, MIN(MIB, size - at)), 0);
}

static void make(const char *name, char byte, size_t size)
{
    struct fs_file *file;
    struct stat st;

    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, name, 0644, O_WRONLY | O_TRUNC, &file, &st), 0);
    write_bytes(file, byte, size);
    cr_expect_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
}

/* All of NAME in the store is SIZE times BYTE. */
static void expect_saved(const char *name, char byte, size_t size)
{
    char *data = NULL;
    size_t found = 0;

    cr_assert(store_read(below, name, 1u << 30, &data, &found, NULL, NULL), "%s is not there",
              name);
    cr_expect_eq(found, size, "%s: %zu bytes", name, found);
    cr_expect(found && data[0] == byte && data[found - 1] == byte, "%s: other bytes", name);
    g_free(data);
}

static bool exists(const char *key)
{
    struct store_object object = {0};
    bool found = store_head(below, key, &object, NULL);

    store_object_clear(&object);
    return found;
}

static void expect_gone(const char *key)
{
    cr_assert_eq(late_wait(fs, &caller, key), 0);
    cr_expect_not(exists(key), "%s stays", key);
}

static int (*act)(struct fs_caller *who);

static void *act_impatiently(void *unused)
{
    struct fs_caller who = {.uid = 1, .gid = 2, .interrupted = is_over};

    return GINT_TO_POINTER(act(&who));
}

/* DO_IT, which a signal ends while the store is at a call of VERB. */
static void interrupt_at(enum store_verb verb, int (*do_it)(struct fs_caller *))
{
    pthread_t thread;
    void *error;

    act = do_it;
    atomic_store(&is_signalled, false);
    held_store_hold(store, verb, NULL);
    pthread_create(&thread, NULL, act_impatiently, NULL);
    while (!held_store_waiting(store))
        g_usleep(1000);
    atomic_store(&is_signalled, true);
    pthread_join(thread, &error);
    cr_assert_eq(GPOINTER_TO_INT(error), EINTR);
}

static void *make_other(void *name)
{
    make(name, 'b', 100);
    atomic_store(&is_done, true);
    return NULL;
}

/* NAME is written anew and closed, behind what is late there, which goes on in the middle of it. */
static void write_behind(const char *name)
{
    pthread_t thread;

    atomic_store(&is_done, false);
    pthread_create(&thread, NULL, make_other, (void *)name);
    g_usleep(300000);
    cr_expect_not(atomic_load(&is_done), "closed under a call that may still land");
    held_store_release(store);
    pthread_join(thread, NULL);
    g_usleep(100000);
    expect_saved(name, 'b', 100);
}

static int rename_file(struct fs_caller *who)
{
    return fs_rename(fs, who, FS_ROOT, "from", FS_ROOT, "to", 0);
}

Test(late, a_rename)
{
    make("from", 'a', 3 * MIB);
    interrupt_at(STORE_COPY, rename_file);
    write_behind("to");
    expect_saved("from", 'a', 3 * MIB);
}

Test(late, a_rename_over_a_file)
{
    make("from", 'a', 3 * MIB);
    make("to", 'c', 10);
    interrupt_at(STORE_COPY, rename_file);
    write_behind("to");
    expect_saved("from", 'a', 3 * MIB);
}

Test(late, a_rename_to_a_new_name_leaves_none)
{
    make("from", 'a', 3 * MIB);
    interrupt_at(STORE_COPY, rename_file);
    held_store_release(store);
    expect_gone("to");
    expect_saved("from", 'a', 3 * MIB);
}

static int change_mode(struct fs_caller *who)
{
    struct stat to = {.st_mode = 0600}, st;

    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "f", &st), 0);
    return fs_setattr(fs, who, st.st_ino, &to, FS_SET_MODE, &st);
}

Test(late, a_change_of_attributes)
{
    make("f", 'a', 3 * MIB);
    interrupt_at(STORE_COPY, change_mode);
    write_behind("f");
}

static int unlink_file(struct fs_caller *who)
{
    return fs_unlink(fs, who, FS_ROOT, "f");
}

Test(late, a_removal)
{
    make("f", 'a', 100);
    interrupt_at(STORE_DELETE, unlink_file);
    write_behind("f");
}

static struct fs_file *large;

static int sync_large(struct fs_caller *who)
{
    return fs_fsync(fs, who, large);
}

/* An abort beside a commit may take the parts away from the object. */
Test(late, a_commit)
{
    struct stat st;

    large = create("f", &st);
    write_bytes(large, 'a', 9 * MIB);
    interrupt_at(STORE_COMMIT, sync_large);
    write_behind("f");
    cr_expect_eq(held_store_calls(store, STORE_ABORT), 0);
    fs_release(fs, large);
}

/* What is in doubt stays so, and can be settled. */
Test(late, a_second_signal_behind_a_commit)
{
    struct fs_caller who = {.uid = 1, .gid = 2, .interrupted = is_over};
    struct stat st;

    large = create("f", &st);
    write_bytes(large, 'a', 9 * MIB);
    interrupt_at(STORE_COMMIT, sync_large);
    cr_expect_eq(sync_large(&who), EINTR);
    write_bytes(large, 'b', 10 * MIB);
    held_store_release(store);
    cr_expect_eq(sync_large(&caller), 0);
    expect_saved("f", 'b', 10 * MIB);
    fs_release(fs, large);
}

Test(late, a_drain_waits_and_says_for_what)
{
    g_autoptr(GPtrArray) unsaved = NULL;

    make("from", 'a', 3 * MIB);
    interrupt_at(STORE_COPY, rename_file);
    cr_expect_not(fs_drain(fs, 300, &unsaved));
    cr_assert(unsaved && unsaved->len == 1);
    cr_expect_str_eq(unsaved->pdata[0], "to");
    held_store_release(store);
    cr_expect(fs_drain(fs, 5000, NULL));
    cr_expect_not(exists("to"));
}

/* A store that never answered has nothing to undo, and holds nobody up. */
Test(late, a_copy_that_was_refused_is_not_undone)
{
    make("from", 'a', 100);
    interrupt_at(STORE_COPY, rename_file);
    cr_assert(store_write(below, "to", "other", 5, NULL, NULL, NULL));
    held_store_drop(store, EACCES);
    cr_assert_eq(late_wait(fs, &caller, "to"), 0);
    cr_expect(exists("to"));
}

static int rename_directory(struct fs_caller *who)
{
    return fs_rename(fs, who, FS_ROOT, "d", FS_ROOT, "e", 0);
}

static void make_directory(void)
{
    struct fs_file *file;
    struct stat dir, st;

    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &dir), 0);
    for (unsigned i = 0; i < 5; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);

        cr_assert_eq(fs_create(fs, &caller, dir.st_ino, name, 0644, O_WRONLY, &file, &st), 0);
        write_bytes(file, 'a', 100);
        cr_assert_eq(fs_flush(fs, &caller, file), 0);
        fs_release(fs, file);
    }
}

Test(late, copies_of_a_directory_leave_nothing)
{
    make_directory();
    interrupt_at(STORE_COPY, rename_directory);
    held_store_release(store);
    for (unsigned i = 0; i < 5; i++) {
        g_autofree char *from = g_strdup_printf("d/f%u", i), *to = g_strdup_printf("e/f%u", i);

        expect_gone(to);
        expect_saved(from, 'a', 100);
    }
}

static void *rename_again(void *unused)
{
    return GINT_TO_POINTER(rename_directory(&caller));
}

/* What undoes the first try must not hit the second one. */
Test(late, a_directory_is_renamed_again)
{
    pthread_t thread;
    void *error;

    make_directory();
    interrupt_at(STORE_COPY, rename_directory);
    pthread_create(&thread, NULL, rename_again, NULL);
    g_usleep(300000);
    held_store_release(store);
    pthread_join(thread, &error);
    cr_assert_eq(GPOINTER_TO_INT(error), 0);
    g_usleep(100000);
    for (unsigned i = 0; i < 5; i++) {
        g_autofree char *to = g_strdup_printf("e/f%u", i);

        expect_saved(to, 'a', 100);
    }
}

static void *rename_patiently(void *unused)
{
    return GINT_TO_POINTER(rename_file(&caller));
}

/* The old name may have gone: the new one is all there is. */
Test(late, a_rename_whose_end_was_not_heard_is_done)
{
    struct stat st;
    pthread_t thread;
    void *error;

    make("from", 'a', 100);
    held_store_hold_answers(store, STORE_DELETE, "from");
    pthread_create(&thread, NULL, rename_patiently, NULL);
    while (!held_store_waiting(store))
        g_usleep(1000);
    held_store_drop(store, ETIMEDOUT);
    pthread_join(thread, &error);
    cr_expect_eq(GPOINTER_TO_INT(error), 0);
    cr_expect_eq(fs_lookup(fs, &caller, FS_ROOT, "from", &st), ENOENT);
    cr_expect_eq(fs_lookup(fs, &caller, FS_ROOT, "to", &st), 0);
    cr_expect_eq(st.st_size, 100);
    make("to", 'b', 10);
    expect_saved("to", 'b', 10);
}

/* S3 may keep a part that comes behind the abort of its upload. */
Test(late, an_upload_is_aborted_behind_its_parts)
{
    struct stat st, to = {.st_size = 0};

    large = create("f", &st);
    held_store_hold(store, STORE_PART, NULL);
    write_bytes(large, 'a', 9 * MIB);
    while (!held_store_waiting(store))
        g_usleep(1000);
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_SIZE, &st), 0);
    g_usleep(100000);
    cr_expect_eq(held_store_calls(store, STORE_ABORT), 0);
    held_store_release(store);
    for (int i = 0; i < 200 && !held_store_calls(store, STORE_ABORT); i++)
        g_usleep(10000);
    cr_expect_eq(held_store_calls(store, STORE_ABORT), 1);
    cr_expect_eq(fs_flush(fs, &caller, large), 0);
    fs_release(fs, large);
}
