/* Inodes that nobody uses are let go of, the longest unused ones first. */
#include "tests/unit/fusefs/fixture.h"

#include <stdatomic.h>
#include <stdio.h>

#define MANY  26000 /* more than are kept */
#define KEPT  24576
#define WAITS 500

struct asked {
    atomic_uint count;
    atomic_bool first_was_asked, last_was_asked;
    struct fs *fs;
};

/* What the kernel does, if the name is in use by no program. */
static void forget(void *user, uint64_t parent, const char *name)
{
    struct asked *asked = user;
    struct stat st;

    cr_assert_eq(parent, FS_ROOT);
    atomic_fetch_add(&asked->count, 1);
    if (strcmp(name, "f00000") == 0)
        atomic_store(&asked->first_was_asked, true);
    if (strcmp(name, "f25999") == 0)
        atomic_store(&asked->last_was_asked, true);
    cr_assert_eq(fs_lookup(asked->fs, &caller, parent, name, &st), 0);
    fs_forget(asked->fs, st.st_ino, 2);
}

TestSuite(cold, .init = set_up_store, .fini = tear_down_store, .timeout = 60);

Test(cold, the_longest_unused_ones_go)
{
    struct fs_options options = {.attr_ttl_ms = 60000};
    struct asked asked = {0};
    struct fs_file *file = NULL;
    uint64_t opened = 0;
    struct stat st;
    bool keep;

    asked.fs = fs = fs_new(store, &options);
    for (unsigned i = 0; i < MANY; i++) {
        char name[16];

        snprintf(name, sizeof(name), "f%05u", i);
        cr_assert(store_write(store, name, "x", 1, NULL, NULL, NULL));
        cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, name, &st), 0);
        if (i == 1) {
            opened = st.st_ino;
            cr_assert_eq(fs_open(fs, &caller, opened, O_RDONLY, &file, &keep), 0);
        }
    }
    fs_forget_start(fs, forget, &asked);
    for (unsigned i = 0; i < WAITS && atomic_load(&asked.count) < MANY - KEPT; i++)
        g_usleep(20000);
    g_usleep(100000);
    fs_forget_stop(fs);
    fs_forget_stop(fs);
    cr_assert_eq(asked.count, MANY - KEPT, "%u", asked.count);
    cr_assert(asked.first_was_asked && !asked.last_was_asked);
    cr_assert_eq(fs_getattr(fs, &caller, opened, &st), 0);
    fs_release(fs, file);
    fs_free(fs);
}
