#include "config/error.h"
#include "storage/file_store.h"
#include "tests/support/conformance.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static char dir[64];

static void run(const char *command, const char *argument)
{
    g_autofree char *line = g_strdup_printf("%s '%s'", command, argument);

    cr_assert(system(line) == 0);
}

static void make_dir(void)
{
    strcpy(dir, "/var/tmp/dstack-test-XXXXXX");
    cr_assert(mkdtemp(dir) != NULL);
}

static void remove_dir(void)
{
    run("rm -rf", dir);
}

static struct store *open_store(void)
{
    g_autofree char *url = g_strconcat("file://", dir, NULL);
    g_autoptr(GError) error = NULL;
    struct store *store = store_file_open(url, NULL, &error);

    cr_assert(store != NULL, "%s", error ? error->message : "");
    return store;
}

TestSuite(file_store, .init = make_dir, .fini = remove_dir);

Test(file_store, conforms)
{
    g_autoptr(Store) store = open_store();
    g_autoptr(GError) error = NULL;
    bool is_ok = conformance_run(store, "p/", NULL, &error);

    cr_assert(is_ok, "%s", error ? error->message : "");
}

Test(file_store, names_are_safe_and_come_back)
{
    static const char *const pairs[][2] = {
        {"", "%"},    {".", "%2E"},     {"..", "%2E%2E"}, {".dstack-x", "%2Edstack-x"},
        {"%", "%25"}, {"a%b", "a%25b"}, {"a b", "a b"},   {".x", ".x"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(pairs); i++) {
        g_autofree char *name = file_store_encode_segment(pairs[i][0]);
        g_autofree char *back = file_store_decode_segment(name);

        cr_assert_str_eq(name, pairs[i][1]);
        cr_assert_str_eq(back, pairs[i][0]);
    }
    cr_assert(file_store_decode_segment("100%") == NULL);
    cr_assert(file_store_decode_segment("%2F") == NULL);
    cr_assert(file_store_decode_segment("%00") == NULL);
}

Test(file_store, keys_do_not_leave_through_symlinks)
{
    g_autoptr(Store) store = open_store();
    g_autofree char *link = g_strconcat(dir, "/out", NULL);
    g_autoptr(GError) error = NULL;
    struct store_object object = {0};

    cr_assert(symlink("/etc", link) == 0);
    cr_assert(!store_head(store, "out/passwd", &object, &error));
    cr_assert(error_is(error, ENOENT));
    g_clear_error(&error);
    cr_assert(!store_write(store, "out/dstack-x", "x", 1, NULL, NULL, &error));
    cr_assert(error_is(error, ENOTDIR));
    g_clear_error(&error);
    cr_assert(store_write(store, "../dots", "x", 1, NULL, NULL, &error));
}

Test(file_store, quick_rewrites_have_other_etags)
{
    g_autoptr(Store) store = open_store();
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (int i = 0; i < 100; i++) {
        char *etag = NULL;

        cr_assert(store_write(store, "k", "x", 1, NULL, &etag, NULL));
        cr_assert(g_hash_table_add(seen, etag));
    }
}

/* Four processes count up one object under if_match: no step is lost. */
static void count_up(int steps)
{
    g_autoptr(Store) store = open_store();

    while (steps) {
        g_autofree char *data = NULL, *etag = NULL, *next = NULL;
        size_t size;

        if (!store_read(store, "n", 100, &data, &size, &etag, NULL))
            _exit(1);
        next = g_strdup_printf("%d", atoi(data) + 1);
        if (store_write(store, "n", next, strlen(next), etag, NULL, NULL))
            steps--;
    }
}

Test(file_store, if_match_is_atomic_between_processes)
{
    g_autofree char *data = NULL;
    size_t size;
    pid_t pids[4];

    for (int i = 0; i < 4; i++) {
        if (i == 0) {
            g_autoptr(Store) store = open_store();

            cr_assert(store_write(store, "n", "0", 1, NULL, NULL, NULL));
        }
        pids[i] = fork();
        if (pids[i] == 0) {
            count_up(25);
            _exit(0);
        }
    }
    for (int i = 0; i < 4; i++) {
        int status;

        cr_assert(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
    }
    g_autoptr(Store) store = open_store();
    cr_assert(store_read(store, "n", 100, &data, &size, NULL, NULL));
    cr_assert_str_eq(data, "100");
}

Test(file_store, leaves_no_directory_and_no_temporary_file)
{
    g_autoptr(Store) store = open_store();
    g_autofree char *below = g_strconcat(dir, "/a", NULL);

    cr_assert(store_write(store, "a/b/c", "x", 1, NULL, NULL, NULL));
    cr_assert(g_file_test(below, G_FILE_TEST_IS_DIR));
    cr_assert(store_delete(store, "a/b/c", NULL));
    cr_assert(!g_file_test(below, G_FILE_TEST_EXISTS));
}

static void touch_many(const char *prefix, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        g_autofree char *name = g_strdup_printf("%s%04u", prefix, i);
        g_autofree char *path = g_build_filename(dir, name, NULL);

        cr_assert(g_file_set_contents(path, "x", 1, NULL));
    }
}

/* The page behind TOKEN, which is freed; every key is above the one before. */
static unsigned list_page(struct store *store, const char *prefix, bool delimiter, char **token,
                          char **last)
{
    g_autoptr(StoreCall) page = store_call_new(STORE_LIST, prefix);
    g_autoptr(GError) error = NULL;

    page->delimiter = delimiter;
    page->limit = 1100;
    page->token = g_steal_pointer(token);
    cr_assert(store_run(store, page, &error), "%s", error ? error->message : "");
    for (unsigned i = 0; i < page->objects->len; i++) {
        const char *key = ((struct store_object *)page->objects->pdata[i])->key;

        cr_assert(!*last || strcmp(key, *last) > 0, "%s behind %s", key, *last);
        g_free(*last);
        *last = g_strdup(key);
    }
    *token = g_strdup(page->next_token);
    return page->objects->len + page->prefixes->len;
}

static unsigned list_whole(struct store *store, const char *prefix, bool delimiter)
{
    g_autofree char *token = NULL, *last = NULL;
    unsigned count = 0;

    do
        count += list_page(store, prefix, delimiter, &token, &last);
    while (token);
    return count;
}

Test(file_store, large_directories_are_listed_page_by_page)
{
    g_autoptr(Store) store = open_store();
    g_autofree char *below = g_build_filename(dir, "m", NULL);

    cr_assert_eq(mkdir(below, 0755), 0);
    touch_many("a", 0, 2500);
    touch_many("m/b", 0, 2500);
    touch_many("z", 0, 2500);
    cr_expect_eq(list_whole(store, "", false), 7500);
    cr_expect_eq(list_whole(store, "", true), 5001);
    cr_expect_eq(list_whole(store, "m/", true), 2500);
    cr_expect_eq(list_whole(store, "m/b1", true), 1000);
}

/* A token is good more than once, and for as many listings as there are. */
Test(file_store, listings_do_not_disturb_each_other)
{
    g_autoptr(Store) store = open_store();
    char *tokens[12] = {NULL}, *lasts[12] = {NULL};
    unsigned counts[12] = {0};

    touch_many("a", 0, 3000);
    for (unsigned page = 0; page < 3; page++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(tokens); i++)
            counts[i] += list_page(store, "", i % 2, &tokens[i], &lasts[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(tokens); i++) {
        cr_expect_eq(counts[i], 3000, "%u", counts[i]);
        cr_expect(tokens[i] == NULL);
        g_free(lasts[i]);
    }
}

Test(file_store, a_listing_passes_over_what_is_removed_meanwhile)
{
    g_autoptr(Store) store = open_store();
    g_autofree char *token = NULL, *last = NULL;
    unsigned count;

    touch_many("a", 0, 4000);
    count = list_page(store, "", true, &token, &last);
    cr_assert_eq(count, 1100);
    for (unsigned i = 1000; i < 2000; i++) {
        g_autofree char *path = g_strdup_printf("%s/a%04u", dir, i);

        cr_assert_eq(unlink(path), 0);
    }
    touch_many("b", 0, 10);
    while (token)
        count += list_page(store, "", true, &token, &last);
    cr_expect(count == 1100 + 2000 || count == 1100 + 2010, "%u", count);
}
