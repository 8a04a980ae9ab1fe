/* What is fetched for whom: sequential readers get windows, scattered ones what they ask for, and
 * none waits for ever. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/fs_internal.h"
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

#define SLAB_MIB   32
#define SLABS      12
#define REQUEST    (512u * 1024)
#define REQUESTS_2 4 /* of 2 MiB */
#define STEPS      (SLAB_MIB * MIB / REQUEST / REQUESTS_2)

/* What the kernel does where a page of a mapping is needed: it reads the 2 MiB around it that it
 * does not have, in requests that arrive in any order. */
static void touch(struct fs_file *file, bool *cached, GRand *random, uint64_t first)
{
    unsigned order[REQUESTS_2] = {0, 1, 2, 3};

    for (unsigned i = REQUESTS_2; i > 1; i--) {
        unsigned j = (unsigned)g_rand_int_range(random, 0, (gint32)i), swapped = order[j];

        order[j] = order[i - 1];
        order[i - 1] = swapped;
    }
    for (unsigned i = 0; i < REQUESTS_2; i++) {
        uint64_t request = first + order[i];

        if (request >= (uint64_t)SLABS * SLAB_MIB * MIB / REQUEST || cached[request])
            continue;
        cached[request] = true;
        expect_range(file, request * REQUEST, REQUEST);
    }
}

/* memcpy touches both ends of a tensor in a mapping, then goes on from one of them. STEPS: so far.
 */
static void copy_part(struct fs_file *file, bool *cached, GRand *random, uint64_t slab, bool down,
                      unsigned steps)
{
    const uint64_t first = slab * SLAB_MIB * MIB / REQUEST;

    touch(file, cached, random, first ? first - 2 : 0);
    touch(file, cached, random, first + (STEPS - 1) * REQUESTS_2 + 2);
    for (unsigned i = 0; i < steps; i++)
        touch(file, cached, random, first + (down ? STEPS - 1 - i : i) * REQUESTS_2);
}

static void copy_slab(struct fs_file *file, bool *cached, GRand *random, uint64_t slab, bool down)
{
    copy_part(file, cached, random, slab, down, STEPS);
}

static void copy_slabs(bool down)
{
    static const unsigned order[SLABS] = {7, 2, 10, 0, 5, 11, 3, 8, 1, 6, 9, 4};
    g_autofree bool *cached = g_new0(bool, SLABS *SLAB_MIB *MIB / REQUEST);
    struct fs_file *file;
    GRand *random = g_rand_new_with_seed(3);

    put_large("x", SLABS * SLAB_MIB);
    open_small(1024ull * MIB); /* enough to keep all that is fetched ahead */
    faulty_store_delay(counted, 2);
    file = open_file("x");
    for (unsigned i = 0; i < SLABS; i++)
        copy_slab(file, cached, random, order[i], down);
    cr_log_info("%.2f of the bytes",
                (double)faulty_store_received(counted) / (SLABS * SLAB_MIB * MIB));
    cr_assert_geq(faulty_store_most_in_flight(counted), 4);
    cr_assert_leq(faulty_store_received(counted), (uint64_t)SLABS * SLAB_MIB * MIB * 13 / 10);
    fs_release(fs, file);
    g_rand_free(random);
    close_small();
}

Test(readahead, tensors_in_any_order_are_fetched_once_downwards)
{
    copy_slabs(true);
}

Test(readahead, tensors_in_any_order_are_fetched_once_upwards)
{
    copy_slabs(false);
}

static void wait_received(uint64_t wanted)
{
    for (int i = 0; i < 200 && faulty_store_received(counted) < wanted; i++)
        g_usleep(10000);
    cr_expect_geq(faulty_store_received(counted), wanted);
}

/* Who reads one tensor after the other is not waited for at each one's end. */
Test(readahead, tensors_in_order_are_fetched_beyond_their_ends)
{
    g_autofree bool *cached = g_new0(bool, SLABS *SLAB_MIB *MIB / REQUEST);
    GRand *random = g_rand_new_with_seed(6);
    struct fs_file *file;
    uint64_t wanted = (5ull * SLAB_MIB + 40) * MIB;

    put_large("x", SLABS * SLAB_MIB);
    open_small(1024ull * MIB);
    file = open_file("x");
    for (unsigned i = 0; i < 4; i++)
        copy_slab(file, cached, random, i, false);
    copy_part(file, cached, random, 4, false, STEPS - 3);
    wait_received(wanted);
    fs_release(fs, file);
    g_rand_free(random);
    close_small();
}

/* Where the last tensors went to the end that was touched first, so does the next one. */
Test(readahead, a_tensor_whose_end_is_known_is_fetched_whole)
{
    static const unsigned order[] = {7, 2, 10, 0};
    const uint64_t slab = (uint64_t)SLAB_MIB * MIB;

    for (unsigned down = 0; down < 2; down++) {
        g_autofree bool *cached = g_new0(bool, SLABS *SLAB_MIB *MIB / REQUEST);
        GRand *random = g_rand_new_with_seed(6);
        struct fs_file *file;

        put_large("x", SLABS * SLAB_MIB);
        open_small(1024ull * MIB);
        file = open_file("x");
        for (unsigned i = 0; i < G_N_ELEMENTS(order); i++)
            copy_slab(file, cached, random, order[i], down);
        copy_part(file, cached, random, 5, down, 2);
        wait_received(5 * slab);
        cr_expect_leq(faulty_store_received(counted), 5 * slab * 13 / 10);
        fs_release(fs, file);
        g_rand_free(random);
        close_small();
    }
}

static void read_mibs(struct fs_file *file, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        expect_range(file, (uint64_t)i * MIB, MIB);
}

/* Nobody waits for what is fetched ahead. */
static void wait_quiet(void)
{
    uint64_t before;

    do {
        before = faulty_store_received(counted);
        g_usleep(100000);
    } while (faulty_store_received(counted) != before);
}

/* Records of three requests have no far end. */
Test(readahead, records_behind_tensors_are_no_tensors)
{
    static const unsigned order[] = {1, 3, 2, 0};
    g_autofree bool *cached = g_new0(bool, SLABS *SLAB_MIB *MIB / REQUEST);
    GRand *random = g_rand_new_with_seed(6);
    struct fs_file *file;
    uint64_t before;

    put_large("x", 768);
    open_small(512ull * MIB);
    file = open_file("x");
    for (unsigned i = 0; i < G_N_ELEMENTS(order); i++)
        copy_slab(file, cached, random, order[i], false);
    wait_quiet();
    before = faulty_store_received(counted);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t at = (uint64_t)g_rand_int_range(random, 6 * 32, 760) * MIB;

        for (unsigned j = 0; j < 3; j++)
            expect_range(file, at + j * REQUEST, REQUEST);
    }
    wait_quiet();
    cr_expect_leq(faulty_store_received(counted) - before, 160ull * MIB); /* 60 were asked for */
    fs_release(fs, file);
    g_rand_free(random);
    close_small();
}

Test(readahead, a_page_that_the_kernel_has_does_not_cut_what_is_fetched)
{
    const unsigned step = 128 * 1024, page = 4096;
    struct fs_file *file;
    unsigned before;

    put_large("x", 64);
    open_small(512ull * MIB);
    file = open_file("x");
    for (unsigned i = 0; i < 500; i++)
        expect_range(file, (i * 617ull) % 500 * step + step / 2, page);
    before = faulty_store_calls(counted, STORE_GET);
    for (uint64_t at = 0; at < 500ull * step; at += step) {
        expect_range(file, at, step / 2);
        expect_range(file, at + step / 2 + page, step / 2 - page);
    }
    cr_expect_leq(faulty_store_calls(counted, STORE_GET) - before, 64);
    fs_release(fs, file);
    close_small();
}

Test(readahead, what_the_kernel_was_given_is_not_fetched_ahead_again)
{
    struct fs_file *file;

    put_large("x", 96);
    open_small(256 * MIB);
    file = open_file("x");
    read_mibs(file, 16, 48);
    read_mibs(file, 0, 16);
    read_mibs(file, 48, 96); /* goes on behind what the kernel has */
    wait_quiet();
    cr_assert_leq(faulty_store_received(counted), 97ull * MIB);
    fs_release(fs, file);
    close_small();
}

Test(readahead, what_the_kernel_asks_for_again_it_does_not_have)
{
    struct fs_file *file;
    uint64_t before;

    put_large("x", 96);
    open_small(256 * MIB);
    file = open_file("x");
    read_mibs(file, 0, 96);
    before = faulty_store_received(counted);
    read_mibs(file, 0, 24);
    wait_received(before + 30ull * MIB);
    fs_release(fs, file);
    close_small();
}

/* A store that was away, and is back before anybody needed what could not be fetched. */
Test(readahead, what_failed_ahead_is_fetched_again)
{
    struct fs_file *file;

    put_large("x", 64);
    open_small(256 * MIB);
    file = open_file("x");
    for (unsigned i = 0; i < 4; i++)
        expect_range(file, (uint64_t)i * MIB, MIB);
    faulty_store_fail(counted, STORE_GET, 1, 1, EIO);
    for (unsigned i = 4; i < 64; i++) {
        expect_range(file, (uint64_t)i * MIB, MIB);
        if (i < 12)
            g_usleep(20000); /* nobody waits for what is fetched ahead */
    }
    fs_release(fs, file);
    close_small();
}

/* What was still fetched when its reader's stream was given up gives way too, once it is there. */
Test(readahead, what_nobody_waits_for_any_more_gives_way)
{
    struct fs_options options = {.budget_bytes = 64 * MIB};
    struct store *held = held_store_new(store);
    struct fs_file *file;

    put_large("x", 64);
    fs = fs_new(held, &options);
    file = open_file("x");
    for (unsigned i = 0; i < 4; i++)
        expect_range(file, (uint64_t)i * MIB, MIB);
    held_store_hold(held, STORE_GET, NULL);
    expect_range(file, 4 * MIB, MIB);
    expect_range(file, 5 * MIB, MIB);
    cr_assert_gt(held_store_waiting(held), 0);
    g_usleep(500000); /* nobody reads on */
    make_room(fs);
    held_store_release(held);
    for (unsigned i = 0; i < 100 && budget_used_bytes(fs->budget); i++) {
        make_room(fs);
        g_usleep(20000);
    }
    cr_assert_eq(budget_used_bytes(fs->budget), 0);
    fs_release(fs, file);
    fs_free(fs);
    store_unref(held);
}
