/* Opens that came too late: who was told to look the name up and open once more finds a file. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/fs_internal.h"

#include "tests/support/held_store.h"

#include <pthread.h>
#include <stdatomic.h>

static struct store *below;

static void set_up_held(void)
{
    struct fs_options options = {.sync_interval_ms = 200, .attr_ttl_ms = 200};

    below = memory_store_new();
    store = held_store_new(below);
    fs = fs_new(store, &options);
}

static void tear_down_held(void)
{
    tear_down();
    store_unref(below);
}

TestSuite(reopen, .init = set_up_held, .fini = tear_down_held, .timeout = 30);

static struct fs_caller late = {.task = 10}, other = {.task = 11}, mover = {.task = 12};
static atomic_bool is_moved;

static void make(const char *name)
{
    struct fs_file *file;
    struct stat st;

    cr_assert_eq(fs_create(fs, &mover, FS_ROOT, name, 0644, O_WRONLY, &file, &st), 0);
    fs_release(fs, file);
}

static void *move_new(void *unused)
{
    cr_expect_eq(fs_rename(fs, &mover, FS_ROOT, "new", FS_ROOT, "f", 0), 0);
    atomic_store(&is_moved, true);
    return NULL;
}

static int look_up(struct fs_caller *who, uint64_t *ino)
{
    struct stat st;
    int error = fs_lookup(fs, who, FS_ROOT, "f", &st);

    *ino = st.st_ino;
    return error;
}

static int open_once(struct fs_caller *who, uint64_t ino)
{
    struct fs_file *file;
    bool keep;
    int error = fs_open(fs, who, ino, O_RDONLY, &file, &keep);

    if (!error)
        fs_release(fs, file);
    return error;
}

/* `late` looks "f" up; when it comes to open that, another file is there. */
static void come_too_late(void)
{
    uint64_t ino;

    make("f");
    make("new");
    cr_assert_eq(look_up(&late, &ino), 0);
    move_new(NULL);
    make("new");
    cr_assert_eq(open_once(&late, ino), ESTALE);
    atomic_store(&is_moved, false);
}

Test(reopen, the_name_stays_until_it_is_opened)
{
    pthread_t moving;
    uint64_t ino;

    come_too_late();
    cr_assert_eq(look_up(&other, &ino), 0);
    cr_assert_eq(open_once(&other, ino), 0); /* is not who is waited for */
    pthread_create(&moving, NULL, move_new, NULL);
    g_usleep(200000);
    cr_expect_not(atomic_load(&is_moved));
    cr_assert_eq(look_up(&late, &ino), 0);
    g_usleep(200000);
    cr_expect_not(atomic_load(&is_moved));
    cr_expect_eq(open_once(&late, ino), 0);
    pthread_join(moving, NULL);
}

static void *look_up_and_open(void *unused)
{
    uint64_t ino;
    int error = look_up(&late, &ino);

    return GINT_TO_POINTER(error ? error : open_once(&late, ino));
}

/* The next one had begun to replace the name before `late` was told. */
Test(reopen, a_name_that_is_being_taken_away_is_not_found)
{
    pthread_t moving, reopening;
    void *error;
    uint64_t ino;

    make("f");
    make("new");
    cr_assert_eq(look_up(&late, &ino), 0);
    move_new(NULL);
    make("new");
    held_store_hold(store, STORE_COPY, NULL);
    pthread_create(&moving, NULL, move_new, NULL);
    while (held_store_waiting(store) < 1)
        g_usleep(1000);
    cr_assert_eq(open_once(&late, ino), ESTALE);
    pthread_create(&reopening, NULL, look_up_and_open, NULL);
    g_usleep(200000);
    held_store_release(store);
    pthread_join(reopening, &error);
    cr_expect_eq(GPOINTER_TO_INT(error), 0);
    pthread_join(moving, NULL);
}

/* A rename gives way at the last moment, to who is late for any name. */
Test(reopen, a_name_that_stays_for_now_can_be_opened)
{
    struct fs_file *file;
    struct stat st;
    pthread_t moving;
    uint64_t ino;

    make("new");
    held_store_fail(store, STORE_PUT, "f", EIO);
    cr_assert_eq(fs_create(fs, &mover, FS_ROOT, "f", 0644, O_WRONLY, &file, &st), 0);
    cr_expect_eq(fs_flush(fs, &mover, file), EIO);
    fs_release(fs, file);
    held_store_hold(store, STORE_PUT, "f");
    held_store_fail(store, 0, NULL, 0);
    while (held_store_waiting(store) < 1) /* it is tried again */
        g_usleep(1000);
    pthread_create(&moving, NULL, move_new, NULL);
    g_usleep(100000);
    reopens_add(fs->reopens, late.task);
    held_store_release(store);
    g_usleep(100000);
    cr_assert_eq(look_up(&other, &ino), 0);
    cr_expect_eq(open_once(&other, ino), 0);
    reopens_end(fs->reopens, late.task);
    pthread_join(moving, NULL);
}

static void *open_f(void *ino)
{
    return GINT_TO_POINTER(open_once(&late, GPOINTER_TO_SIZE(ino)));
}

/* Who waits for one name is in the way of that one alone. */
Test(reopen, other_names_go_meanwhile)
{
    int64_t began_us;
    pthread_t moving, opening;
    uint64_t ino;
    void *error;

    make("f");
    make("new");
    make("g");
    cr_assert_eq(look_up(&late, &ino), 0);
    held_store_hold(store, STORE_COPY, NULL);
    pthread_create(&moving, NULL, move_new, NULL);
    while (held_store_waiting(store) < 1)
        g_usleep(1000);
    pthread_create(&opening, NULL, open_f, GSIZE_TO_POINTER(ino));
    g_usleep(100000);
    began_us = g_get_monotonic_time();
    cr_expect_eq(fs_unlink(fs, &other, FS_ROOT, "g"), 0);
    cr_expect_lt(g_get_monotonic_time() - began_us, 500000);
    held_store_release(store);
    pthread_join(opening, &error);
    cr_expect_eq(GPOINTER_TO_INT(error), ESTALE);
    cr_expect(reopens_expect_any(fs->reopens));
    pthread_join(moving, NULL);
    cr_assert_eq(look_up(&late, &ino), 0);
    cr_expect_eq(open_once(&late, ino), 0);
    cr_expect_not(reopens_expect_any(fs->reopens));
}

Test(reopen, who_never_comes_is_not_waited_for_for_long)
{
    int64_t began_us = g_get_monotonic_time();

    come_too_late();
    move_new(NULL);
    cr_expect_lt(g_get_monotonic_time() - began_us, (REOPEN_MS + 1000) * 1000);
}

Test(reopen, who_finds_no_name_is_not_waited_for)
{
    struct stat st;
    int64_t began_us;

    come_too_late();
    cr_assert_eq(fs_lookup(fs, &late, FS_ROOT, "none", &st), ENOENT);
    began_us = g_get_monotonic_time();
    move_new(NULL);
    cr_expect_lt(g_get_monotonic_time() - began_us, REOPEN_MS * 1000 / 2);
}

Test(reopen, who_came_too_late_twice_is_not_waited_for)
{
    struct reopens *reopens = reopens_new();

    for (pid_t task = 1; task < 1000; task++) {
        reopens_add(reopens, task);
        reopens_add(reopens, task);
    }
    cr_expect_not(reopens_expect_any(reopens));
    reopens_add(reopens, 7);
    cr_expect(reopens_expect_any(reopens));
    reopens_end(reopens, 8);
    cr_expect(reopens_expect_any(reopens));
    reopens_end(reopens, 7);
    cr_expect_not(reopens_expect_any(reopens));
    reopens_free(reopens);
}
