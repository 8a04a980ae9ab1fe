/* The end of a mount while the store is still answering. */
#include "tests/unit/fusefs/fixture.h"

#include "tests/support/faulty_store.h"

#define MIB (1u << 20)

static void take_nothing(void *user, const struct iovec *iov, unsigned count)
{
}

/* What was read ahead arrives late: neither its file nor its memory is gone by then. */
Test(unmount, waits_for_what_is_read_ahead, .timeout = 30)
{
    struct fs_options options = {.budget_bytes = 64 * MIB};
    struct store *below = memory_store_new();
    g_autofree char *data = g_malloc0(32 * MIB);
    struct fs_file *file;
    struct stat st;
    bool keep;

    cr_assert(store_write(below, "f", data, 32 * MIB, NULL, NULL, NULL));
    store = faulty_store_new(below);
    fs = fs_new(store, &options);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "f", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
    faulty_store_delay(store, 300);
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(fs_read(fs, &caller, file, i * MIB, MIB, take_nothing, NULL), 0);
    fs_release(fs, file);
    fs_free(fs); /* the store lives on, as a lease's does */
    store_unref(store);
    store_unref(below);
}

/* A signal ends the mount, and a program has files open: what they took is given back. */
Test(unmount, gives_back_what_is_still_open, .init = set_up, .timeout = 30)
{
    struct fs_file *file, *again;
    struct stat st;
    bool keep;

    file = create("f", &st);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &again, &keep), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, "x", 1), 0);
    cr_assert(fs_drain(fs, 0, NULL));
    fs_free(fs);
    store_unref(store);
}
