/* The filesystem over a store in memory, without a mount. */
#include "tests/unit/fusefs/fixture.h"

TestSuite(fs, .init = set_up, .fini = tear_down);

Test(fs, a_closed_file_is_in_the_store)
{
    struct stat st;
    struct fs_file *file = create("a.txt", &st);
    g_autofree char *data = NULL;
    size_t size;

    cr_assert_eq(fs_write(fs, &caller, file, 0, "hello", 5), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    data = in_store("a.txt", &size);
    cr_assert_not_null(data);
    cr_assert_eq(size, 5);
    cr_assert_arr_eq(data, "hello", 5);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

Test(fs, a_slow_file_is_published_while_it_is_open)
{
    struct stat st;
    struct fs_file *file = create("log", &st);
    g_autofree char *data = NULL;
    size_t size = 0;

    for (int i = 0; i < 10; i++)
        cr_assert_eq(fs_write(fs, &caller, file, i, "x", 1), 0);
    for (int i = 0; i < 40 && size != 10; i++) {
        g_usleep(50000);
        g_free(data);
        data = in_store("log", &size);
    }
    cr_assert_eq(size, 10);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

Test(fs, a_large_file_written_in_pieces_comes_back)
{
    struct stat st;
    struct fs_file *file = create("big", &st);
    g_autofree uint8_t *piece = g_malloc(1 << 20);
    g_autoptr(GByteArray) bytes = NULL;
    const unsigned pieces = 40;

    for (unsigned i = 0; i < pieces; i++) {
        memset(piece, i + 1, 1 << 20);
        cr_assert_eq(fs_write(fs, &caller, file, (uint64_t)i << 20, piece, 1 << 20), 0);
    }
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    bytes = read_all(file);
    cr_assert_eq(bytes->len, pieces << 20);
    for (unsigned i = 0; i < bytes->len; i += 4096)
        cr_assert_eq(bytes->data[i], (i >> 20) + 1);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

Test(fs, an_append_to_a_large_file_keeps_its_prefix)
{
    struct stat st;
    struct fs_file *file = create("big", &st);
    g_autofree uint8_t *piece = g_malloc0(1 << 20);
    g_autofree char *data = NULL;
    size_t size;

    memset(piece, 'p', 1 << 20);
    for (unsigned i = 0; i < 12; i++)
        cr_assert_eq(fs_write(fs, &caller, file, (uint64_t)i << 20, piece, 1 << 20), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 12u << 20, "tail", 4), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 100, "HEAD", 4), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    data = in_store("big", &size);
    cr_assert_eq(size, (12u << 20) + 4);
    cr_assert_arr_eq(data + (12u << 20), "tail", 4);
    cr_assert_arr_eq(data + 100, "HEAD", 4);
    cr_assert_eq(data[99], 'p');
    cr_assert_eq(data[104], 'p');
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

Test(fs, a_hole_reads_as_zeros)
{
    struct stat st;
    struct fs_file *file = create("sparse", &st);
    g_autoptr(GByteArray) bytes = NULL;
    g_autofree char *data = NULL;
    size_t size;

    cr_assert_eq(fs_write(fs, &caller, file, 3u << 20, "end", 3), 0);
    bytes = read_all(file);
    cr_assert_eq(bytes->len, (3u << 20) + 3);
    cr_assert_eq(bytes->data[12345], 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    data = in_store("sparse", &size);
    cr_assert_eq(size, (3u << 20) + 3);
    cr_assert_eq(data[12345], 0);
    cr_assert_arr_eq(data + (3u << 20), "end", 3);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

Test(fs, rename_moves_the_object_and_replaces)
{
    struct stat st, other;
    struct fs_file *file = create("new", &st), *old = create("target", &other);
    g_autofree char *data = NULL, *gone = NULL;
    size_t size;

    cr_assert_eq(fs_write(fs, &caller, old, 0, "old", 3), 0);
    cr_assert_eq(fs_fsync(fs, &caller, old), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "newer", 5), 0);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "new", FS_ROOT, "target", 0), 0);
    data = in_store("target", &size);
    cr_assert_eq(size, 5);
    gone = in_store("new", &size);
    cr_assert_null(gone);
    { /* the replaced file's reader still reads it */
        g_autoptr(GByteArray) bytes = read_all(old);

        cr_assert_eq(bytes->len, 3);
        cr_assert_arr_eq(bytes->data, "old", 3);
    }
    fs_release(fs, old);
    fs_release(fs, file);
    fs_forget(fs, other.st_ino, 1);
    fs_forget(fs, st.st_ino, 1);
}

Test(fs, a_directory_is_renamed_with_what_is_in_it)
{
    struct stat dir, st;
    struct fs_file *file;
    g_autofree char *data = NULL;
    size_t size;

    cr_assert_eq(fs_mkdir(fs, &caller, FS_ROOT, "d", 0755, &dir), 0);
    cr_assert_eq(fs_create(fs, &caller, dir.st_ino, "f", 0600, O_WRONLY, &file, &st), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "abc", 3), 0);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "d", FS_ROOT, "e", 0), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 3, "d", 1), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    data = in_store("e/f", &size);
    cr_assert_not_null(data);
    cr_assert_eq(size, 4);
    cr_assert_eq(fs_rmdir(fs, &caller, FS_ROOT, "e"), ENOTEMPTY);
    fs_release(fs, file);
    cr_assert_eq(fs_unlink(fs, &caller, dir.st_ino, "f"), 0);
    cr_assert_eq(fs_rmdir(fs, &caller, FS_ROOT, "e"), 0);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "e", &st), ENOENT);
}

Test(fs, an_unlinked_open_file_is_still_read)
{
    struct stat st;
    struct fs_file *file = create("x", &st);
    g_autoptr(GByteArray) bytes = NULL;

    cr_assert_eq(fs_write(fs, &caller, file, 0, "still here", 10), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    cr_assert_eq(fs_unlink(fs, &caller, FS_ROOT, "x"), 0);
    bytes = read_all(file);
    cr_assert_eq(bytes->len, 10);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "x", &st), ENOENT);
    { /* nothing of ours stays */
        g_autoptr(StoreCall) list = store_call_new(STORE_LIST, "");

        cr_assert(store_run(store, list, NULL));
        cr_assert_eq(list->objects->len, 0);
    }
}

Test(fs, attributes_stay_with_the_object)
{
    struct stat st, to = {.st_mode = 0751, .st_mtim = {1234567890, 123456789}};
    struct fs_file *file = create("x", &st);
    struct fs_options options = {0};
    struct fs *again;

    cr_assert_eq(fs_write(fs, &caller, file, 0, "x", 1), 0);
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MODE | FS_SET_MTIME, &st), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    again = fs_new(store, &options);
    cr_assert_eq(fs_lookup(again, &caller, FS_ROOT, "x", &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 0751);
    cr_assert_eq(st.st_mtim.tv_sec, 1234567890);
    cr_assert_eq(st.st_mtim.tv_nsec, 123456789);
    cr_assert_eq(st.st_uid, 1);
    fs_free(again);
}

Test(fs, a_symlink_is_read_back)
{
    struct stat st;
    g_autofree char *target = NULL;

    cr_assert_eq(fs_symlink(fs, &caller, "../some/where", FS_ROOT, "link", &st), 0);
    cr_assert(S_ISLNK(st.st_mode));
    cr_assert_eq(fs_readlink(fs, &caller, st.st_ino, &target), 0);
    cr_assert_str_eq(target, "../some/where");
}

Test(fs, a_replaced_object_gives_its_reader_estale)
{
    struct stat st;
    struct fs_file *file;
    GByteArray *bytes = g_byte_array_new();
    bool keep;

    cr_assert(store_write(store, "x", "first version", 13, NULL, NULL, NULL));
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "x", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
    cr_assert(store_write(store, "x", "other version", 13, NULL, NULL, NULL));
    cr_assert_eq(fs_read(fs, &caller, file, 0, 100, collect, bytes), ESTALE);
    cr_assert_eq(bytes->len, 0);
    fs_release(fs, file);
    g_byte_array_unref(bytes);
}

Test(fs, truncation_cuts_and_extends)
{
    struct stat st, to = {.st_size = 3};
    struct fs_file *file = create("x", &st);
    g_autoptr(GByteArray) bytes = NULL;

    cr_assert_eq(fs_write(fs, &caller, file, 0, "abcdef", 6), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_SIZE, &st), 0);
    to.st_size = 5;
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_SIZE, &st), 0);
    cr_assert_eq(st.st_size, 5);
    bytes = read_all(file);
    cr_assert_eq(bytes->len, 5);
    cr_assert_arr_eq(bytes->data, "abc\0\0", 5);
    fs_release(fs, file);
}

Test(fs, times_set_while_parts_go_up_stay_with_the_object)
{
    struct stat st, to = {.st_mtim = {1000000000, 5}};
    struct fs_file *file = create("big", &st);
    g_autofree uint8_t *piece = g_malloc0(1 << 20);
    struct fs_options options = {0};
    struct fs *again;

    for (unsigned i = 0; i < 20; i++)
        cr_assert_eq(fs_write(fs, &caller, file, (uint64_t)i << 20, piece, 1 << 20), 0);
    cr_assert_eq(fs_setattr(fs, &caller, st.st_ino, &to, FS_SET_MTIME, &st), 0);
    cr_assert_eq(fs_fsync(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
    again = fs_new(store, &options);
    cr_assert_eq(fs_lookup(again, &caller, FS_ROOT, "big", &st), 0);
    cr_assert_eq(st.st_mtim.tv_sec, 1000000000);
    cr_assert_eq(st.st_mtim.tv_nsec, 5);
    cr_assert_eq(st.st_size, 20 << 20);
    fs_free(again);
}

Test(fs, a_file_created_for_reading_only_is_there_after_any_close)
{
    struct fs_file *file, *other;
    struct stat st;
    g_autofree char *data = NULL;
    size_t size;
    bool keep;

    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "lock", 0644, O_RDONLY, &file, &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &other, &keep), 0);
    cr_assert_eq(fs_flush(fs, &caller, other), 0);
    data = in_store("lock", &size);
    cr_assert_not_null(data);
    fs_release(fs, other);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

Test(fs, appends_go_to_the_end_and_mapped_pages_where_they_say)
{
    struct fs_file *file;
    struct stat st;
    g_autofree char *data = NULL;
    size_t size;

    cr_assert_eq(fs_create(fs, &caller, FS_ROOT, "x", 0644, O_RDWR | O_APPEND, &file, &st), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "abc", 3), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "def", 3), 0);
    cr_assert_eq(fs_write_back(fs, &caller, file, 1, "XY", 2), 0);
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    data = in_store("x", &size);
    cr_assert_str_eq(data, "aXYdef");
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}
