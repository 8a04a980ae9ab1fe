/* Answers that come late, fail, or tell of what other clients did, while programs go on: nothing is
 * lost, nothing old comes back, and no file holds up the others. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/fs_internal.h"

#include "storage/store_driver.h"
#include "tests/support/held_store.h"

#include <pthread.h>
#include <stdatomic.h>

#define MIB (1u << 20)
static struct store *below;

static void set_up_held(uint64_t budget, uint64_t min_part)
{
    struct fs_options options = {
        .sync_interval_ms = 200, .attr_ttl_ms = 200, .budget_bytes = budget, .part_bytes = MIB};
    below = memory_store_new();
    below->caps.min_part_bytes = min_part;
    store = held_store_new(below);
    fs = fs_new(store, &options);
}
static void set_up_small(void)
{
    set_up_held(64 * MIB, MIB);
}
static void down(void)
{
    held_store_fail(store, 0, NULL, 0);
    held_store_release(store);
    fs_drain(fs, 3000, NULL);
    fs_free(fs);
    store_unref(store);
    store_unref(below);
}
TestSuite(failures, .init = set_up_small, .fini = down, .timeout = 30);

static void put(struct fs_file *file, uint64_t at, size_t size, int byte)
{
    g_autofree char *data = g_malloc(size);
    memset(data, byte, size);
    cr_assert_eq(fs_write(fs, &caller, file, at, data, size), 0);
}

/* a failed commit, then an append */
Test(failures, append_after_failed_commit)
{
    struct stat st;
    struct fs_file *file = create("big", &st);
    int error;
    for (int i = 0; i < 4; i++)
        put(file, (uint64_t)i * MIB, MIB, 'a' + i);
    put(file, 4 * MIB, 100, 'x');
    held_store_fail(store, STORE_COMMIT, NULL, EIO);
    cr_expect_eq(fs_fsync(fs, &caller, file), EIO);
    held_store_fail(store, 0, NULL, 0);
    put(file, 4 * MIB + 100, 100, 'y');
    error = fs_fsync(fs, &caller, file);
    cr_expect_eq(error, 0, "second fsync: %d", error);
    fs_release(fs, file);
}

static void *do_sync(void *file)
{
    return GINT_TO_POINTER(fs_fsync(fs, &caller, file));
}

/* a write while a publish is under way, whose commit fails */
Test(failures, write_during_publish_that_fails)
{
    struct stat st;
    struct fs_file *file;
    pthread_t thread;
    size_t size;
    g_autofree char *data = NULL;
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "big", 0644, O_WRONLY, &file, &st), 0);
    for (int i = 0; i < 8; i++)
        put(file, (uint64_t)i * MIB, MIB, 'a');
    g_usleep(200000);               /* parts are sent */
    put(file, 7 * MIB + 5, 1, 'b'); /* part 8: changed */
    held_store_hold(store, STORE_COMMIT, NULL);
    /* hold also the re-sent part, so that the write comes between: part 1..: hold PART */
    for (int i = 0; i < 7; i++)
        put(file, (uint64_t)i * MIB, 1, 'c');
    held_store_hold(store, STORE_PART, NULL);
    pthread_create(&thread, NULL, do_sync, file);
    for (int i = 0; i < 100 && held_store_waiting(store) < 6; i++)
        g_usleep(10000);
    cr_expect_eq(held_store_waiting(store), 6);
    put(file, 7 * MIB + 9, 1, 'Z'); /* lands in part 8, which the publish has not taken yet */
    held_store_fail(store, STORE_COMMIT, NULL, EIO);
    held_store_release(store);
    pthread_join(thread, NULL);
    held_store_fail(store, 0, NULL, 0);
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    data = in_store("big", &size);
    cr_assert_not_null(data);
    cr_expect_eq(data[7 * MIB + 5], 'b');
    cr_expect_eq(data[7 * MIB + 9], 'Z', "written byte is lost: %c", data[7 * MIB + 9]);
    fs_release(fs, file);
}

/* order through the timer */
Test(failures, order_of_failed_closes)
{
    struct stat st;
    struct fs_file *shard = create("shard", &st), *meta = create("meta", &st);
    size_t size;
    bool early = false;
    put(shard, 0, 100, 's');
    put(meta, 0, 100, 'm');
    held_store_fail(store, STORE_PUT, "shard", EIO);
    cr_expect_eq(fs_flush(fs, &caller, shard), EIO);
    fs_release(fs, shard);
    cr_expect_eq(fs_flush(fs, &caller, meta), EIO);
    fs_release(fs, meta);
    for (int i = 0; i < 20 && !early; i++) {
        g_autofree char *m = in_store("meta", &size);
        early = m != NULL;
        g_usleep(50000);
    }
    cr_expect_not(early, "meta is there, shard is not");
}

/* base deleted by another client while dirty here */
Test(failures, deleted_base_blocks_everybody)
{
    struct stat st;
    struct fs_file *file = create("x", &st), *other;
    struct fs_file *again;
    bool keep;
    GPtrArray *unsaved = NULL;
    put(file, 0, 2 * MIB, 'a');
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_WRONLY, &again, &keep), 0);
    cr_assert(store_delete(store, "x", NULL));
    put(again, 10, 1, 'b');
    cr_assert_eq(fs_fsync(fs, &caller, again), ESTALE);
    fs_release(fs, again);
    other = create("other", &st);
    put(other, 0, 5, 'o');
    int error = fs_flush(fs, &caller, other);
    cr_expect_eq(error, 0, "other: %d", error);
    fs_release(fs, other);
    bool drained = fs_drain(fs, 1000, &unsaved);
    cr_expect(drained || fs_is_hopeless(fs), "drain never ends");
}
Test(failures, replaced_base_of_large_file)
{
    struct stat st;
    struct fs_file *file = create("x", &st), *other, *again;
    bool keep;
    put(file, 0, 8 * MIB, 'a');
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_WRONLY, &again, &keep), 0);
    cr_assert(store_write(store, "x", "new", 3, NULL, NULL, NULL));
    put(again, 8 * MIB, 1, 'b');
    cr_assert_eq(fs_fsync(fs, &caller, again), ESTALE);
    fs_release(fs, again);
    other = create("other", &st);
    put(other, 0, 5, 'o');
    int error = fs_flush(fs, &caller, other);
    cr_expect_eq(error, 0, "other: %d", error);
    fs_release(fs, other);
}

static uint64_t stat_ino;
static void *do_stat(void *u)
{
    struct stat st;
    return GINT_TO_POINTER(fs_getattr(fs, &caller, stat_ino, &st));
}

/* a HEAD answered late */
Test(failures, late_head_then_append)
{
    struct stat st;
    struct fs_file *file = create("log", &st);
    pthread_t thread;
    size_t size;
    put(file, 0, 10, 'a');
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    g_usleep(300000); /* attr_ttl is over */
    stat_ino = st.st_ino;
    held_store_hold(store, STORE_HEAD, "log");
    pthread_create(&thread, NULL, do_stat, NULL);
    while (!held_store_waiting(store))
        g_usleep(1000);
    put(file, 10, 10, 'b');
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    held_store_release(store);
    pthread_join(thread, NULL);
    int error = fs_write(fs, &caller, file, 20, "c", 1);
    cr_expect_eq(error, 0, "write: %d", error);
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    g_autofree char *data = in_store("log", &size);
    cr_expect_eq(size, 21);
    fs_release(fs, file);
}
Test(failures, late_head_enoent_while_dirty)
{
    struct stat st;
    struct fs_file *file = create("log", &st);
    pthread_t thread;
    size_t size = 0;
    put(file, 0, 10, 'a');
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    g_usleep(300000);
    stat_ino = st.st_ino;
    cr_assert(store_delete(store, "log", NULL)); /* another client */
    held_store_hold(store, STORE_HEAD, "log");
    pthread_create(&thread, NULL, do_stat, NULL);
    while (!held_store_waiting(store))
        g_usleep(1000);
    put(file, 10, 10, 'b'); /* dirty now */
    held_store_release(store);
    pthread_join(thread, NULL);
    int error = fs_fsync(fs, &caller, file);
    g_autofree char *data = in_store("log", &size);
    cr_expect(error || data, "fsync says 0, nothing is in the store");
    fs_release(fs, file);
}
Test(failures, late_head_and_rename)
{
    struct stat st;
    struct fs_file *file = create("log", &st);
    pthread_t thread;
    put(file, 0, 10, 'a');
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    g_usleep(300000);
    stat_ino = st.st_ino;
    held_store_hold(store, STORE_HEAD, "nothing");
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "log", &st), 0);
    g_usleep(300000);
    held_store_hold(store, STORE_HEAD, "log");
    pthread_create(&thread, NULL, do_stat, NULL);
    while (!held_store_waiting(store))
        g_usleep(1000);
    put(file, 10, 10, 'b');
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "log", FS_ROOT, "moved", 0), 0);
    held_store_release(store);
    pthread_join(thread, NULL);
    int error = fs_write(fs, &caller, file, 20, "c", 1);
    cr_expect_eq(error, 0, "write: %d", error);
    fs_release(fs, file);
}

static char *meta_of(const char *key, const char *name)
{
    struct store_object o = {0};
    char *v;
    cr_assert(store_head(store, key, &o, NULL));
    v = g_strdup(o.metadata ? g_hash_table_lookup(o.metadata, name) : NULL);
    store_object_clear(&o);
    return v;
}
Test(failures, rename_of_more_than_one_copy_keeps_attributes)
{
    struct stat st;
    struct fs_file *file = create("a", &st);
    store->caps.max_copy_bytes = MIB;
    put(file, 0, 3 * MIB, 'a');
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    g_autofree char *before = meta_of("a", "mode");
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "a", FS_ROOT, "b", 0), 0);
    g_autofree char *after = meta_of("b", "mode");
    cr_expect_str_eq(before, after ? after : "none");
}
Test(failures, lineage_of_rewritten_bulk)
{
    struct stat st;
    struct fs_file *file = create("a", &st), *again;
    bool keep;
    put(file, 0, 3 * MIB, 'a');
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_WRONLY | O_TRUNC, &again, &keep), 0);
    for (int i = 0; i < 6; i++)
        put(again, (uint64_t)i * MIB, MIB, 'b');
    cr_assert_eq(fs_fsync(fs, &caller, again), 0);
    g_autofree char *one = meta_of("a", "dstack-lineage");
    put(again, 6 * MIB, 10, 'c');
    cr_assert_eq(fs_fsync(fs, &caller, again), 0);
    g_autofree char *two = meta_of("a", "dstack-lineage");
    cr_expect_str_eq(one, two, "an append changed the lineage");
    fs_release(fs, again);
}
Test(failures, rewrite_under_old_lineage)
{
    struct stat st;
    struct fs_file *file;
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "a", 0644, O_WRONLY, &file, &st), 0);
    put(file, 0, MIB / 2, 'a');
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    g_autofree char *one = meta_of("a", "dstack-lineage");
    for (int i = 0; i < 6; i++)
        put(file, MIB / 2 + (uint64_t)i * MIB, MIB, 'b');
    g_usleep(100000);
    put(file, 0, 1, 'Z'); /* published bytes change */
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    g_autofree char *two = meta_of("a", "dstack-lineage");
    cr_expect_str_neq(one, two, "rewritten under the same lineage");
    fs_release(fs, file);
}
static void *do_trunc(void *u)
{
    struct stat to = {.st_size = GPOINTER_TO_UINT(u)}, st;
    return GINT_TO_POINTER(fs_setattr(fs, &caller, stat_ino, &to, FS_SET_SIZE, &st));
}
Test(failures, truncate_during_failing_publish)
{
    struct stat st;
    struct fs_file *file;
    pthread_t thread, cut;
    void *cut_error;
    size_t size;
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "a", 0644, O_WRONLY, &file, &st), 0);
    stat_ino = st.st_ino;
    for (int i = 0; i < 2; i++)
        put(file, (uint64_t)i * MIB, MIB, 'a');
    g_usleep(100000);
    for (int i = 0; i < 4; i++)
        put(file, 2 * MIB + (uint64_t)i * MIB / 8, MIB / 8, 'b');
    /* parts to 2 MiB are sent; the publish adds [2, 2.5 MiB) */
    held_store_hold(store, STORE_PART, NULL);
    put(file, MIB, 1, 'q'); /* to be sent again: the publish waits there, before the tail's part */
    pthread_create(&thread, NULL, do_sync, file);
    while (held_store_waiting(store) < 1)
        g_usleep(1000);
    pthread_create(&cut, NULL, do_trunc, GUINT_TO_POINTER(2 * MIB + 1000));
    g_usleep(300000);
    held_store_fail(store, STORE_COMMIT, "a", EIO);
    held_store_release(store);
    pthread_join(thread, NULL);
    pthread_join(cut, &cut_error);
    cr_expect_eq(GPOINTER_TO_INT(cut_error), EIO); /* parts that may be committed reach beyond it */
    held_store_fail(store, 0, NULL, 0);
    cr_expect_eq(GPOINTER_TO_INT(do_trunc(GUINT_TO_POINTER(2 * MIB + 1000))), 0);
    do_trunc(GUINT_TO_POINTER(2 * MIB + MIB / 2));
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    g_autofree char *data = in_store("a", &size);
    cr_assert_not_null(data);
    cr_expect_eq(data[2 * MIB + 2000], 0, "what was cut off is back: %c", data[2 * MIB + 2000]);
    fs_release(fs, file);
}
Test(failures, chmod_of_replaced)
{
    struct stat st, to = {.st_mode = 0600};
    struct fs_file *file = create("x", &st), *again;
    bool keep;
    put(file, 0, 10, 'a');
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    cr_assert(store_write(store, "x", "newer", 5, NULL, NULL, NULL));
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MODE, &st), ESTALE);
    g_usleep(500000);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "x", &st), 0);
    cr_expect_eq(st.st_size, 5, "size %d", (int)st.st_size);
    int error = fs_open(fs, &caller, st.st_ino, O_RDONLY, &again, &keep);
    cr_assert_eq(error, 0);
    GByteArray *bytes = g_byte_array_new();
    error = fs_read(fs, &caller, again, 0, 100, collect, bytes);
    cr_expect_eq(error, 0, "read %d", error);
    fs_release(fs, again);
}
Test(failures, unlinked_write_only)
{
    struct stat st;
    struct fs_file *file;
    int error;
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "t", 0644, O_WRONLY, &file, &st), 0);
    for (int i = 0; i < 3; i++)
        put(file, (uint64_t)i * MIB, MIB, 'a');
    g_usleep(100000);
    cr_assert_eq(fs_unlink(fs, &caller, FS_ROOT, "t"), 0);
    for (int i = 3; i < 120; i++)
        put(file, (uint64_t)i * MIB, MIB, 'a');
    g_usleep(200000);
    error = fs_write(fs, &caller, file, 0, "x", 1);
    cr_expect_eq(error, 0, "write: %d", error);
    fs_release(fs, file);
}
static void down3(void)
{
}
/* A byte that changes while it is published is a rewrite of what others then see. */
Test(failures, a_change_during_a_publish_is_another_lineage)
{
    struct stat st;
    struct fs_file *file = create("log", &st);
    pthread_t thread;
    void *error;

    put(file, 0, 1000, 'a');
    held_store_hold(store, STORE_PUT, NULL);
    pthread_create(&thread, NULL, do_sync, file);
    for (int i = 0; i < 200 && held_store_waiting(store) < 1; i++)
        g_usleep(10000);
    put(file, 500, 1, 'b');
    held_store_release(store);
    pthread_join(thread, &error);
    cr_assert_eq(GPOINTER_TO_INT(error), 0);
    g_autofree char *first = meta_of("log", "dstack-lineage");
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    g_autofree char *second = meta_of("log", "dstack-lineage");
    cr_expect_str_neq(first, second);
    put(file, 1000, 10, 'c'); /* this only adds */
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    g_autofree char *third = meta_of("log", "dstack-lineage");
    cr_expect_str_eq(second, third);
    fs_release(fs, file);
}

static atomic_bool tail_is_written;

static void *do_write_in_tail(void *file)
{
    put(file, 6 * MIB, 1, 'y');
    atomic_store(&tail_is_written, true);
    return NULL;
}

/* What a publish may yet plan to let the store copy is not changed under it: were the publish to
 * fail, the copy would be taken for what was written since. */
Test(failures, a_write_waits_for_a_publish_of_what_the_store_copies)
{
    struct stat st;
    struct fs_file *file = create("big", &st);
    pthread_t syncs, writes;
    size_t size;

    put(file, 0, 8 * MIB, 'a');
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    put(file, 4 * MIB, 1, 'x');
    held_store_hold(store, STORE_BEGIN, NULL); /* nothing is planned yet */
    pthread_create(&syncs, NULL, do_sync, file);
    for (int i = 0; i < 300 && held_store_waiting(store) < 1; i++)
        g_usleep(10000);
    cr_assert_eq(held_store_waiting(store), 1);
    pthread_create(&writes, NULL, do_write_in_tail, file);
    g_usleep(200000);
    cr_expect(!atomic_load(&tail_is_written));
    held_store_release(store);
    pthread_join(syncs, NULL);
    pthread_join(writes, NULL);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    g_autofree char *data = in_store("big", &size);
    cr_assert_eq(size, 8 * MIB);
    cr_expect_eq(data[4 * MIB], 'x');
    cr_expect_eq(data[6 * MIB], 'y', "the written byte is lost");
    fs_release(fs, file);
}

struct opening {
    uint64_t ino;
    struct fs_file *file;
    int error;
};

static void *do_open(void *data)
{
    struct opening *opening = data;
    bool keep;

    opening->error = fs_open(fs, &caller, opening->ino, O_RDONLY, &opening->file, &keep);
    return NULL;
}

static void *do_rename(void *unused)
{
    return GINT_TO_POINTER(fs_rename(fs, &caller, FS_ROOT, "new", FS_ROOT, "f", 0));
}

static uint64_t make(const char *name, const char *text)
{
    struct stat st;
    struct fs_file *file = create(name, &st);

    cr_assert_eq(fs_write(fs, &caller, file, 0, text, strlen(text)), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    fs_release(fs, file);
    return st.st_ino;
}

/* Who opens a file while another one takes its place gets a handle that can be read, or is told to
 * look again; and then nobody is in the way. */
Test(failures, open_while_it_is_replaced)
{
    struct opening first = {.ino = make("f", "old")}, second = {0};
    struct stat st;
    pthread_t renames, opens;
    void *error;

    make("new", "new");
    held_store_hold(store, STORE_COPY, NULL);
    pthread_create(&renames, NULL, do_rename, NULL);
    for (int i = 0; i < 200 && held_store_waiting(store) < 1; i++)
        g_usleep(10000);
    cr_assert_eq(held_store_waiting(store), 1);
    pthread_create(&opens, NULL, do_open, &first);
    g_usleep(100000);
    held_store_release(store);
    pthread_join(renames, &error);
    cr_expect_eq(GPOINTER_TO_INT(error), 0);
    pthread_join(opens, NULL);
    cr_expect_eq(first.error, ESTALE, "%d", first.error);

    make("new", "newer");
    cr_expect_eq(GPOINTER_TO_INT(do_rename(NULL)), 0);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "f", &st), 0);
    second.ino = st.st_ino;
    do_open(&second);
    cr_assert_eq(second.error, 0);
    fs_release(fs, second.file);
}

static void set_up_16(void)
{
    set_up_held(16 * MIB, 5 * MIB);
}
TestSuite(failures_small, .init = set_up_16, .fini = down3, .timeout = 30);
Test(failures_small, padding_deadlock)
{
    struct fs_file *files[24];
    struct stat st;
    pthread_t threads[24];
    for (int i = 0; i < 24; i++) {
        g_autofree char *name = g_strdup_printf("f%d", i);
        files[i] = create(name, &st);
        for (int j = 0; j < 4; j++)
            put(files[i], (uint64_t)j * MIB, MIB, 'a');
        cr_assert_eq(fs_fsync(fs, &caller, files[i]), 0);
        fs_release(fs, files[i]);
        bool keep;
        cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDWR, &files[i], &keep), 0);
    }
    for (int i = 0; i < 24; i++)
        put(files[i], 2 * MIB, 1, 'b');
    for (int i = 0; i < 24; i++)
        pthread_create(&threads[i], NULL, do_sync, files[i]);
    for (int i = 0; i < 24; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 24; i++)
        fs_release(fs, files[i]);
    fs_free(fs);
}
Test(failures_small, scattered_small_writes)
{
    struct stat st;
    struct fs_file *file = create("r", &st);
    struct stat to = {.st_size = 1 << 30};
    stat_ino = st.st_ino;
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_SIZE, &st), 0);
    for (uint64_t i = 0; i < 2000; i++)
        put(file, (i * 7919 % 200000) * 4096, 4096, 'z');
    cr_assert_eq(held_store_calls(store, STORE_COMMIT), 0, "8 MiB of small writes fit in memory");
    fs_release(fs, file);
}

/* What changed in a part that was sent makes the whole part be sent again: no byte of it may be let
 * go of meanwhile. */
Test(failures, memory_of_a_changed_part_is_not_given_away)
{
    g_autofree char *data = NULL, *expected = g_malloc(2 * MIB);
    struct stat st;
    struct fs_file *file;
    size_t size;

    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "big", 0644, O_WRONLY, &file, &st), 0);
    put(file, 0, MIB, 'a');
    put(file, MIB, MIB, 'b');
    for (int i = 0; i < 1000 && held_store_calls(store, STORE_PART) < 2; i++)
        g_usleep(1000);
    g_usleep(50000); /* their answers */
    put(file, 10, 1, 'x');
    make_room(fs);
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    memset(expected, 'a', MIB);
    memset(expected + MIB, 'b', MIB);
    expected[10] = 'x';
    data = in_store("big", &size);
    cr_assert_eq(size, 2 * MIB);
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(data[i], expected[i], "byte %zu", i);
}

/* Somebody aborts every upload there is, as a lifecycle rule does. */
static void abort_uploads(void)
{
    g_autoptr(StoreCall) list = store_call_new(STORE_UPLOADS, "");

    cr_assert(store_run(below, list, NULL));
    cr_assert_gt(list->uploads->len, 0);
    for (guint i = 0; i < list->uploads->len; i++) {
        const struct store_upload *upload = list->uploads->pdata[i];
        g_autoptr(StoreCall) call = store_call_new(STORE_ABORT, upload->key);

        call->upload_id = g_strdup(upload->upload_id);
        cr_assert(store_run(below, call, NULL));
    }
}
Test(failures, a_lost_upload_is_begun_anew)
{
    struct stat st;
    struct fs_file *file;
    size_t size;
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "a", 0644, O_WRONLY, &file, &st), 0);
    for (int i = 0; i < 4; i++)
        put(file, (uint64_t)i * MIB, MIB, 'a' + i); /* less than half of the budget: all is kept */
    g_usleep(200000);
    abort_uploads();
    cr_expect_eq(fs_fsync(fs, &caller, file), 0);
    g_autofree char *data = in_store("a", &size);
    cr_assert_eq(size, 4 * MIB);
    cr_expect_eq(data[4 * MIB - 1], 'd');
    fs_release(fs, file);
}
Test(failures, a_lost_upload_of_copied_parts_is_begun_anew)
{
    struct stat st;
    struct fs_file *file, *again;
    pthread_t thread;
    void *error;
    bool keep;
    size_t size;
    file = create("a", &st);
    put(file, 0, 8 * MIB, 'a');
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_WRONLY, &again, &keep), 0);
    held_store_hold(store, STORE_COPY_PART, NULL);
    put(again, 8 * MIB, 2 * MIB, 'b');
    pthread_create(&thread, NULL, do_sync, again);
    while (held_store_waiting(store) < 1)
        g_usleep(1000);
    abort_uploads();
    held_store_release(store);
    pthread_join(thread, &error);
    cr_expect_eq(GPOINTER_TO_INT(error), 0, "%d", GPOINTER_TO_INT(error));
    g_autofree char *data = in_store("a", &size);
    cr_assert_eq(size, 10 * MIB);
    cr_expect(data[0] == 'a' && data[8 * MIB - 1] == 'a' && data[8 * MIB] == 'b');
    fs_release(fs, again);
}
Test(failures_small, a_lost_upload_with_bytes_of_its_own_holds_nobody_up)
{
    struct fs_file *file, *other;
    struct stat st;
    g_autoptr(GPtrArray) unsaved = NULL;
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "a", 0644, O_WRONLY, &file, &st), 0);
    for (int i = 0; i < 40; i++)
        put(file, (uint64_t)i * MIB, MIB, 'a');
    abort_uploads();
    cr_expect_eq(fs_flush(fs, &caller, file), EIO);
    other = create("other", &st);
    put(other, 0, 5, 'o');
    cr_expect_eq(fs_flush(fs, &caller, other), 0, "held up");
    fs_release(fs, other);
    cr_expect_eq(fs_drain(fs, 5000, &unsaved), false);
    cr_assert_not_null(unsaved);
    cr_expect(unsaved->len == 1 && g_str_equal(unsaved->pdata[0], "a"));
    cr_expect(fs_is_hopeless(fs));
    fs_release(fs, file);
    fs_free(fs);
}
