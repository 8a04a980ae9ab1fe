/* Files that are larger than the numbers of one upload's parts are enough for, on a store that
 * takes ten of them: 12 MiB in one upload. */
#include "tests/unit/fusefs/fixture.h"

#include "storage/store_driver.h"

#define MIB   (1u << 20)
#define LARGE 80 /* MiB */

static void set_up_few(void)
{
    struct fs_options options = {
        .sync_interval_ms = 60000, .budget_bytes = 16 * MIB, .part_bytes = MIB};

    store = memory_store_new();
    store->caps.max_parts = 32;
    fs = fs_new(store, &options);
}

TestSuite(large, .init = set_up_few, .fini = tear_down, .timeout = 60);

static int write_mib(struct fs_file *file, unsigned at, char byte)
{
    g_autofree char *data = g_malloc(MIB);

    memset(data, byte + at % 20, MIB);
    return fs_write(fs, &caller, file, (uint64_t)at * MIB, data, MIB);
}

static int write_large(struct fs_file *file, char byte)
{
    int error = 0;

    for (unsigned i = 0; !error && i < LARGE; i++)
        error = write_mib(file, i, byte);
    return error;
}

static void check_large(const char *key, char byte)
{
    size_t size = 0;
    g_autofree char *data = in_store(key, &size);

    cr_assert_eq(size, (size_t)LARGE * MIB, "%zu", size);
    for (unsigned i = 0; i < LARGE; i++) {
        cr_assert_eq(data[(size_t)i * MIB], byte + i % 20, "MiB %u", i);
        cr_assert_eq(data[(size_t)i * MIB + MIB - 1], byte + i % 20, "MiB %u", i);
    }
}

static struct fs_file *open_again(const char *name, int flags)
{
    struct fs_file *file;
    struct stat st;
    bool keep;

    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, name, &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, flags, &file, &keep), 0);
    return file;
}

static void finish(struct fs_file *file)
{
    cr_expect_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
}

static void make_large(const char *name, char byte)
{
    struct fs_file *file;
    struct stat st;

    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, name, 0644, O_WRONLY, &file, &st), 0);
    cr_assert_eq(write_large(file, byte), 0);
    finish(file);
}

Test(large, a_new_file)
{
    make_large("f", 'A');
    check_large("f", 'A');
}

Test(large, a_file_that_is_read_while_it_is_written)
{
    struct stat st;
    struct fs_file *file = create("f", &st);
    struct store_object object = {0};

    cr_assert_eq(write_large(file, 'A'), 0);
    cr_expect(!store_head(store, "f", &object, NULL)); /* it does not show before it is closed */
    g_autoptr(GByteArray) bytes = read_all(file);
    cr_expect_eq(bytes->len, LARGE * MIB);
    cr_expect_eq(bytes->data[5 * MIB], 'A' + 5);
    finish(file);
    check_large("f", 'A');
}

Test(large, what_replaces_a_large_file_shows_when_it_is_closed)
{
    struct fs_file *file;

    make_large("f", 'A');
    file = open_again("f", O_WRONLY | O_TRUNC);
    cr_assert_eq(write_large(file, 'a'), 0);
    check_large("f", 'A');
    finish(file);
    check_large("f", 'a');
}

/* One that is seen to be large only while its upload goes to the place of a small one. */
Test(large, what_replaces_a_small_file_must_fit_into_one_upload)
{
    struct fs_file *file;
    struct stat st;
    size_t size;

    file = create("f", &st);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "small", 5), 0);
    finish(file);
    file = open_again("f", O_WRONLY | O_TRUNC);
    cr_expect_eq(write_large(file, 'a'), EFBIG);
    g_autofree char *data = in_store("f", &size);
    cr_expect_eq(size, 5);
    cr_expect_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
}

/* Twenty places would take 40 parts: what lies between them is sent too. */
Test(large, scattered_changes)
{
    struct fs_file *file;
    size_t size;

    make_large("f", 'A');
    file = open_again("f", O_RDWR);
    for (unsigned i = 0; i < LARGE / 2; i += 2)
        cr_assert_eq(fs_write(fs, &caller, file, (uint64_t)i * MIB + 1000, "!", 1), 0);
    finish(file);
    check_large("f", 'A');
    g_autofree char *data = in_store("f", &size);
    for (unsigned i = 0; i < LARGE / 2; i += 2)
        cr_expect_eq(data[(size_t)i * MIB + 1000], '!');
}

Test(large, holes_take_few_parts)
{
    struct stat st, to = {.st_size = 100 * MIB};
    struct fs_file *file = create("f", &st);
    size_t size;

    cr_assert_eq(fs_write(fs, &caller, file, 0, "first", 5), 0);
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_SIZE, &st), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 99 * MIB, "last", 4), 0);
    finish(file);
    g_autofree char *data = in_store("f", &size);
    cr_assert_eq(size, (size_t)100 * MIB);
    cr_expect_str_eq(data, "first");
    cr_expect_str_eq(data + 99 * MIB, "last");
    cr_expect_eq(data[50 * MIB], 0);
}

Test(large, larger_than_any_object_is_refused_at_once)
{
    struct stat st, to = {.st_size = (off_t)1 << 40};
    struct fs_file *file = create("f", &st);

    cr_expect_eq(fs_write(fs, &caller, file, UINT32_MAX, "x", 1), EFBIG);
    cr_expect_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_SIZE, &st), EFBIG);
    finish(file);
}
