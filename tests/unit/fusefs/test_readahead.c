/* What is fetched for whom: sequential readers get windows, scattered ones what they ask for, and
 * none waits for ever. */
#include "tests/unit/fusefs/fixture.h"

#include "tests/support/faulty_store.h"
#include "tests/support/held_store.h"

#define MIB (1u << 20)

static struct store *counted;

static void open_small(uint64_t budget)
{
    struct fs_options options = {.budget_bytes = budget};

    counted = faulty_store_new(store);
    fs = fs_new(counted, &options);
}

static void close_small(void)
{
    fs_free(fs);
    store_unref(counted);
}

TestSuite(readahead, .init = set_up_store, .fini = tear_down_store, .timeout = 60);

static void put_large(const char *key, unsigned mib)
{
    g_autofree uint32_t *data = g_malloc((size_t)mib * MIB);

    for (size_t i = 0; i < (size_t)mib * MIB / 4; i++)
        data[i] = i;
    cr_assert(store_write(store, key, data, (size_t)mib * MIB, NULL, NULL, NULL));
}

static struct fs_file *open_file(const char *name)
{
    struct fs_file *file;
    struct stat st;
    bool keep;

    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, name, &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
    return file;
}

static void expect_range(struct fs_file *file, uint64_t offset, size_t size)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    const uint32_t *words;

    cr_assert_eq(fs_read(fs, &caller, file, offset, size, collect, bytes), 0);
    cr_assert_eq(bytes->len, size);
    words = (const uint32_t *)(void *)bytes->data;
    for (size_t i = 0; i < size / 4; i += 101)
        cr_assert_eq(words[i], offset / 4 + i);
}

Test(readahead, scattered_reads_fetch_what_they_ask_for)
{
    struct fs_file *file;
    GRand *random = g_rand_new_with_seed(1);

    put_large("x", 256);
    open_small(64 * MIB);
    file = open_file("x");
    for (int i = 0; i < 200; i++)
        expect_range(file, (uint64_t)g_rand_int_range(random, 0, 1023) * 256 * 1024, 256 * 1024);
    cr_assert_leq(faulty_store_received(counted), 200ull * 256 * 1024 * 12 / 10);
    fs_release(fs, file);
    g_rand_free(random);
    close_small();
}

Test(readahead, a_sequential_reader_has_several_requests_in_flight)
{
    struct fs_file *file;

    put_large("x", 128);
    open_small(256 * MIB);
    faulty_store_delay(counted, 20);
    file = open_file("x");
    for (unsigned i = 0; i < 128; i++)
        expect_range(file, (uint64_t)i * MIB, MIB);
    cr_assert_geq(faulty_store_most_in_flight(counted), 4);
    cr_assert_leq(faulty_store_received(counted), 129ull * MIB);
    fs_release(fs, file);
    close_small();
}

Test(readahead, many_places_on_a_small_budget_go_on)
{
    struct fs_file *file, *other;
    GRand *random = g_rand_new_with_seed(2);

    put_large("x", 32);
    put_large("y", 32);
    open_small(16 * MIB);
    file = open_file("x");
    other = open_file("y");
    for (int i = 0; i < 400; i++) {
        uint64_t start = (uint64_t)g_rand_int_range(random, 0, 28) * MIB;

        for (unsigned j = 0; j < 3; j++) /* a little run, so that streams widen */
            expect_range(i % 3 ? file : other, start + j * MIB, MIB);
    }
    fs_release(fs, file);
    fs_release(fs, other);
    g_rand_free(random);
    close_small();
}

/* memcpy reads a mapping so when the two places are alike in their last 12 bits. */
Test(readahead, a_downward_reader_has_several_requests_in_flight)
{
    struct fs_file *file;

    put_large("x", 64);
    open_small(256 * MIB);
    faulty_store_delay(counted, 20);
    file = open_file("x");
    for (unsigned i = 64; i-- > 0;)
        expect_range(file, (uint64_t)i * MIB, MIB);
    cr_assert_geq(faulty_store_most_in_flight(counted), 4);
    cr_assert_leq(faulty_store_received(counted), 66ull * MIB);
    fs_release(fs, file);
    close_small();
}

/* Each page fault below what is there makes the kernel ask for about 2 MiB, overlapping by a page.
 */
Test(readahead, what_a_downward_reader_asks_for_next_is_there_already)
{
    const uint64_t top = 48 * MIB, step = 2 * MIB - 4096;
    struct fs_options options = {.budget_bytes = 256 * MIB};
    struct store *held;
    struct fs_file *file;

    put_large("x", 64);
    counted = faulty_store_new(store);
    held = held_store_new(counted);
    fs = fs_new(held, &options);
    file = open_file("x");
    for (uint64_t i = 1; i <= 16; i++) {
        if (i > 4)
            held_store_hold(held, STORE_GET, NULL); /* a read that needs more waits for ever */
        expect_range(file, top - i * step, 2 * MIB);
        held_store_release(held);
    }
    cr_assert_leq(faulty_store_received(counted), 16 * step * 3 / 2 + 4 * MIB);
    fs_release(fs, file);
    close_small();
    store_unref(held);
}
