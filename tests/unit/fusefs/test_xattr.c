#include "tests/unit/fusefs/fixture.h"

#include "fusefs/xattr.h"

#include <sys/xattr.h>

TestSuite(xattr, .init = set_up, .fini = tear_down);

static uint64_t make(const char *name)
{
    struct stat st;
    struct fs_file *file = create(name, &st);

    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    return st.st_ino;
}

static int set(uint64_t ino, const char *name, const char *value, int flags)
{
    return fs_setxattr(fs, &caller, ino, name, value, strlen(value), flags);
}

static char *get(struct fs *from, uint64_t ino, const char *name)
{
    g_autoptr(GBytes) value = NULL;
    gsize size;
    const char *data;

    if (fs_getxattr(from, &caller, ino, name, &value) != 0)
        return NULL;
    data = g_bytes_get_data(value, &size);
    return g_strndup(data, size);
}

Test(xattr, outlives_the_mount)
{
    struct fs_options options = {0};
    uint64_t ino = make("x");
    struct stat st;
    struct fs *again;
    g_autofree char *value = NULL, *other = NULL;

    cr_assert_eq(set(ino, "user.a", "one", 0), 0);
    cr_assert_eq(set(ino, "user.ü", "zwei = 2%", 0), 0);
    again = fs_new(store, &options);
    cr_assert_eq(fs_lookup(again, &caller, FS_ROOT, "x", &st), 0);
    value = get(again, st.st_ino, "user.a");
    other = get(again, st.st_ino, "user.ü");
    cr_assert_str_eq(value, "one");
    cr_assert_str_eq(other, "zwei = 2%");
    fs_free(again);
}

Test(xattr, flags_and_errors_are_those_of_posix)
{
    uint64_t ino = make("x");
    g_autoptr(GBytes) names = NULL, none = NULL;
    g_autofree char *large = g_strnfill(4096, 'x');

    cr_assert_eq(set(ino, "user.a", "1", XATTR_REPLACE), ENODATA);
    cr_assert_eq(set(ino, "user.a", "1", XATTR_CREATE), 0);
    cr_assert_eq(set(ino, "user.a", "1", XATTR_CREATE), EEXIST);
    cr_assert_eq(set(ino, "security.x", "1", 0), EOPNOTSUPP);
    cr_assert_eq(set(ino, "user.", "1", 0), EINVAL);
    cr_assert_eq(set(ino, "user.large", large, 0), ENOSPC);
    cr_assert_eq(fs_getxattr(fs, &caller, ino, "user.large", &none), ENODATA);
    cr_assert_eq(fs_listxattr(fs, &caller, ino, &names), 0);
    cr_assert_eq(g_bytes_get_size(names), sizeof("user.a"));
    cr_assert_eq(fs_removexattr(fs, &caller, ino, "user.a"), 0);
    cr_assert_eq(fs_removexattr(fs, &caller, ino, "user.a"), ENODATA);
}

Test(xattr, reads_and_writes_the_form_of_s3fs)
{
    g_autoptr(GHashTable) xattrs = xattr_parse("%7B%22user.k%22%3A%22dmFsdWU%3D%22%7D");
    g_autofree char *text = xattr_format(xattrs);
    GBytes *value = g_hash_table_lookup(xattrs, "user.k");

    cr_assert_not_null(value);
    cr_assert_arr_eq(g_bytes_get_data(value, NULL), "value", 5);
    cr_assert_str_eq(text, "%7B%22user.k%22%3A%22dmFsdWU%3D%22%7D");
}

Test(xattr, what_is_not_well_formed_is_left_out)
{
    static const char *const texts[] = {
        "", "%", "%00", "x", "[]", "{\"a\":1}", "%7B%22%22%3A%22%22%7D"};

    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GHashTable) xattrs = xattr_parse(texts[i]);

        cr_assert_eq(g_hash_table_size(xattrs), 0, "%s", texts[i]);
    }
}
