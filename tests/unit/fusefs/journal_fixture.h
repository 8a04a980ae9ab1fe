/* A filesystem with a journal, over a store in a directory: what tests of what a killed process
 * leaves begin with. */
#pragma once

#include "tests/unit/fusefs/fixture.h"

#include "fusefs/journal_internal.h"
#include "fusefs/recover.h"

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#define MIB      (1u << 20)
#define NEVER_MS 3600000

static char *directory, *journal_dir, *url;

static void set_up_directory(void)
{
    char *store_dir;

    /* Where journals are by default; a disk would have the rounds wait for its fsyncs. */
    directory = g_strdup("/dev/shm/dstack-test-journal.XXXXXX");
    cr_assert_not_null(g_mkdtemp(directory));
    journal_dir = g_build_filename(directory, "journal", NULL);
    store_dir = g_build_filename(directory, "store", NULL);
    cr_assert_eq(mkdir(store_dir, 0700), 0);
    url = g_strconcat("file://", store_dir, "/", NULL);
    g_free(store_dir);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void tear_down_directory(void)
{
    cr_assert_eq(nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    g_free(directory);
    g_free(journal_dir);
    g_free(url);
}

static struct journal *journal;

/* LAYER (may be NULL) is put over the store, and makes it fail. */
static void start_on(struct store *(*layer)(struct store *))
{
    struct fs_options options = {
        .sync_interval_ms = NEVER_MS, .budget_bytes = 32 * MIB, .part_bytes = MIB};

    store = store_open(url, NULL, NULL);
    if (layer) {
        g_autoptr(Store) below = store;

        store = layer(below);
    }
    journal = journal_open(journal_dir, url, options.budget_bytes, NULL);
    g_assert(store && journal && journal_begin(journal, NULL));
    options.journal = journal;
    fs = fs_new(store, &options);
}

static void start(void)
{
    start_on(NULL);
}

/* Returns whether something is left for the next one. */
static bool stop(void)
{
    bool left;

    fs_free(fs);
    left = journal_close(journal);
    store_unref(store);
    return left;
}

static void must(int error)
{
    if (error)
        abort();
}

static G_GNUC_UNUSED bool is_same(const char *key, const GByteArray *bytes)
{
    size_t size = 0;
    g_autofree char *data = in_store(key, &size);

    if (!data || !bytes)
        return !data && !bytes;
    return size == bytes->len && memcmp(data, bytes->data, size) == 0;
}
