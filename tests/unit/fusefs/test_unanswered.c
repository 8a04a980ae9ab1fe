/* Calls that the store carries out and whose answer never comes, since a signal ended the wait for
 * it: what they made of the object is what the file goes on from. */
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
    below->caps.min_part_bytes = 5 * MIB;
    store = held_store_new(below);
    fs = fs_new(store, &options);
}

static void tear_down_held(void)
{
    cr_expect(fs_drain(fs, 5000, NULL));
    fs_free(fs);
    cr_expect_eq(memory_store_uploads(below), 0);
    store_unref(store);
    store_unref(below);
}

TestSuite(unanswered, .init = set_up_held, .fini = tear_down_held, .timeout = 30);

static void put(struct fs_file *file, uint64_t at, size_t size, int byte)
{
    g_autofree char *data = g_malloc(size);

    memset(data, byte, size);
    cr_assert_eq(fs_write(fs, &caller, file, at, data, size), 0);
}

static char *lineage_of(const char *key)
{
    struct store_object object = {0};
    char *lineage;

    cr_assert(store_head(below, key, &object, NULL));
    lineage = g_strdup(g_hash_table_lookup(object.metadata, LINEAGE));
    store_object_clear(&object);
    return lineage;
}

static bool is_impatient(const struct fs_caller *who)
{
    return atomic_load((atomic_bool *)who->user);
}

struct impatient {
    struct fs_file *file;
    atomic_bool patience_is_over;
};

static void *sync_impatiently(void *user)
{
    struct impatient *impatient = user;
    struct fs_caller who = caller;

    who.interrupted = is_impatient;
    who.user = &impatient->patience_is_over;
    return GINT_TO_POINTER(fs_fsync(fs, &who, impatient->file));
}

/* An fsync that a signal ends behind a call of VERB to KEY, which the store carries out. */
static void sync_without_answer(struct fs_file *file, enum store_verb verb, const char *key)
{
    struct impatient impatient = {.file = file};
    pthread_t thread;
    void *error;

    held_store_hold_answers(store, verb, key);
    pthread_create(&thread, NULL, sync_impatiently, &impatient);
    while (!held_store_waiting(store))
        g_usleep(1000);
    atomic_store(&impatient.patience_is_over, true);
    pthread_join(thread, &error);
    held_store_release(store);
    cr_assert_eq(GPOINTER_TO_INT(error), EINTR);
}

static void expect_in_store(const char *key, size_t size, size_t at, char byte)
{
    size_t found = 0;
    g_autofree char *data = in_store(key, &found);

    cr_assert_eq(found, size, "%zu", found);
    cr_expect_eq(data[at], byte, "%c", data[at]);
}

Test(unanswered, a_commit_behind_a_signal_is_gone_on_from)
{
    struct stat st;
    struct fs_file *file;

    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "a", 0644, O_WRONLY, &file, &st), 0);
    for (int i = 0; i < 40; i++) /* more than memory holds: most of it is in parts alone */
        put(file, (uint64_t)i * MIB, MIB, 'a');
    put(file, 40 * MIB, 100, 'b');
    sync_without_answer(file, STORE_COMMIT, "a");
    put(file, 40 * MIB + 100, 100, 'c');
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    fs_release(fs, file);
    expect_in_store("a", 40 * MIB + 200, 40 * MIB + 99, 'b');
    expect_in_store("a", 40 * MIB + 200, 40 * MIB + 100, 'c');
    expect_in_store("a", 40 * MIB + 200, 0, 'a');
}

Test(unanswered, a_commit_behind_a_signal_then_changes)
{
    struct stat st;
    struct fs_file *file;
    g_autoptr(GByteArray) bytes = NULL;

    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "a", 0644, O_RDWR, &file, &st), 0);
    for (int i = 0; i < 40; i++)
        put(file, (uint64_t)i * MIB, MIB, 'a');
    sync_without_answer(file, STORE_COMMIT, NULL);
    put(file, 3, 1, 'x');
    cr_assert_eq(
        fs_setattr(fs, &caller, st.st_ino, &(struct stat){.st_size = 39 * MIB}, FS_SET_SIZE, &st),
        0);
    bytes = read_all(file);
    cr_assert_eq(bytes->len, 39 * MIB);
    cr_expect(bytes->data[3] == 'x' && bytes->data[4] == 'a');
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    fs_release(fs, file);
    expect_in_store("a", 39 * MIB, 3, 'x');
}

/* Small ones, of which the store has bytes that are not in memory. */
static struct fs_file *reopen(struct stat *st)
{
    struct fs_file *file = create("a", st);
    bool keep;

    put(file, 0, 1000, 'a');
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    cr_assert_eq(fs_open(fs, &caller, st->st_ino, O_RDWR | O_APPEND, &file, &keep), 0);
    return file;
}

Test(unanswered, a_put_behind_a_signal_is_gone_on_from)
{
    struct stat st;
    struct fs_file *file = reopen(&st);
    g_autoptr(GByteArray) bytes = NULL;

    put(file, 1000, 100, 'b');
    sync_without_answer(file, STORE_PUT, "a");
    bytes = read_all(file);
    cr_expect(bytes->len == 1100 && bytes->data[0] == 'a' && bytes->data[1099] == 'b');
    put(file, 1100, 100, 'c');
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    expect_in_store("a", 1200, 999, 'a');
    expect_in_store("a", 1200, 1199, 'c');
    fs_release(fs, file);
}

Test(unanswered, a_put_behind_a_signal_then_removed)
{
    struct stat st;
    struct fs_file *file = reopen(&st);
    g_autoptr(GByteArray) bytes = NULL;

    put(file, 1000, 100, 'b');
    sync_without_answer(file, STORE_PUT, "a");
    cr_expect_eq(fs_unlink(fs, &caller, FS_ROOT, "a"), 0);
    bytes = read_all(file);
    cr_expect(bytes->len == 1100 && bytes->data[0] == 'a' && bytes->data[1099] == 'b');
    fs_release(fs, file);
    cr_expect_null(in_store("a", &(size_t){0}));
}

/* What is rewritten behind it is another file for who reads it elsewhere. */
Test(unanswered, a_put_behind_a_signal_then_rewritten_is_another_lineage)
{
    g_autofree char *before = NULL, *after = NULL;
    struct stat st;
    struct fs_file *file = reopen(&st);

    cr_assert_eq(fs_write(fs, &caller, file, 0, "x", 1), 0); /* appends */
    sync_without_answer(file, STORE_PUT, "a");
    before = lineage_of("a");
    file->flags &= ~O_APPEND;
    put(file, 500, 1, 'y');
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    after = lineage_of("a");
    cr_expect_str_neq(before, after);
    expect_in_store("a", 1001, 500, 'y');
    fs_release(fs, file);
}

/* A chmod may make another ETag: of an object that was made in parts, say. */
Test(unanswered, a_copy_behind_a_signal_is_gone_on_from)
{
    struct stat st;
    struct fs_file *file = reopen(&st);

    cr_assert_eq(
        fs_setattr(fs, &caller, st.st_ino, &(struct stat){.st_mode = 0600}, FS_SET_MODE, &st), 0);
    sync_without_answer(file, STORE_COPY, "a");
    put(file, 1000, 100, 'b');
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    expect_in_store("a", 1100, 999, 'a');
    fs_release(fs, file);
}

static bool is_soon_interrupted(const struct fs_caller *who)
{
    return now_ms() - who->began_ms > 100;
}

static void *sync_and_say(void *user)
{
    struct impatient *patient = user;
    int error = fs_fsync(fs, &caller, patient->file);

    atomic_store(&patient->patience_is_over, true);
    return GINT_TO_POINTER(error);
}

/* A publish is under way, for which a rename or an unlink does not want to wait any longer. */
Test(unanswered, who_gives_up_waiting_for_a_turn_does_not_end_it)
{
    struct fs_caller who = {.interrupted = is_soon_interrupted};
    struct impatient first = {0}, second = {0};
    pthread_t threads[2];
    struct stat st;
    void *errors[2];

    first.file = second.file = create("a", &st);
    put(first.file, 0, 1000, 'a');
    held_store_hold(store, STORE_PUT, "a");
    pthread_create(&threads[0], NULL, sync_and_say, &first);
    while (!held_store_waiting(store))
        g_usleep(1000);
    who.began_ms = now_ms();
    cr_expect_eq(fs_unlink(fs, &who, FS_ROOT, "a"), EINTR);
    who.began_ms = now_ms();
    cr_expect_eq(fs_rename(fs, &who, FS_ROOT, "a", FS_ROOT, "b", 0), EINTR);
    pthread_create(&threads[1], NULL, sync_and_say, &second);
    g_usleep(300000);
    cr_expect_not(atomic_load(&second.patience_is_over), "it is not saved yet");
    held_store_release(store);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], &errors[i]);
    cr_expect(!errors[0] && !errors[1]);
    expect_in_store("a", 1000, 0, 'a');
    fs_release(fs, first.file);
}
