/* Lookups in the order of a listing are asked for many at once, each once, and what happens to a
 * name meanwhile counts. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/lease.h"
#include "tests/support/faulty_store.h"
#include "tests/support/held_store.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>

#define FILES 200

static struct store *counted, *held;
static struct lease *lease;
static struct stat dir;

static void put(const char *key, size_t size)
{
    g_autofree char *data = g_malloc0(size + 1);

    cr_assert(store_write(store, key, data, size, NULL, NULL, NULL));
}

static void mount_fs(bool exclusive)
{
    struct lease_options how = {.exclusive = true, .ttl_ms = 60000};
    struct fs_options options = {.sync_interval_ms = 60000, .attr_ttl_ms = 60000};
    struct lease_record *previous;

    counted = faulty_store_new(store);
    held = held_store_new(counted);
    if (exclusive)
        lease = lease_acquire(store, &how, &previous, NULL);
    options.lease = lease;
    fs = fs_new(held, &options);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "d", &dir), 0);
}

static void unmount_fs(void)
{
    cr_assert(fs_drain(fs, 20000, NULL));
    fs_free(fs);
    g_clear_pointer(&lease, lease_release);
    store_unref(held);
    store_unref(counted);
}

static void set_up_objects(void)
{
    set_up_store();
    for (unsigned i = 0; i < FILES; i++) {
        g_autofree char *key = g_strdup_printf("d/f%04u", i);

        put(key, i);
    }
}

TestSuite(lookahead, .init = set_up_objects, .fini = tear_down_store, .timeout = 60);

static unsigned heads(void)
{
    return faulty_store_calls(counted, STORE_HEAD);
}

static void expect_file(const char *name, unsigned size)
{
    struct stat st;

    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, name, &st), 0, "%s", name);
    cr_assert_eq(st.st_size, size, "%s", name);
    cr_assert(S_ISREG(st.st_mode));
    fs_forget(fs, st.st_ino, 1);
}

static void expect_number(unsigned i)
{
    char name[16];

    snprintf(name, sizeof(name), "f%04u", i);
    expect_file(name, i);
}

Test(lookahead, names_in_order_are_asked_for_many_at_once)
{
    for (int exclusive = 0; exclusive < 2; exclusive++) {
        struct fs_dir *handle;
        unsigned before;

        mount_fs(exclusive);
        cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
        faulty_store_delay(counted, 20);
        before = heads();
        for (unsigned i = 0; i < FILES; i++)
            expect_number(i);
        cr_expect_eq(heads() - before, FILES, "%u", heads() - before);
        cr_expect_geq(faulty_store_most_in_flight(counted), 32);
        fs_closedir(fs, handle);
        unmount_fs();
    }
}

Test(lookahead, names_in_any_order_ask_for_themselves)
{
    static const unsigned order[] = {150, 3, 90, 40, 199, 120};
    struct fs_dir *handle;
    unsigned before;

    mount_fs(false);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    before = heads();
    for (unsigned i = 0; i < G_N_ELEMENTS(order); i++)
        expect_number(order[i]);
    cr_expect_eq(heads() - before, G_N_ELEMENTS(order));
    fs_closedir(fs, handle);
    before = heads();
    for (unsigned i = 10; i < 20; i++) /* and so do those that follow no listing */
        expect_number(i);
    cr_expect_eq(heads() - before, 10);
    unmount_fs();
}

Test(lookahead, directories_and_names_that_went_are_left_out)
{
    struct fs_dir *handle;
    struct stat st;

    put("d/f0005d/x", 1);
    put("d/f0006d/", 0);
    put("d/f0006d/x", 1);
    for (int exclusive = 0; exclusive < 2; exclusive++) {
        mount_fs(exclusive);
        cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
        cr_assert(store_delete(store, "d/f0007", NULL)); /* by another client, since */
        for (unsigned i = 0; i < 5; i++)
            expect_number(i);
        for (unsigned i = 5; i < 7; i++) {
            g_autofree char *name = g_strdup_printf("f%04ud", i);

            cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, name, &st), 0, "%s", name);
            cr_assert(S_ISDIR(st.st_mode), "%s", name);
            fs_forget(fs, st.st_ino, 1);
        }
        cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0007", &st), ENOENT);
        expect_number(8);
        fs_closedir(fs, handle);
        unmount_fs();
        put("d/f0007", 7);
    }
}

struct lookup {
    const char *name;
    int error;
    struct stat st;
};

static void *look_up(void *user)
{
    struct lookup *lookup = user;

    lookup->error = fs_lookup(fs, &caller, dir.st_ino, lookup->name, &lookup->st);
    return NULL;
}

static void wait_held(unsigned count)
{
    for (unsigned i = 0; i < 2000 && held_store_waiting(held) < count; i++)
        g_usleep(1000);
    cr_assert_geq(held_store_waiting(held), count);
}

/* The answers of before say that they are there. */
Test(lookahead, what_is_removed_meanwhile_is_gone)
{
    struct lookup lookup = {.name = "f0001"}; /* which asks ahead */
    struct fs_dir *handle;
    pthread_t thread;
    struct stat st;

    mount_fs(true);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    expect_number(0);
    held_store_hold(held, STORE_HEAD, NULL);
    pthread_create(&thread, NULL, look_up, &lookup);
    wait_held(33);
    held_store_hold(held, STORE_HEAD, "none"); /* what is asked now is answered */
    cr_assert_eq(fs_unlink(fs, &caller, dir.st_ino, "f0009"), 0);
    held_store_release(held);
    pthread_join(thread, NULL);
    cr_assert_eq(lookup.error, 0);
    fs_forget(fs, lookup.st.st_ino, 1);
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0009", &st), ENOENT);
    expect_number(10);
    fs_closedir(fs, handle);
    unmount_fs();
}

Test(lookahead, lookups_of_different_names_do_not_repeat_each_other)
{
    struct lookup lookups[] = {{.name = "f0010"}, {.name = "f0020"}, {.name = "f0030"}};
    pthread_t threads[G_N_ELEMENTS(lookups)];
    unsigned before;

    mount_fs(false);
    before = heads();
    held_store_hold_answers(held, STORE_HEAD, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(lookups); i++)
        pthread_create(&threads[i], NULL, look_up, &lookups[i]);
    wait_held(G_N_ELEMENTS(lookups));
    held_store_release(held);
    for (unsigned i = 0; i < G_N_ELEMENTS(lookups); i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(lookups[i].error, 0);
        fs_forget(fs, lookups[i].st.st_ino, 1);
    }
    cr_expect_eq(heads() - before, G_N_ELEMENTS(lookups));
    unmount_fs();
}

Test(lookahead, what_is_longer_than_a_path_is_no_symlink)
{
    struct fs_entry entry;
    struct fs_dir *handle;

    put("d/large", PATH_MAX + 1);
    mount_fs(false);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    cr_assert(fs_dir_entry(handle, 2, &entry));
    cr_assert_eq(entry.type, 0, "a short one may be a symlink");
    cr_assert(fs_dir_entry(handle, 2 + FILES, &entry));
    cr_assert_str_eq(entry.name, "large");
    cr_assert_eq(entry.type, S_IFREG);
    fs_closedir(fs, handle);
    unmount_fs();
}
