/* Files that are read back or rewritten while they are written, beyond what memory holds: what is
 * not finished stays out of sight until close or fsync. */
#include "tests/unit/fusefs/fixture.h"

#define MIB (1u << 20)

static void set_up_small(void)
{
    struct fs_options options = {
        .sync_interval_ms = 200, .attr_ttl_ms = 200, .budget_bytes = 32 * MIB};

    store = memory_store_new();
    fs = fs_new(store, &options);
}

TestSuite(staged, .init = set_up_small, .fini = tear_down, .timeout = 60);

static uint8_t byte_at(unsigned piece, unsigned round)
{
    return (uint8_t)(piece * 7 + round * 31 + 1);
}

static void write_pieces(struct fs_file *file, unsigned first, unsigned count, unsigned round)
{
    g_autofree uint8_t *data = g_malloc(MIB);

    for (unsigned i = first; i < first + count; i++) {
        memset(data, byte_at(i, round), MIB);
        cr_assert_eq(fs_write(fs, &caller, file, (uint64_t)i * MIB, data, MIB), 0);
    }
}

static void expect_piece(struct fs_file *file, unsigned piece, unsigned round)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    cr_assert_eq(fs_read(fs, &caller, file, (uint64_t)piece * MIB, MIB, collect, bytes), 0);
    cr_assert_eq(bytes->len, MIB);
    for (unsigned i = 0; i < MIB; i += 509)
        cr_assert_eq(bytes->data[i], byte_at(piece, round), "piece %u at %u", piece, i);
}

/* The object KEY holds COUNT pieces of ROUND. */
static void expect_object(const char *key, unsigned count, unsigned round)
{
    size_t size = 0;
    g_autofree char *data = in_store(key, &size);

    cr_assert_not_null(data);
    cr_assert_eq(size, (size_t)count * MIB);
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq((uint8_t)data[(size_t)i * MIB + 77], byte_at(i, round));
}

static guint count_objects(void)
{
    g_autoptr(StoreCall) list = store_call_new(STORE_LIST, "");

    cr_assert(store_run(store, list, NULL));
    return list->objects->len;
}

/* Staged objects are removed in the background. */
static void expect_only(unsigned objects)
{
    for (int i = 0; i < 200 && (count_objects() != objects || memory_store_uploads(store)); i++)
        g_usleep(10000);
    cr_assert_eq(count_objects(), objects);
    cr_assert_eq(memory_store_uploads(store), 0);
}

static void close_file(struct fs_file *file, struct stat *st)
{
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st->st_ino, 1);
}

Test(staged, what_is_read_back_early_is_not_shown_half_written)
{
    struct stat st;
    struct fs_file *file = create("big", &st);
    size_t size;

    write_pieces(file, 0, 96, 0);
    for (unsigned i = 0; i < 96; i += 5)
        expect_piece(file, i, 0);
    cr_assert_null(in_store("big", &size));
    write_pieces(file, 96, 8, 0);
    expect_piece(file, 100, 0);
    cr_assert_null(in_store("big", &size));
    close_file(file, &st);
    expect_object("big", 104, 0);
    expect_only(1);
}

Test(staged, a_rewrite_leaves_the_old_object_until_close)
{
    struct stat st;
    struct fs_file *file = create("big", &st);

    write_pieces(file, 0, 80, 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    expect_object("big", 80, 0);
    for (unsigned i = 0; i < 80; i++)
        write_pieces(file, (i * 37) % 80, 1, 1); /* scattered: every piece once */
    expect_object("big", 80, 0);
    for (unsigned i = 0; i < 80; i += 3)
        expect_piece(file, i, 1);
    expect_object("big", 80, 0);
    close_file(file, &st);
    expect_object("big", 80, 1);
    expect_only(1);
}

Test(staged, an_unlinked_file_that_is_still_written_keeps_its_bytes)
{
    struct stat st;
    struct fs_file *file = create("big", &st);

    write_pieces(file, 0, 60, 0);
    cr_assert_eq(fs_unlink(fs, &caller, FS_ROOT, "big"), 0);
    write_pieces(file, 60, 30, 0);
    for (unsigned i = 0; i < 90; i += 4)
        expect_piece(file, i, 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    expect_only(0);
}

Test(staged, many_half_written_files_give_way_to_each_other)
{
    struct fs_file *files[24];
    struct stat st[24];
    size_t size;

    for (unsigned i = 0; i < 24; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);

        cr_assert(store_write(store, name, "old", 3, NULL, NULL, NULL));
        cr_assert_eq(
            fs_create(fs, &caller, FS_ROOT, name, 0644, O_RDWR | O_TRUNC, &files[i], &st[i]), 0);
    }
    for (unsigned piece = 0; piece < 4; piece++)
        for (unsigned i = 0; i < 24; i++)
            write_pieces(files[i], piece, 1, i);
    for (unsigned i = 0; i < 24; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);
        g_autofree char *data = in_store(name, &size);

        cr_assert_str_eq(data, "old"); /* replaced as a whole, at close */
        expect_piece(files[i], 0, i);
    }
    for (unsigned i = 0; i < 24; i++) {
        g_autofree char *name = g_strdup_printf("f%u", i);

        close_file(files[i], &st[i]);
        expect_object(name, 4, i);
    }
    expect_only(24);
}
