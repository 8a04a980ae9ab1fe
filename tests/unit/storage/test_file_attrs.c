#include "storage/file_attrs.h"

#include <criterion/criterion.h>

static const struct file_attrs defaults = {.mode = S_IFREG | 0644, .uid = 7, .gid = 8};

static struct file_attrs load(const char *name, const char *value, int64_t store_ns)
{
    g_autoptr(GHashTable) metadata = metadata_new();
    struct store_object object = {.metadata = metadata, .mtime_ns = store_ns};
    struct file_attrs attrs = defaults;

    g_hash_table_replace(metadata, g_strdup(name), g_strdup(value));
    file_attrs_load(&attrs, &object);
    return attrs;
}

Test(file_attrs, come_back)
{
    static const int64_t times[] = {0, 1, -1, 1700000000123456789, -1500000000};

    for (unsigned i = 0; i < G_N_ELEMENTS(times); i++) {
        g_autoptr(GHashTable) metadata = metadata_new();
        struct store_object object = {.metadata = metadata, .mtime_ns = 5};
        struct file_attrs attrs = {S_IFLNK | 04755, 1000, 2000, times[i], times[i] + 1, times[i]};
        struct file_attrs back = defaults;

        file_attrs_save(&attrs, metadata);
        file_attrs_load(&back, &object);
        cr_assert(back.mode == attrs.mode && back.uid == 1000 && back.gid == 2000);
        cr_assert(back.mtime_ns == times[i] && back.ctime_ns == times[i] + 1);
    }
}

Test(file_attrs, bad_ones_fall_back)
{
    static const char *const modes[] = {"", "x", "-1", "99999999", "0x1ff", "61440", "33188 "};
    static const char *const times[] = {"",      ".",  "1.", "1.x", "9999999999999999999",
                                        "1.2.3", "1,5"};

    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++)
        cr_assert(load("mode", modes[i], 0).mode == defaults.mode, "%s", modes[i]);
    for (unsigned i = 0; i < G_N_ELEMENTS(times); i++)
        cr_assert(load("mtime", times[i], 42).mtime_ns == 42, "%s", times[i]);
    cr_assert(load("uid", "4294967295", 0).uid == 7);
    cr_assert(load("mode", "420", 0).mode == (S_IFREG | 0644));
    cr_assert(load("mtime", "3", 0).mtime_ns == 3000000000);
}
