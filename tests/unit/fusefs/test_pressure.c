/* A store that refuses or forgets, and directories that are long: what is asked of the store, and
 * that what is dirty stays known. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/fs_internal.h"
#include "storage/store_driver.h"
#include "tests/support/held_store.h"

#include <pthread.h>

#define MIB (1u << 20)

static struct store *below;

static void set_up_held(void)
{
    below = memory_store_new();
    below->caps.min_part_bytes = 5 * MIB;
    store = held_store_new(below);
}

static void tear_down_held(void)
{
    store_unref(store);
    store_unref(below);
}

TestSuite(pressure, .init = set_up_held, .fini = tear_down_held, .timeout = 40);

static void *close_file(void *file)
{
    return GINT_TO_POINTER(fs_flush(fs, &caller, file));
}

Test(pressure, a_file_whose_publish_failed_is_not_forgotten_when_a_reader_closes)
{
    struct fs_options options = {.sync_interval_ms = 3600000};
    struct fs_file *file, *reader;
    pthread_t thread;
    void *result;
    struct stat st;
    size_t size;
    bool keep;

    fs = fs_new(store, &options);
    file = create("x", &st);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "data", 4), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &reader, &keep), 0);
    held_store_hold(store, STORE_PUT, NULL);
    pthread_create(&thread, NULL, close_file, file);
    while (!held_store_waiting(store))
        g_usleep(1000);
    fs_release(fs, reader); /* while the publish is under way */
    held_store_drop(store, EIO);
    pthread_join(thread, &result);
    cr_assert_eq(GPOINTER_TO_INT(result), EIO);
    fs_release(fs, file);
    cr_assert(fs_drain(fs, 10000, NULL));
    {
        g_autofree char *data = in_store("x", &size);

        cr_assert_str_eq(data, "data");
    }
    fs_forget(fs, st.st_ino, 1);
    fs_free(fs);
}

static void *write_much(void *file)
{
    g_autofree char *data = g_malloc0(MIB);

    for (uint64_t i = 0; i < 15; i++)
        if (fs_write(fs, &caller, file, i * 2 * MIB, data, MIB))
            break;
    return NULL;
}

Test(pressure, a_store_that_refuses_is_not_asked_without_a_pause)
{
    struct fs_options options = {.budget_bytes = 16 * MIB};
    struct fs_file *file;
    pthread_t thread;
    unsigned before, asked;
    struct stat st;

    fs = fs_new(store, &options);
    file = create("x", &st);
    held_store_fail(store, STORE_VERBS, NULL, EACCES);
    pthread_create(&thread, NULL, write_much, file);
    g_usleep(1000000);
    before = held_store_calls(store, STORE_VERBS);
    g_usleep(1000000);
    asked = held_store_calls(store, STORE_VERBS) - before;
    held_store_fail(store, 0, NULL, 0);
    pthread_join(thread, NULL);
    cr_assert_leq(asked, 50, "%u requests in a second", asked);
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    fs_free(fs);
}

#define PLACES 32

struct place {
    struct fs_file *file;
    unsigned index;
};

/* A byte of its own, and what is around it in the object. */
static void *read_around(void *user)
{
    const struct place *place = user;
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    int error =
        fs_read(fs, &caller, place->file, (uint64_t)place->index * MIB, MIB, collect, bytes);

    if (!error && (bytes->len != MIB || bytes->data[5] != 'x' || bytes->data[6] != 'o'))
        error = EBADMSG;
    return GINT_TO_POINTER(error);
}

Test(pressure, what_readers_of_a_changed_file_fetch_is_in_the_budget)
{
    struct fs_options options = {.sync_interval_ms = 3600000, .budget_bytes = 16 * MIB};
    g_autofree char *data = g_malloc(PLACES * MIB);
    struct place places[PLACES];
    pthread_t threads[PLACES];
    struct fs_file *file;
    struct stat st;
    void *error;

    memset(data, 'o', PLACES * MIB);
    cr_assert(store_write(below, "f", data, PLACES * MIB, NULL, NULL, NULL));
    fs = fs_new(store, &options);
    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "f", 0644, O_RDWR, &file, &st), 0);
    for (unsigned i = 0; i < PLACES; i++)
        cr_assert_eq(fs_write(fs, &caller, file, (uint64_t)i * MIB + 5, "x", 1), 0);
    held_store_hold(store, STORE_GET, NULL);
    for (unsigned i = 0; i < PLACES; i++) {
        places[i] = (struct place){file, i};
        pthread_create(&threads[i], NULL, read_around, &places[i]);
    }
    g_usleep(500000);
    cr_expect_geq(held_store_waiting(store), 8);
    cr_expect_leq(held_store_waiting(store), 16, "%u MiB", held_store_waiting(store));
    held_store_release(store);
    for (unsigned i = 0; i < PLACES; i++) {
        pthread_join(threads[i], &error);
        cr_expect_eq(GPOINTER_TO_INT(error), 0, "%u: %d", i, GPOINTER_TO_INT(error));
    }
    cr_expect_leq(fs_peak_bytes(fs), 16 * MIB);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    fs_drain(fs, 10000, NULL);
    fs_free(fs);
}

#define READERS 64

static void *read_one(void *user)
{
    const struct place *place = user;
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    int error =
        fs_read(fs, &caller, place->file, (uint64_t)place->index * MIB, MIB, collect, bytes);

    return GINT_TO_POINTER(error ? error : bytes->len != MIB);
}

Test(pressure, readers_that_find_no_room_are_few_at_a_time)
{
    struct fs_options options = {.budget_bytes = 16 * MIB};
    g_autofree char *data = g_malloc0(READERS * MIB);
    struct place places[READERS];
    pthread_t threads[READERS];
    struct fs_file *file;
    struct stat st;
    void *error;
    bool keep;

    cr_assert(store_write(below, "f", data, READERS * MIB, NULL, NULL, NULL));
    fs = fs_new(store, &options);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "f", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
    held_store_hold(store, STORE_GET, NULL);
    for (unsigned i = 0; i < READERS; i++) {
        places[i] = (struct place){file, i};
        pthread_create(&threads[i], NULL, read_one, &places[i]);
    }
    g_usleep(2000000); /* longer than they wait for room */
    cr_expect_gt(held_store_waiting(store), 16, "none beside the budget");
    cr_expect_leq(held_store_waiting(store), 32, "%u MiB", held_store_waiting(store));
    held_store_release(store);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(threads[i], &error);
        cr_expect_eq(GPOINTER_TO_INT(error), 0, "%u: %d", i, GPOINTER_TO_INT(error));
    }
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    fs_free(fs);
}

Test(pressure, a_long_directory_is_not_listed_for_each_name)
{
    struct lease_options how = {.exclusive = true};
    struct fs_options options = {0};
    struct lease_record *previous;
    struct stat st, none;
    unsigned before;

    for (unsigned i = 0; i < 10000; i++) {
        g_autofree char *key = g_strdup_printf("d/%06u", i);

        cr_assert(store_write(below, key, "", 0, NULL, NULL, NULL));
    }
    options.lease = lease_acquire(store, &how, &previous, NULL);
    fs = fs_new(store, &options);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "d", &st), 0);
    cr_assert_eq(fs_lookup(fs, &caller, st.st_ino, "none", &none), ENOENT);
    before = held_store_calls(store, STORE_LIST);
    for (unsigned i = 0; i < 10; i++) {
        g_autofree char *name = g_strdup_printf("none%u", i);

        cr_assert_eq(fs_lookup(fs, &caller, st.st_ino, name, &none), ENOENT);
    }
    cr_assert_leq(held_store_calls(store, STORE_LIST) - before, 10, "one short look for each name");
    fs_free(fs);
    lease_release(options.lease);
}

/* cp writes 128 KiB at a time: what it wrote, and little more, is taken out of the budget. */
Test(pressure, writes_of_every_size_take_about_what_they_are)
{
    struct fs_options options = {.sync_interval_ms = 3600000, .budget_bytes = 64 * MIB};
    static char block[MIB];

    fs = fs_new(store, &options);
    for (size_t size = 1000; size <= MIB; size = size * 9 / 4) {
        g_autofree char *name = g_strdup_printf("%zu", size);
        uint64_t before = budget_used_bytes(fs->budget), used;
        struct stat st;
        struct fs_file *file = create(name, &st);

        for (uint64_t at = 0; at < 4 * MIB; at += size)
            cr_assert_eq(fs_write(fs, &caller, file, at, block, size), 0);
        used = budget_used_bytes(fs->budget) - before;
        cr_expect_leq(used, 8 * MIB + MIB, "%zu: %zu KiB", size, (size_t)used / 1024);
        cr_assert_eq(fs_flush(fs, &caller, file), 0);
        fs_release(fs, file);
    }
    cr_assert(fs_drain(fs, 10000, NULL));
    fs_free(fs);
}

Test(pressure, a_directory_that_is_only_a_prefix_is_asked_for_once)
{
    struct fs_options options = {.attr_ttl_ms = 60000};
    unsigned heads;
    struct stat st;

    cr_assert(store_write(below, "dir/f", "data", 4, NULL, NULL, NULL));
    fs = fs_new(store, &options);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "dir", &st), 0);
    heads = held_store_calls(store, STORE_HEAD);
    cr_assert_eq(fs_getattr(fs, &caller, st.st_ino, &st), 0);
    cr_expect_eq(held_store_calls(store, STORE_HEAD), heads);
    fs_forget(fs, st.st_ino, 1);
    fs_free(fs);
}
