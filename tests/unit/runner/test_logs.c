/* Log segments: written, read and followed. */
#include "config/error.h"
#include "runner/log_segment.h"
#include "runner/logs.h"
#include "runner/run_store.h"
#include "tests/support/memory_store.h"
#include <criterion/criterion.h>
#include <string.h>

static bool collect(const char *data, size_t size, void *user, GError **error)
{
    g_string_append_len(user, data, (gssize)size);
    return true;
}

static void write_log(struct store *root, const char *text)
{
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", NULL);
    g_autoptr(GError) error = NULL;

    cr_assert_not_null(writer);
    log_writer_add(writer, text, strlen(text));
    cr_assert(log_writer_close(writer, 5000, &error), "%s", error ? error->message : "");
}

Test(logs, a_second_writer_goes_on_behind)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(GString) all = g_string_new(NULL);
    struct log_reader reader;
    unsigned count;

    write_log(root, "one\n");
    write_log(root, "two\n");
    cr_assert(log_reader_init(&reader, root, "demo", "a-1", 0, 0, NULL));
    cr_assert(log_reader_poll(&reader, collect, all, &count, NULL));
    cr_assert_eq(count, 2);
    cr_assert_str_eq(all->str, "one\ntwo\n");
    cr_assert(log_reader_poll(&reader, collect, all, &count, NULL));
    cr_assert_eq(count, 0);
    log_reader_clear(&reader);
}

Test(logs, output_is_visible_while_it_goes_on)
{
    g_autoptr(Store) root = memory_store_new();
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", NULL);
    g_autoptr(GString) all = g_string_new(NULL);
    struct log_reader reader;

    cr_assert(log_reader_init(&reader, root, "demo", "a-1", 0, 0, NULL));
    log_writer_add(writer, "x", 1);
    for (int i = 0; i < 200 && all->len == 0; i++) {
        g_usleep(10000);
        cr_assert(log_reader_poll(&reader, collect, all, NULL, NULL));
    }
    cr_assert_str_eq(all->str, "x");
    cr_assert(log_writer_close(writer, 5000, NULL));
    log_reader_clear(&reader);
}

Test(logs, much_output_is_neither_lost_nor_one_object)
{
    g_autoptr(Store) root = memory_store_new();
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", NULL);
    g_autofree char *block = g_strnfill(3 * 1024 * 1024, 'y');
    g_autoptr(GString) all = g_string_new(NULL);
    struct log_reader reader;
    unsigned count;

    for (int i = 0; i < 4; i++)
        log_writer_add(writer, block, strlen(block));
    cr_assert(log_writer_close(writer, 10000, NULL));
    cr_assert(log_reader_init(&reader, root, "demo", "a-1", 0, 0, NULL));
    cr_assert(log_reader_poll(&reader, collect, all, &count, NULL));
    cr_assert_eq(all->len, 4 * strlen(block));
    cr_assert_geq(count, 12);
    log_reader_clear(&reader);
}

Test(logs, since_shows_whole_lines)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(GString) all = g_string_new(NULL);
    struct log_reader reader;
    int64_t since_ms;

    write_log(root, "old\nbegun ");
    g_usleep(5000);
    since_ms = g_get_real_time() / 1000;
    cr_assert(log_reader_init(&reader, root, "demo", "a-1", 0, since_ms, NULL));
    cr_assert(log_reader_poll(&reader, collect, all, NULL, NULL));
    cr_assert_str_eq(all->str, "");
    write_log(root, "before\nnew\n");
    cr_assert(log_reader_poll(&reader, collect, all, NULL, NULL));
    cr_assert_str_eq(all->str, "begun before\nnew\n");
    log_reader_clear(&reader);
}

Test(logs, following_ends_with_the_run)
{
    g_autoptr(Store) root = memory_store_new();
    g_autoptr(Run) run = run_new("demo", "a-1");
    g_autoptr(GString) all = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    struct log_reader reader;
    struct run *final = NULL;

    run->provider = g_strdup("bash");
    cr_assert(run_store_create(root, run, NULL));
    write_log(root, "out\n");
    cr_assert(run_store_move(root, run, RUN_FAILED, "no", NULL));
    cr_assert(log_reader_init(&reader, root, "demo", "a-1", 0, 0, NULL));
    cr_assert(log_reader_follow(&reader, collect, all, NULL, &final, &error), "%s",
              error ? error->message : "");
    cr_assert_str_eq(all->str, "out\n");
    cr_assert_eq(final->status, RUN_FAILED);
    cr_assert_str_eq(final->reason, "no");
    run_free(final);
    log_reader_clear(&reader);
}

Test(logs, foreign_keys_are_no_segments)
{
    uint64_t number;

    cr_assert(log_segment_number("logs/a/b/", "logs/a/b/00000012", &number));
    cr_assert_eq(number, 12);
    cr_assert_not(log_segment_number("logs/a/b/", "logs/a/b/12", &number));
    cr_assert_not(log_segment_number("logs/a/b/", "logs/a/b/0000001x", &number));
    cr_assert_not(log_segment_number("logs/a/b/", "logs/a/c/00000012", &number));
}
