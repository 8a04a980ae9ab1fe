#include "config/error.h"
#include "storage/store_driver.h"
#include "storage/transfer.h"
#include "tests/support/faulty_store.h"
#include "tests/support/held_store.h"
#include "tests/support/memory_store.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];
static char *from, *to;

static void make_dirs(void)
{
    strcpy(base, "/var/tmp/dstack-test-XXXXXX");
    cr_assert(mkdtemp(base) != NULL);
    from = g_build_filename(base, "from", NULL);
    to = g_build_filename(base, "to", NULL);
    cr_assert(mkdir(from, 0755) == 0);
}

static int shell(const char *format, const char *a, const char *b)
{
    g_autoptr(GString) line = g_string_new(format);

    g_string_replace(line, "FROM", a, 0);
    g_string_replace(line, "TO", b, 0);
    return system(line->str);
}

static void remove_dirs(void)
{
    cr_assert(shell("rm -rf 'FROM'", base, "") == 0);
    g_free(from);
    g_free(to);
}

static void make_tree(unsigned small, off_t large)
{
    cr_assert(shell("cd FROM && mkdir -p 'a b/c=d' empty.d && : > empty && echo x > run.sh && "
                    "chmod 755 run.sh && ln -s run.sh link && echo 1 > 'a b/c=d/+*%41 x' && "
                    "echo 2 > \"$(printf 'new\\nline')\" && echo 3 > '\xc3\xbc' && "
                    "touch -d '2001-02-03 04:05:06.789012345' run.sh && chmod 700 empty.d",
                    from, to) == 0);
    for (unsigned i = 0; i < small; i++) {
        g_autofree char *path = g_strdup_printf("%s/f%05u", from, i);
        g_autofree char *text = g_strnfill(1024, (char)('a' + i % 26));

        cr_assert(g_file_set_contents(path, text, 1024, NULL));
    }
    if (large) {
        g_autofree char *path = g_build_filename(from, "large", NULL);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);

        cr_assert(ftruncate(fd, large) == 0 && pwrite(fd, "middle", 6, large / 2) == 6 &&
                  pwrite(fd, "end", 3, large - 3) == 3);
        close(fd);
    }
}

/* Names, modes, sizes, times to the nanosecond, targets; and every byte. Directories' own times
 * are compared only for the empty one, which is an object. */
static bool trees_equal(void)
{
    return shell("cd FROM && find . ! -type d -printf '%P %m %s %T@ %l %y\\n' | sort > TO.1;"
                 "cd TO && find . ! -type d -printf '%P %m %s %T@ %l %y\\n' | sort > TO.2;"
                 "cmp TO.1 TO.2 && diff -r --no-dereference FROM TO && "
                 "test \"$(stat -c '%a %Y' FROM/empty.d)\" = \"$(stat -c '%a %Y' TO/empty.d)\"",
                 from, to) == 0;
}

static void round_trip(struct store *store)
{
    struct transfer_options changed = {.only_changed = true};
    struct transfer_result first, second;
    g_autoptr(GError) error = NULL;
    bool is_ok = transfer_upload(from, store, "t/", NULL, &first, &error);

    cr_assert(is_ok, "%s", error ? error->message : "");
    is_ok = transfer_download(store, "t/", to, NULL, &second, &error);
    cr_assert(is_ok, "%s", error ? error->message : "");
    cr_assert(first.files == second.files && first.bytes == second.bytes);
    cr_assert(trees_equal());
    is_ok = transfer_upload(from, store, "t/", &changed, &second, &error);
    cr_assert(is_ok && second.files == 0 && second.skipped == first.files);
    is_ok = transfer_download(store, "t/", to, &changed, &second, &error);
    cr_assert(is_ok, "%s", error ? error->message : "");
    cr_assert(second.bytes == 0);
}

static struct store *file_store(void)
{
    g_autofree char *url = g_strconcat("file://", base, "/store", NULL);
    g_autoptr(GError) error = NULL;

    cr_assert(g_mkdir_with_parents(url + 7, 0755) == 0);
    return store_file_open(url, NULL, &error);
}

TestSuite(transfer, .init = make_dirs, .fini = remove_dirs);

Test(transfer, tree_comes_back_from_a_file_store)
{
    g_autoptr(Store) store = file_store();

    make_tree(200, 300 << 20);
    round_trip(store);
}

Test(transfer, ten_thousand_small_files_come_back)
{
    g_autoptr(Store) store = memory_store_new();

    make_tree(10000, 0);
    round_trip(store);
}

Test(transfer, copies_between_stores_and_within_one)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) file = file_store();
    g_autoptr(GError) error = NULL;
    bool is_ok;

    make_tree(50, 40 << 20);
    is_ok = transfer_upload(from, memory, "a/", NULL, NULL, &error) &&
            transfer_copy(memory, "a/", file, "b/", NULL, NULL, &error) &&
            transfer_copy(file, "b/", file, "c/", NULL, NULL, &error) &&
            transfer_download(file, "c/", to, NULL, NULL, &error);
    cr_assert(is_ok, "%s", error ? error->message : "");
    cr_assert(trees_equal());
}

/* Each call of an upload fails in turn: always an error, never an upload left in progress. */
Test(transfer, every_failure_is_reported_and_leaves_no_upload)
{
    make_tree(3, 40 << 20);
    for (unsigned n = 1; n < 100; n++) {
        g_autoptr(Store) memory = memory_store_new();
        g_autoptr(Store) store = faulty_store_new(memory);
        g_autoptr(GError) error = NULL;
        bool is_ok;

        faulty_store_fail(store, STORE_VERBS, n, 1, EACCES);
        is_ok = transfer_upload(from, store, "", NULL, NULL, &error);
        if (is_ok) {
            cr_assert(faulty_store_calls(store, STORE_VERBS) < n && n > 10);
            return;
        }
        cr_assert(error_is(error, EACCES));
        cr_assert(memory_store_uploads(memory) == 0);
    }
    cr_assert_fail("never succeeded");
}

/* A machine that goes away takes along what was not uploaded: one bad file must not keep the
 * others. */
Test(transfer, a_file_that_cannot_be_read_stops_only_itself)
{
    g_autoptr(Store) store = file_store();
    g_autofree char *longest = g_strnfill(200, '%'), *path = g_build_filename(from, longest, NULL);
    g_autoptr(GError) error = NULL;
    struct transfer_result result;

    cr_assert(
        shell("cd FROM && echo a > a && echo b > $(printf 'b\\377') && mkdir d e && echo c > d/c &&"
              "mkdir $(printf 'd/\\376') && echo d > $(printf 'd/\\376/d') && echo e > e/e",
              from, to) == 0);
    cr_assert_not(transfer_upload(from, store, "t/", NULL, &result, &error));
    cr_assert(error_is(error, EINVAL) && strstr(error->message, "not UTF-8"), "%s", error->message);
    cr_assert(result.files == 3, "%d", (int)result.files);
    g_clear_error(&error);
    cr_assert(g_file_set_contents(path, "escaped, this name has 600 bytes", -1, NULL));
    cr_assert(shell("cd FROM && rm -r b* d/[!c]*", from, to) == 0);
    cr_assert_not(transfer_upload(from, store, "t/", NULL, &result, &error));
    cr_assert(error_is(error, ENAMETOOLONG) && result.files == 3, "%s", error->message);
    cr_assert(transfer_download(store, "t/", to, NULL, NULL, NULL));
    cr_assert(shell("cd TO && cat a d/c e/e", from, to) == 0);
}

Test(transfer, every_failed_download_leaves_no_half_file)
{
    g_autoptr(Store) memory = memory_store_new();

    make_tree(3, 40 << 20);
    cr_assert(transfer_upload(from, memory, "", NULL, NULL, NULL));
    for (unsigned n = 1; n < 100; n++) {
        g_autoptr(Store) store = faulty_store_new(memory);
        g_autoptr(GError) error = NULL;
        bool is_ok;

        faulty_store_fail(store, STORE_VERBS, n, 1, EIO);
        is_ok = transfer_download(store, "", to, NULL, NULL, &error);
        cr_assert(shell("test -z \"$(find TO -name '.dstack-tmp*')\"", from, to) == 0);
        if (is_ok) {
            cr_assert(n > 10 && trees_equal());
            return;
        }
        cr_assert(error_is(error, EIO));
        cr_assert(shell("rm -rf 'TO'", from, to) == 0);
    }
    cr_assert_fail("never succeeded");
}

Test(transfer, refuses_keys_that_leave_the_directory)
{
    static const char *const keys[] = {"../x", "a/../../x", "/etc/x", "a//b", "./x", "a/.."};

    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        g_autoptr(Store) store = memory_store_new();
        g_autoptr(GError) error = NULL;
        bool is_ok;

        cr_assert(store_write(store, keys[i], "x", 1, NULL, NULL, NULL));
        is_ok = transfer_download(store, "", to, NULL, NULL, &error);
        cr_assert(!is_ok && error_is(error, EINVAL), "%s", keys[i]);
        cr_assert(shell("test ! -e FROM/../x", from, to) == 0);
    }
}

Test(transfer, leaves_out_what_mounts_keep)
{
    static const char *const keys[] = {"f", "d/f", ".dstack-mount/lease", "d/.dstack-index/x",
                                       "d/.dstack-mount/staged/1/0"};
    g_autoptr(Store) one = memory_store_new();
    g_autoptr(Store) other = memory_store_new();
    struct transfer_result copied = {0}, downloaded = {0};

    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++)
        cr_assert(store_write(one, keys[i], "x", 1, NULL, NULL, NULL));
    cr_assert(transfer_copy(one, "", other, "", NULL, &copied, NULL));
    cr_assert(transfer_download(one, "", to, NULL, &downloaded, NULL));
    cr_assert(copied.files == 2 && downloaded.files == 2);
    cr_assert(shell("test $(find TO -type f | wc -l) = 2", from, to) == 0);
}

Test(transfer, does_not_follow_planted_symlinks)
{
    g_autoptr(Store) store = memory_store_new();
    g_autoptr(GError) error = NULL;
    bool is_ok;

    cr_assert(store_write(store, "out/x", "x", 1, NULL, NULL, NULL));
    cr_assert(shell("mkdir TO && ln -s FROM TO/out", from, to) == 0);
    is_ok = transfer_download(store, "", to, NULL, NULL, &error);
    cr_assert(!is_ok && error_is(error, ENOTDIR));
    cr_assert(shell("test ! -e FROM/x", from, to) == 0);
}

Test(transfer, stop_ends_it)
{
    g_autoptr(Store) store = memory_store_new();
    g_autoptr(GError) error = NULL;
    int stop = 1;
    struct transfer_options options = {.stop = &stop};
    bool is_ok;

    make_tree(3, 0);
    is_ok = transfer_upload(from, store, "", &options, NULL, &error);
    cr_assert(!is_ok && error_is(error, ECANCELED));
}

static int stop_now;

static void *stop_during_begin(void *data)
{
    while (held_store_waiting(data) == 0)
        g_usleep(1000);
    __atomic_store_n(&stop_now, 1, __ATOMIC_RELAXED);
    g_usleep(500 * 1000); /* time to hear of it */
    held_store_release(data);
    return NULL;
}

/* Nobody would know the id of an upload whose beginning was cancelled. */
Test(transfer, stop_leaves_no_upload_behind)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) store = held_store_new(memory);
    g_autoptr(GError) error = NULL;
    struct transfer_options options = {.stop = &stop_now};
    pthread_t thread;
    bool is_ok;

    make_tree(0, 20 << 20);
    held_store_hold(store, STORE_BEGIN, NULL);
    pthread_create(&thread, NULL, stop_during_begin, store);
    is_ok = transfer_upload(from, store, "", &options, NULL, &error);
    pthread_join(thread, NULL);
    cr_assert(!is_ok && error_is(error, ECANCELED));
    cr_assert_eq(held_store_calls(store, STORE_BEGIN), 1);
    cr_assert_eq(held_store_calls(store, STORE_ABORT), 1);
    cr_assert_eq(held_store_calls(store, STORE_COMMIT), 0);
}

Test(transfer, keeps_calls_in_flight_within_the_bound)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) store = faulty_store_new(memory);
    struct transfer_options options = {.parallel = 4};
    bool is_ok;

    make_tree(100, 0);
    faulty_store_delay(store, 5);
    is_ok = transfer_upload(from, store, "", &options, NULL, NULL);
    cr_assert(is_ok);
    cr_assert(faulty_store_most_in_flight(store) == 4);
}
