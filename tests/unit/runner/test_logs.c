/* Log segments: written, read and followed. */
#include "config/error.h"
#include "runner/run/log_segment.h"
#include "runner/run/logs.h"
#include "runner/run/run_store.h"
#include "storage/store_driver.h"
#include "tests/support/faulty_store.h"
#include "tests/support/memory_store.h"
#include <criterion/criterion.h>
#include <glib/gstdio.h>
#include <string.h>

static bool collect(const char *data, size_t size, void *user, GError **error)
{
    g_string_append_len(user, data, (gssize)size);
    return true;
}

static void write_log(struct store *root, const char *text)
{
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", NULL, NULL);
    g_autoptr(GError) error = NULL;

    cr_assert_not_null(writer);
    log_writer_add(writer, text, strlen(text));
    cr_assert(log_writer_close(writer, 5000, NULL, &error), "%s", error ? error->message : "");
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
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", NULL, NULL);
    g_autoptr(GString) all = g_string_new(NULL);
    struct log_reader reader;

    cr_assert(log_reader_init(&reader, root, "demo", "a-1", 0, 0, NULL));
    log_writer_add(writer, "x", 1);
    for (int i = 0; i < 200 && all->len == 0; i++) {
        g_usleep(10000);
        cr_assert(log_reader_poll(&reader, collect, all, NULL, NULL));
    }
    cr_assert_str_eq(all->str, "x");
    cr_assert(log_writer_close(writer, 5000, NULL, NULL));
    log_reader_clear(&reader);
}

Test(logs, much_output_is_neither_lost_nor_one_object)
{
    g_autoptr(Store) root = memory_store_new();
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", NULL, NULL);
    g_autofree char *block = g_strnfill(3 * 1024 * 1024, 'y');
    g_autoptr(GString) all = g_string_new(NULL);
    struct log_reader reader;
    unsigned count;

    for (int i = 0; i < 4; i++)
        log_writer_add(writer, block, strlen(block));
    cr_assert(log_writer_close(writer, 10000, NULL, NULL));
    cr_assert(log_reader_init(&reader, root, "demo", "a-1", 0, 0, NULL));
    cr_assert(log_reader_poll(&reader, collect, all, &count, NULL));
    cr_assert_eq(all->len, 4 * strlen(block));
    cr_assert_geq(count, 12);
    log_reader_clear(&reader);
}

static char *read_log(struct store *root)
{
    GString *all = g_string_new(NULL);
    struct log_reader reader;

    cr_assert(log_reader_init(&reader, root, "demo", "a-1", 0, 0, NULL));
    cr_assert(log_reader_poll(&reader, collect, all, NULL, NULL));
    log_reader_clear(&reader);
    return g_string_free(all, FALSE);
}

/* Two attempts, one of which does not know that it was succeeded. */
Test(logs, no_writer_writes_over_another)
{
    for (int atomic = 0; atomic < 2; atomic++) {
        g_autoptr(Store) root = memory_store_new();
        struct log_writer *old, *new;
        g_autofree char *all = NULL;

        root->caps.has_put_if_absent = atomic;
        old = log_writer_open(root, "demo", "a-1", NULL, NULL);
        new = log_writer_open(root, "demo", "a-1", NULL, NULL);
        log_writer_add(new, "new\n", 4);
        cr_assert(log_writer_close(new, 5000, NULL, NULL));
        log_writer_add(old, "old\n", 4);
        cr_assert(log_writer_close(old, 5000, NULL, NULL));
        all = read_log(root);
        cr_assert_str_eq(all, "new\nold\n");
    }
}

static bool never(void *user, GError **error)
{
    return error_set(error, ECANCELED, "it goes on elsewhere");
}

Test(logs, a_writer_that_was_succeeded_writes_nothing)
{
    g_autoptr(Store) root = memory_store_new();
    const struct log_options options = {.may_write = never};
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", &options, NULL);
    g_autofree char *block = g_strnfill(3 * 1024 * 1024, 'y');
    g_autofree char *all = NULL;

    for (int i = 0; i < 8; i++) /* more than memory holds: it does not wait */
        log_writer_add(writer, block, strlen(block));
    cr_assert(log_writer_close(writer, 5000, NULL, NULL));
    all = read_log(root);
    cr_assert_str_eq(all, "");
}

/* The answer was lost and it is sent again, as it was: with more behind it by now. */
Test(logs, a_segment_that_landed_is_not_there_twice)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) root = faulty_store_new(memory);
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", NULL, NULL);
    g_autofree char *all = NULL;

    faulty_store_lose(root, STORE_PUT, 1, 1, ETIMEDOUT);
    log_writer_add(writer, "one\n", 4);
    while (faulty_store_calls(root, STORE_PUT) == 0)
        g_usleep(1000);
    log_writer_add(writer, "two\n", 4);
    cr_assert(log_writer_close(writer, 5000, NULL, NULL));
    all = read_log(memory);
    cr_assert_str_eq(all, "one\ntwo\n");
}

/* The commands go on while the store is away, and nothing is lost. */
Test(logs, output_waits_on_disk)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) root = faulty_store_new(memory);
    g_autofree char *dir = g_dir_make_tmp("logs-XXXXXX", NULL);
    const struct log_options options = {.dir = dir};
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", &options, NULL);
    g_autoptr(GString) expected = g_string_new(NULL);
    g_autofree char *all = NULL;

    faulty_store_fail(root, STORE_PUT, 1, 1000, EHOSTUNREACH);
    for (int i = 0; i < 30000; i++) {
        g_autofree char *line = g_strdup_printf("%06d%*s\n", i, 993, "x");

        g_string_append(expected, line);
        cr_assert(log_writer_has_room(writer));
        log_writer_add(writer, line, strlen(line));
    }
    faulty_store_fail(root, STORE_PUT, 1, 0, 0);
    cr_assert(log_writer_close(writer, 5000, NULL, NULL));
    all = read_log(memory);
    cr_assert(strcmp(all, expected->str) == 0);
    cr_assert_eq(g_rmdir(dir), 0, "something of it stayed");
}

Test(logs, output_waits_in_memory_when_the_disk_takes_no_more)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) root = faulty_store_new(memory);
    const struct log_options options = {.dir = "/proc"};
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", &options, NULL);
    g_autofree char *block = g_strnfill(3 * 1024 * 1024, 'y'), *all = NULL;

    faulty_store_fail(root, STORE_PUT, 1, 2, EHOSTUNREACH);
    for (int i = 0; i < 6; i++) /* waits until the store is back */
        log_writer_add(writer, block, strlen(block));
    cr_assert(log_writer_close(writer, 5000, NULL, NULL));
    all = read_log(memory);
    cr_assert_eq(strlen(all), 6 * strlen(block));
}

Test(logs, what_could_not_be_saved_is_kept)
{
    g_autoptr(Store) memory = memory_store_new();
    g_autoptr(Store) root = faulty_store_new(memory);
    g_autofree char *dir = g_dir_make_tmp("logs-XXXXXX", NULL);
    g_autofree char *keep = g_build_filename(dir, "output", NULL), *kept = NULL;
    struct log_writer *writer = log_writer_open(root, "demo", "a-1", NULL, NULL);
    g_autoptr(GError) error = NULL;

    faulty_store_fail(root, STORE_PUT, 1, 1000, EHOSTUNREACH);
    log_writer_add(writer, "last words\n", 11);
    cr_assert_not(log_writer_close(writer, 100, keep, &error));
    cr_assert(strstr(error->message, keep) && strstr(error->message, "11 bytes"), "%s",
              error->message);
    cr_assert(g_file_get_contents(keep, &kept, NULL, NULL));
    cr_assert_str_eq(kept, "last words\n");
    g_unlink(keep);
    g_rmdir(dir);
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
