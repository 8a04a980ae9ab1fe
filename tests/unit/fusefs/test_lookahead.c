/* Lookups in the order of a listing are asked for many at once, each once, and what happens to a
 * name meanwhile counts. */
#include "tests/unit/fusefs/fixture.h"

#include "fusefs/lease.h"
#include "tests/support/faulty_store.h"
#include "tests/support/held_store.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
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

static void mount_for(bool exclusive, unsigned attr_ttl_ms)
{
    struct lease_options how = {.exclusive = true, .ttl_ms = 60000};
    struct fs_options options = {.sync_interval_ms = 60000, .attr_ttl_ms = attr_ttl_ms};
    struct lease_record *previous;

    counted = faulty_store_new(store);
    held = held_store_new(counted);
    if (exclusive)
        lease = lease_acquire(store, &how, &previous, NULL);
    options.lease = lease;
    fs = fs_new(held, &options);
    cr_assert_eq(fs_lookup(fs, &caller, FS_ROOT, "d", &dir), 0);
}

static void mount_fs(bool exclusive)
{
    mount_for(exclusive, 60000);
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

static int look(const char *name)
{
    struct stat st;
    int error = fs_lookup(fs, &caller, dir.st_ino, name, &st);

    if (!error)
        fs_forget(fs, st.st_ino, 1);
    return error;
}

/* Two that go on with each other in the same directory, of whom one begins late. */
Test(lookahead, each_listing_is_followed_by_its_own_reader)
{
    struct fs_dir *first, *second;
    unsigned before;

    mount_fs(false);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &first), 0);
    before = heads();
    for (unsigned i = 0; i < 20; i++)
        expect_number(i);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &second), 0);
    faulty_store_delay(counted, 5);
    for (unsigned i = 0; i < 70; i++) {
        expect_number(130 + i);
        expect_number(20 + i);
    }
    fs_closedir(fs, second);
    for (unsigned i = 90; i < 100; i++)
        expect_number(i);
    fs_closedir(fs, first);
    cr_expect_leq(heads() - before, 170 + 32, "%u", heads() - before); /* 32 ahead at the end */
    cr_expect_geq(faulty_store_most_in_flight(counted), 32);
    unmount_fs();
}

Test(lookahead, directories_are_told_from_files)
{
    struct fs_dir *handle;
    struct stat st;

    put("d/f0005d/x", 1);
    put("d/f0006d/", 0);
    put("d/f0006d/x", 1);
    for (int exclusive = 0; exclusive < 2; exclusive++) {
        mount_fs(exclusive);
        cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
        cr_assert(store_delete(store, "d/f0008", NULL)); /* by another client, since */
        for (unsigned i = 0; i < 5; i++)
            expect_number(i);
        for (unsigned i = 5; i < 7; i++) {
            g_autofree char *name = g_strdup_printf("f%04ud", i);

            expect_number(i);
            cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, name, &st), 0, "%s", name);
            cr_assert(S_ISDIR(st.st_mode), "%s", name);
            fs_forget(fs, st.st_ino, 1);
        }
        expect_number(7);
        cr_assert_eq(look("f0008"), ENOENT);
        expect_number(9);
        fs_closedir(fs, handle);
        unmount_fs();
        put("d/f0008", 8);
    }
}

/* The listing of before still has them. */
Test(lookahead, directories_that_went_do_not_come_back)
{
    struct fs_dir *handle;
    struct stat st;

    for (int exclusive = 0; exclusive < 2; exclusive++) {
        mount_for(exclusive, 50);
        put("d/f0006d/x", 1);
        cr_assert_eq(fs_mkdir(fs, &caller, dir.st_ino, "f0005d", 0755, &st), 0);
        fs_forget(fs, st.st_ino, 1);
        cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
        cr_assert_eq(fs_rmdir(fs, &caller, dir.st_ino, "f0005d"), 0);
        cr_assert(store_delete(store, "d/f0006d/x", NULL)); /* by another client */
        g_usleep(100000);
        for (unsigned i = 0; i < 4; i++)
            expect_number(i);
        cr_expect_eq(look("f0005d"), ENOENT);
        if (!exclusive)
            cr_expect_eq(look("f0006d"), ENOENT);
        cr_expect_eq(fs_mkdir(fs, &caller, dir.st_ino, "f0005d", 0755, &st), 0);
        cr_expect_eq(fs_rmdir(fs, &caller, dir.st_ino, "f0005d"), 0);
        fs_closedir(fs, handle);
        unmount_fs();
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

/* Follows a listing up to f0001, whose lookup has asked for f0002 to f0005 too when this returns,
 * and does not get an answer. */
static struct fs_dir *ask_ahead(struct lookup *lookup, pthread_t *thread, bool has_answers)
{
    struct fs_dir *handle;

    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    expect_number(0);
    if (has_answers)
        held_store_hold_answers(held, STORE_HEAD, NULL);
    else
        held_store_hold(held, STORE_HEAD, NULL);
    *lookup = (struct lookup){.name = "f0001"};
    pthread_create(thread, NULL, look_up, lookup);
    wait_held(5);
    held_store_hold(held, STORE_HEAD, "none"); /* what is asked from now on is answered */
    return handle;
}

static void have_answers(struct lookup *lookup, pthread_t thread)
{
    held_store_release(held);
    pthread_join(thread, NULL);
    cr_assert_eq(lookup->error, 0);
    fs_forget(fs, lookup->st.st_ino, 1);
}

static void expect_bytes(const char *name, unsigned size)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    struct fs_file *file;
    struct stat st;
    bool keep;

    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, name, &st), 0);
    cr_expect_eq(st.st_size, size);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
    cr_expect_eq(fs_read(fs, &caller, file, 0, 8192, collect, bytes), 0);
    cr_expect_eq(bytes->len, size);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

static void write_here(const char *name, size_t size)
{
    g_autofree char *data = g_malloc0(size);
    struct fs_file *file;
    struct stat st;
    bool keep;

    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, name, &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_WRONLY, &file, &keep), 0);
    cr_assert_eq(fs_write(fs, &caller, file, 0, data, size), 0);
    cr_assert_eq(fs_flush(fs, &caller, file), 0);
    fs_release(fs, file);
    fs_forget(fs, st.st_ino, 1);
}

/* The answers of before say that it is there. */
Test(lookahead, what_is_removed_meanwhile_is_gone)
{
    struct lookup lookup;
    pthread_t thread;
    struct fs_dir *handle;

    mount_fs(true);
    handle = ask_ahead(&lookup, &thread, false);
    cr_assert_eq(fs_unlink(fs, &caller, dir.st_ino, "f0003"), 0);
    have_answers(&lookup, thread);
    cr_assert_eq(look("f0003"), ENOENT);
    expect_number(4);
    fs_closedir(fs, handle);
    unmount_fs();
}

Test(lookahead, what_is_written_meanwhile_is_newer)
{
    struct lookup lookup;
    pthread_t thread;
    struct fs_dir *handle;

    mount_fs(true);
    handle = ask_ahead(&lookup, &thread, true);
    write_here("f0003", 5000);
    expect_file("f0003", 5000);
    have_answers(&lookup, thread);
    expect_bytes("f0003", 5000);
    fs_closedir(fs, handle);
    unmount_fs();
}

Test(lookahead, what_was_opened_meanwhile_is_newer)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    struct lookup lookup;
    struct fs_file *file;
    struct fs_dir *handle;
    pthread_t thread;
    struct stat st;
    bool keep;

    mount_fs(false);
    handle = ask_ahead(&lookup, &thread, true);
    put("d/f0003", 5000); /* by another client */
    cr_assert_eq(fs_lookup(fs, &caller, dir.st_ino, "f0003", &st), 0);
    cr_assert_eq(fs_open(fs, &caller, st.st_ino, O_RDONLY, &file, &keep), 0);
    have_answers(&lookup, thread);
    cr_expect_eq(fs_read(fs, &caller, file, 0, 8192, collect, bytes), 0);
    cr_expect_eq(bytes->len, 5000);
    fs_release(fs, file);
    fs_closedir(fs, handle);
    unmount_fs();
}

Test(lookahead, a_rename_of_the_directory_meanwhile_counts)
{
    struct lookup lookup;
    pthread_t thread;
    struct fs_dir *handle;

    mount_fs(true);
    handle = ask_ahead(&lookup, &thread, true);
    cr_assert_eq(fs_rename(fs, &caller, FS_ROOT, "d", FS_ROOT, "e", 0), 0);
    have_answers(&lookup, thread);
    expect_bytes("f0001", 1);
    expect_bytes("f0003", 3);
    fs_closedir(fs, handle);
    unmount_fs();
}

Test(lookahead, a_lookup_does_not_wait_for_a_name_that_hangs)
{
    int64_t begun_us = g_get_monotonic_time();
    struct fs_dir *handle;

    mount_fs(false);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    held_store_hold(held, STORE_HEAD, "f0003");
    for (unsigned i = 0; i < 3; i++)
        expect_number(i);
    cr_expect_lt(g_get_monotonic_time() - begun_us, 2 * G_USEC_PER_SEC);
    held_store_release(held);
    expect_number(3);
    fs_closedir(fs, handle);
    unmount_fs();
}

static atomic_bool is_over;

static bool has_signal(const struct fs_caller *asker)
{
    return atomic_load(&is_over);
}

static void *look_up_impatiently(void *user)
{
    struct fs_caller impatient = {.interrupted = has_signal};
    struct lookup *lookup = user;

    lookup->error = fs_lookup(fs, &impatient, dir.st_ino, lookup->name, &lookup->st);
    return NULL;
}

Test(lookahead, a_signal_ends_the_wait_for_all)
{
    struct lookup lookup = {.name = "f0040"};
    struct fs_dir *handle;
    pthread_t thread;
    int64_t begun_us;

    mount_fs(false);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    for (unsigned i = 0; i < 30; i++) /* the batches grow: 2, 6, 14, 30 */
        expect_number(i);
    held_store_hold(held, STORE_VERBS, NULL);
    lookup.name = "f0062";
    pthread_create(&thread, NULL, look_up_impatiently, &lookup);
    wait_held(30);
    begun_us = g_get_monotonic_time();
    atomic_store(&is_over, true);
    pthread_join(thread, NULL);
    cr_expect_eq(lookup.error, EINTR);
    cr_expect_lt(g_get_monotonic_time() - begun_us, G_USEC_PER_SEC);
    held_store_release(held);
    fs_closedir(fs, handle);
    unmount_fs();
}

Test(lookahead, what_was_asked_for_ahead_keeps_no_directory)
{
    struct fs_dir *handle;

    mount_for(false, 50);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    expect_number(0);
    expect_number(1);
    cr_assert(store_delete_prefix(store, "d/", NULL, NULL)); /* by another client */
    g_usleep(100000);
    cr_expect_eq(fs_rmdir(fs, &caller, FS_ROOT, "d"), 0);
    fs_closedir(fs, handle);
    unmount_fs();
}

/* They would be old before they are looked at. */
Test(lookahead, who_looks_slowly_has_few_names_asked_for)
{
    struct fs_dir *handle;
    unsigned before;

    mount_for(false, 100);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    before = heads();
    for (unsigned i = 0; i < 60; i++) {
        expect_number(i);
        g_usleep(30000);
    }
    cr_expect_leq(heads() - before, 60 * 3 / 2, "%u", heads() - before);
    fs_closedir(fs, handle);
    unmount_fs();
}

/* What the index told has to be asked for again when it is old. */
Test(lookahead, what_a_listing_told_too_long_ago_is_asked_for)
{
    struct fs_dir *handle;
    struct fs_entry entry;
    struct stat st;

    mount_fs(true);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    for (unsigned i = 0; i < FILES; i++)
        expect_number(i);
    fs_closedir(fs, handle);
    unmount_fs(); /* writes the index */
    mount_for(false, 1000);
    cr_assert_eq(fs_opendir(fs, &caller, dir.st_ino, &handle), 0);
    cr_assert(fs_dir_entry(handle, 2, &entry));
    cr_assert(fs_dir_stat(fs, handle, &entry, &st), "there is no index");
    fs_forget(fs, st.st_ino, 1);
    g_usleep(1100000);
    faulty_store_delay(counted, 5);
    for (unsigned i = 0; i < FILES; i++)
        expect_number(i);
    cr_expect_geq(faulty_store_most_in_flight(counted), 16);
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
