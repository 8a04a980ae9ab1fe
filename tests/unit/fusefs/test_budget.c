/* Many writers and readers share a budget that is smaller than what they have under way. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/budget.h"
#include "fusefs/fs_internal.h"
#include "fusefs/journal.h"
#include "storage/store_driver.h"

#include <glib/gstdio.h>

#include <pthread.h>

#define MIB     (1u << 20)
#define BUDGET  (16ull * MIB)
#define WRITERS 64
#define READERS 8
#define PIECE   (128 * 1024)

static void set_up_tight(void)
{
    struct fs_options options = {
        .sync_interval_ms = 100, .attr_ttl_ms = 200, .budget_bytes = BUDGET};

    store = memory_store_new();
    store->caps.min_part_bytes = 5 * MIB; /* 64 half parts are twenty times the budget */
    fs = fs_new(store, &options);
}

TestSuite(budget, .init = set_up_tight, .fini = tear_down, .timeout = 100);

static uint8_t byte_of(unsigned worker, unsigned piece)
{
    return (uint8_t)(worker * 13 + piece + 1);
}

/* Each piece a little after the last one, so that all are half-written at once. */
static void *write_slowly(void *user)
{
    unsigned worker = GPOINTER_TO_UINT(user), pieces = 8 + worker % 16;
    g_autofree char *name = g_strdup_printf("w%u", worker);
    g_autofree uint8_t *data = g_malloc(PIECE);
    struct fs_file *file;
    struct stat st;
    int error =
        fs_create(fs, &caller, FS_ROOT, name, 0644, worker % 2 ? O_WRONLY : O_RDWR, &file, &st);

    for (unsigned i = 0; i < pieces && !error; i++) {
        memset(data, byte_of(worker, i), PIECE);
        error = fs_write(fs, &caller, file, (uint64_t)i * PIECE, data, PIECE);
        g_usleep(2000);
    }
    if (!error)
        error = fs_flush(fs, &caller, file);
    fs_release(fs, file);
    return GINT_TO_POINTER(error);
}

static void *read_onwards(void *user)
{
    struct fs_file *file;
    struct stat st;
    uint64_t offset = 0;
    bool keep;
    int error = fs_lookup(fs, &caller, FS_ROOT, "large", &st);

    if (!error)
        error = fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep);
    if (error)
        return GINT_TO_POINTER(error);
    for (; !error && offset < 32ull * MIB; offset += PIECE) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();

        error = fs_read(fs, &caller, file, offset, PIECE, collect, bytes);
        if (!error && (bytes->len != PIECE || bytes->data[7] != offset / MIB))
            error = EBADMSG;
    }
    fs_release(fs, file);
    return GINT_TO_POINTER(error);
}

static void put_large(void)
{
    g_autofree char *data = g_malloc(32 * MIB);

    for (unsigned i = 0; i < 32; i++)
        memset(data + (size_t)i * MIB, (int)i, MIB);
    cr_assert(store_write(store, "large", data, 32 * MIB, NULL, NULL, NULL));
}

static void expect_written(unsigned worker)
{
    g_autofree char *name = g_strdup_printf("w%u", worker);
    unsigned pieces = 8 + worker % 16;
    size_t size = 0;
    g_autofree char *data = in_store(name, &size);

    cr_assert_not_null(data, "%s is not there", name);
    cr_assert_eq(size, (size_t)pieces * PIECE);
    for (unsigned i = 0; i < pieces; i++)
        cr_assert_eq((uint8_t)data[(size_t)i * PIECE + 99], byte_of(worker, i));
}

Test(budget, many_slow_writers_and_readers_come_to_their_end)
{
    pthread_t threads[WRITERS + READERS];
    void *result;

    put_large();
    for (unsigned i = 0; i < WRITERS + READERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i < WRITERS ? write_slowly : read_onwards,
                                    GUINT_TO_POINTER(i)),
                     0);
    for (unsigned i = 0; i < WRITERS + READERS; i++) {
        pthread_join(threads[i], &result);
        cr_assert_eq(GPOINTER_TO_INT(result), 0, "%u ended with %d", i, GPOINTER_TO_INT(result));
    }
    for (unsigned i = 0; i < WRITERS; i++)
        expect_written(i);
    cr_assert_leq(fs_peak_bytes(fs), BUDGET);
    cr_assert_geq(fs_peak_bytes(fs), BUDGET / 2, "the budget was never tight: this proves nothing");
}

/* Without room in the journal too: it has none before it begins. */
Test(budget, large_buffers_are_recycled_whatever_memory_they_are_of)
{
    g_autofree char *directory = g_dir_make_tmp("budget-XXXXXX", NULL);
    struct journal *journal = journal_open(directory, "source", 64u << 20, NULL);
    struct budget *recycling = budget_new(64u << 20);
    g_autoptr(GHashTable) places = g_hash_table_new(NULL, NULL);

    cr_assert_not_null(journal);
    budget_use_journal(recycling, journal);
    for (int i = 0; i < 20; i++) {
        struct buffer *one = buffer_try_new(recycling, BUFFER_MAX, BUDGET_DIRTY);
        struct buffer *two = buffer_try_new(recycling, BUFFER_MAX, BUDGET_DIRTY);

        cr_assert(one && two && !one->in_journal);
        g_hash_table_add(places, one->data);
        g_hash_table_add(places, two->data);
        buffer_unref(one);
        buffer_unref(two);
    }
    cr_expect_eq(g_hash_table_size(places), 2, "%u", g_hash_table_size(places));
    budget_free(recycling);
    cr_expect_not(journal_close(journal));
    cr_assert_eq(g_rmdir(directory), 0);
}

static bool has_room(struct budget *budget, enum budget_lane lane)
{
    struct buffer *buffer = buffer_try_new(budget, BUFFER_MAX, lane);

    buffer_unref(buffer);
    return buffer != NULL;
}

static struct buffer **fill(struct budget *budget, unsigned mib, enum budget_lane lane)
{
    struct buffer **buffers = g_new0(struct buffer *, mib + 1);

    for (unsigned i = 0; i < mib; i++)
        cr_assert_not_null(buffers[i] = buffer_try_new(budget, BUFFER_MAX, lane));
    return buffers;
}

static void empty(struct buffer **buffers)
{
    for (struct buffer **buffer = buffers; *buffer; buffer++)
        buffer_unref(*buffer);
    g_free(buffers);
}

Test(budget, what_is_charged_leaves_less_room_in_each_lane)
{
    struct budget *charged = budget_new(16 * MIB);
    struct buffer **buffers = fill(charged, 11, BUDGET_WANTED);

    cr_assert(has_room(charged, BUDGET_DIRTY));
    budget_charge(charged, MIB);
    cr_assert_not(has_room(charged, BUDGET_DIRTY), "12 of 16 MiB are taken");
    cr_assert(has_room(charged, BUDGET_WANTED));
    budget_charge(charged, 3 * MIB);
    cr_assert(has_room(charged, BUDGET_WANTED));
    budget_charge(charged, 100 * MIB);
    cr_assert(has_room(charged, BUDGET_WANTED), "no more than a quarter counts");
    empty(buffers);
    buffers = fill(charged, 12, BUDGET_WANTED);
    cr_assert_not(has_room(charged, BUDGET_WANTED));
    cr_assert(has_room(charged, BUDGET_PADDING), "who is charged may wait for it");
    budget_uncharge(charged, 103 * MIB);
    cr_assert(has_room(charged, BUDGET_WANTED));
    cr_assert_eq(budget_used_bytes(charged), 12 * MIB);
    empty(buffers);
    budget_uncharge(charged, MIB);
    budget_free(charged);
}

static void *uncharge_soon(void *user)
{
    g_usleep(50000);
    budget_uncharge(user, 4 * MIB);
    return NULL;
}

Test(budget, who_waits_for_room_is_woken_when_a_charge_ends)
{
    struct budget *charged = budget_new(16 * MIB);
    struct buffer **buffers = fill(charged, 12, BUDGET_WANTED), *late;
    int64_t began_us = g_get_monotonic_time();
    pthread_t thread;

    budget_charge(charged, 4 * MIB);
    cr_assert_eq(pthread_create(&thread, NULL, uncharge_soon, charged), 0);
    late = buffer_wait_new(charged, BUFFER_MAX, BUDGET_WANTED, 20000);
    cr_assert_not_null(late);
    cr_assert_lt(g_get_monotonic_time() - began_us, 10 * G_USEC_PER_SEC);
    pthread_join(thread, NULL);
    buffer_unref(late);
    empty(buffers);
    budget_free(charged);
}

/* One write, as large as a request of the kernel's. */
struct writing {
    char name[8];
    size_t size;
    atomic_bool is_over;
};

static void *write_once(void *user)
{
    struct writing *writing = user;
    g_autofree uint8_t *data = g_malloc0(writing->size);
    struct fs_file *file;
    struct stat st;
    int error = fs_create(fs, &caller, FS_ROOT, writing->name, 0644, O_WRONLY, &file, &st);

    if (!error)
        error = fs_write(fs, &caller, file, 0, data, writing->size);
    atomic_store(&writing->is_over, true);
    if (!error)
        error = fs_flush(fs, &caller, file);
    fs_release(fs, file);
    return GINT_TO_POINTER(error);
}

Test(budget, a_request_that_is_served_is_charged)
{
    struct buffer **buffers = fill(fs->budget, 11, BUDGET_WANTED);
    struct writing writing = {.name = "w", .size = MIB};
    pthread_t thread;
    void *result;

    cr_assert_eq(pthread_create(&thread, NULL, write_once, &writing), 0);
    g_usleep(200000);
    cr_expect_not(atomic_load(&writing.is_over), "its bytes, once more and 11 MiB are over 12");
    empty(buffers);
    pthread_join(thread, &result);
    cr_assert_eq(GPOINTER_TO_INT(result), 0);
    buffers = fill(fs->budget, 12, BUDGET_DIRTY); /* and is charged no more */
    empty(buffers);
}

#define PATCH    (256u * 1024)
#define LARGE    (200ull * MIB)
#define BURST    124
#define PATCHES  383
#define BUDGET_2 (128ull * MIB)

static void set_up_patched(void)
{
    struct fs_options options = {
        .sync_interval_ms = 60000, .budget_bytes = BUDGET_2, .part_bytes = BUDGET_2 / 8};

    store = memory_store_new();
    store->caps.min_part_bytes = 5 * MIB; /* less cannot be copied by the store */
    fs = fs_new(store, &options);
}

/* What is dirty can go only with what is between it, and those who are charged wait for that. */
Test(budget, a_burst_of_writers_beside_a_patched_file_comes_to_its_end, .init = set_up_patched,
     .timeout = 30)
{
    g_autofree uint8_t *data = g_malloc0(LARGE);
    struct writing writings[BURST] = {0};
    pthread_t threads[BURST];
    struct fs_file *file;
    struct stat st;
    void *result;
    bool keep;

    cr_assert(store_write(store, "large", data, LARGE, NULL, NULL, NULL));
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "large", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDWR, &file, &keep), 0);
    memset(data, 1, PATCH);
    for (unsigned i = 0; i < PATCHES; i++)
        cr_assert_eq(fs_write(fs, &caller, file, 2ull * i * PATCH, data, PATCH), 0);
    cr_assert_eq(turn_take(&fs->padding, &caller, 0), 0); /* until all of them are charged */
    for (unsigned i = 0; i < BURST; i++) {
        writings[i].size = PATCH;
        snprintf(writings[i].name, sizeof(writings[i].name), "b%u", i);
        cr_assert_eq(pthread_create(&threads[i], NULL, write_once, &writings[i]), 0);
    }
    g_usleep(500000);
    turn_give(&fs->padding);
    for (unsigned i = 0; i < BURST; i++) {
        pthread_join(threads[i], &result);
        cr_assert_eq(GPOINTER_TO_INT(result), 0);
    }
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
}
