/* Every call that waits for a store which never answers ends with EINTR soon after its caller is
 * interrupted, and works when the store answers again. */
#include "tests/unit/fusefs/fixture.h"

#include "storage/store_driver.h"
#include "tests/support/held_store.h"

#include <pthread.h>
#include <stdatomic.h>

#define MIB (1u << 20)

static struct store *below;
static atomic_bool wants_out;
static struct fs_file *open_file; /* "open", written to and not saved */
static uint64_t file_ino, dir_ino;

static bool is_out(const struct fs_caller *who)
{
    return atomic_load(&wants_out);
}

static struct fs_caller impatient = {.uid = 1, .gid = 2, .interrupted = is_out};

static void put_object(const char *key, const char *text)
{
    cr_assert(store_write(store, key, text, strlen(text), NULL, NULL, NULL));
}

/* "file" and "other", a directory "d" that is empty and "full" that is not, and the dirty "open".
 */
static void set_up_quiet(void)
{
    struct fs_options options = {
        .sync_interval_ms = 3600000, .attr_ttl_ms = 1, .budget_bytes = 16 * MIB};
    struct stat st;

    atomic_store(&wants_out, false);
    below = memory_store_new();
    below->caps.min_part_bytes = 5 * MIB;
    store = held_store_new(below);
    fs = fs_new(store, &options);
    put_object("file", "text");
    put_object("other", "text");
    put_object("d/", "");
    put_object("full/x", "text");
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "file", &st), 0);
    file_ino = st.st_ino;
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "d", &st), 0);
    dir_ino = st.st_ino;
    open_file = create("open", &st);
    cr_assert_eq(fs_write(fs, &caller, open_file, 0, "x", 1), 0);
    g_usleep(5000); /* what the store said is not believed any more */
}

static void tear_down_quiet(void)
{
    held_store_release(store);
    fs_release(fs, open_file);
    tear_down();
    store_unref(below);
}

TestSuite(interrupt, .init = set_up_quiet, .fini = tear_down_quiet, .timeout = 60);

static void *run_step(void *step)
{
    return GINT_TO_POINTER(((int (*)(void))step)());
}

/* STEP waits until it is interrupted; then at most MS. */
static void expect_interrupted(int (*step)(void), unsigned ms)
{
    pthread_t thread;
    struct timespec until;
    void *result = NULL;
    int64_t began;

    cr_assert_eq(pthread_create(&thread, NULL, run_step, (void *)step), 0);
    g_usleep(200000);
    cr_assert_neq(pthread_tryjoin_np(thread, &result), 0, "it did not wait: %d",
                  GPOINTER_TO_INT(result));
    began = g_get_monotonic_time();
    atomic_store(&wants_out, true);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    cr_assert_eq(pthread_timedjoin_np(thread, &result, &until), 0, "it waits for ever");
    cr_assert_eq(GPOINTER_TO_INT(result), EINTR, "it ended with %d", GPOINTER_TO_INT(result));
    cr_assert_lt(g_get_monotonic_time() - began, ms * 1000ll);
    atomic_store(&wants_out, false);
}

/* With a store that does not answer; then it does, and STEP goes well. */
static void expect_waits(int (*step)(void))
{
    held_store_hold(store, STORE_VERBS, NULL);
    expect_interrupted(step, 500);
    held_store_release(store);
    cr_assert_eq(step(), 0);
}

static int look_up(void)
{
    struct stat st;

    return fs_lookup(fs, &impatient, FS_ROOT, "other", &st);
}

static int get_attributes(void)
{
    struct stat st;

    return fs_getattr(fs, &impatient, file_ino, &st);
}

static int list(void)
{
    struct fs_dir *dir;
    int error = fs_opendir(fs, &impatient, FS_ROOT, &dir);

    if (!error)
        fs_closedir(fs, dir);
    return error;
}

static int change_mode(void)
{
    struct stat st, to = {.st_mode = 0600};

    return fs_setattr(fs, &impatient, file_ino, &to, FS_SET_MODE, &st);
}

static int cut(void)
{
    struct stat st, to = {.st_size = 1};

    return fs_setattr(fs, &impatient, file_ino, &to, FS_SET_SIZE, &st);
}

static int set_xattr(void)
{
    return fs_setxattr(fs, &impatient, file_ino, "user.a", "b", 1, 0);
}

static int open_and_read(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    struct fs_file *file;
    bool keep;
    int error = fs_open(fs, &impatient, file_ino, O_RDONLY, &file, &keep);

    if (error)
        return error;
    error = fs_read(fs, &impatient, file, 0, 100, collect, bytes);
    fs_release(fs, file);
    return error;
}

static int make_directory(void)
{
    struct stat st;

    return fs_mkdir(fs, &impatient, FS_ROOT, "new", 0755, &st);
}

static int make_link(void)
{
    struct stat st;

    return fs_symlink(fs, &impatient, "target", FS_ROOT, "link", &st);
}

static int sync_file(void)
{
    return fs_fsync(fs, &impatient, open_file);
}

static int unlink_file(void)
{
    return fs_unlink(fs, &impatient, FS_ROOT, "file");
}

static int remove_directory(void)
{
    return fs_rmdir(fs, &impatient, FS_ROOT, "d");
}

static int move_file(void)
{
    return fs_rename(fs, &impatient, FS_ROOT, "file", FS_ROOT, "moved", 0);
}

static int move_directory(void)
{
    return fs_rename(fs, &impatient, FS_ROOT, "full", FS_ROOT, "moved", 0);
}

Test(interrupt, looking)
{
    expect_waits(look_up);
    expect_waits(get_attributes);
    expect_waits(list);
}

Test(interrupt, reading)
{
    expect_waits(open_and_read);
}

Test(interrupt, changing_attributes)
{
    expect_waits(change_mode);
    g_usleep(5000);
    expect_waits(set_xattr);
    g_usleep(5000);
    expect_waits(cut);
}

Test(interrupt, making)
{
    expect_waits(make_directory);
    expect_waits(make_link);
}

Test(interrupt, saving)
{
    expect_waits(sync_file);
}

Test(interrupt, removing)
{
    expect_waits(unlink_file);
    expect_waits(remove_directory);
}

Test(interrupt, moving)
{
    expect_waits(move_file);
}

Test(interrupt, moving_a_directory)
{
    expect_waits(move_directory);
}

/* A part of the way is gone already when the store stops to answer. */
static void expect_waits_at(enum store_verb verb, int (*step)(void))
{
    held_store_hold(store, verb, NULL);
    expect_interrupted(step, 500);
    held_store_release(store);
    cr_assert_eq(step(), 0);
}

Test(interrupt, waiting_for_an_upload)
{
    g_autofree char *data = g_malloc0(MIB);

    for (uint64_t i = 0; i < 9; i++)
        cr_assert_eq(fs_write(fs, &caller, open_file, i * MIB, data, MIB), 0);
    expect_waits_at(STORE_COMMIT, sync_file);
}

Test(interrupt, waiting_for_a_copy_or_a_delete)
{
    expect_waits_at(STORE_COPY, move_file);
}

static int write_much(void)
{
    g_autofree char *data = g_malloc0(MIB);
    int error = 0;

    for (uint64_t i = 0; i < 32 && !error; i++)
        error = fs_write(fs, &impatient, open_file, i * MIB, data, MIB);
    return error;
}

Test(interrupt, waiting_for_memory)
{
    expect_waits(write_much);
}

/* Another one's turn: a publish of the same file, or a rename of a directory, is under way. */
static void *sync_patiently(void *user)
{
    return GINT_TO_POINTER(fs_fsync(fs, &caller, open_file));
}

static void *move_patiently(void *user)
{
    return GINT_TO_POINTER(fs_rename(fs, &caller, FS_ROOT, "full", FS_ROOT, "moved", 0));
}

static void expect_waits_behind(void *(*first)(void *), int (*step)(void))
{
    pthread_t thread;
    void *result;

    cr_assert_eq(pthread_create(&thread, NULL, first, NULL), 0);
    while (held_store_waiting(store) == 0)
        g_usleep(1000);
    expect_interrupted(step, 500);
    held_store_release(store);
    pthread_join(thread, &result);
    cr_assert_eq(GPOINTER_TO_INT(result), 0);
    cr_assert_eq(step(), 0);
}

Test(interrupt, waiting_for_a_turn)
{
    held_store_hold(store, STORE_PUT, "open");
    expect_waits_behind(sync_patiently, sync_file);
}

Test(interrupt, waiting_for_the_gate)
{
    held_store_hold(store, STORE_COPY, NULL);
    expect_waits_behind(move_patiently, sync_file);
}
