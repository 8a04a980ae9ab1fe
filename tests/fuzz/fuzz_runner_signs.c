/* The small objects beside a run's document, which any client of the store may have written: the
 * wish to stop, what its transfers say, segments of its log and their keys. */
#include "runner/job/job_progress.h"
#include "runner/run/log_segment.h"
#include "runner/run/logs.h"
#include "runner/run/run_store.h"
#include "tests/support/memory_store.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool count(const char *text, size_t size, void *user, GError **error)
{
    *(size_t *)user += size;
    return true;
}

static void put(struct store *store, const char *key, const uint8_t *data, size_t size)
{
    if (!store_write(store, key, data, size, NULL, NULL, NULL))
        abort();
}

static void read_log(struct store *store, size_t written)
{
    struct log_reader reader;
    size_t size = 0;

    if (!log_reader_init(&reader, store, "demo", "a-1", 0, 0, NULL) ||
        !log_reader_poll(&reader, count, &size, NULL, NULL) || size != written)
        abort();
    log_reader_clear(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size), *label = NULL;
    g_autofree char *key = g_strconcat("logs/demo/a-1/", text, NULL);
    struct store *store = memory_store_new();
    struct transfer_progress now;
    enum stop_wish wish;
    uint64_t number;

    put(store, "runs/demo/a-1.stop", data, size);
    put(store, "runs/demo/a-1.progress", data, size);
    put(store, "logs/demo/a-1/00000000", data, size);
    if (run_store_stop_wish(store, "demo", "a-1", &wish, NULL) &&
        (wish == STOP_ABORT) != (size >= 5 && strcmp(text, "abort") == 0))
        abort();
    if (job_progress_read(store, "demo", "a-1", &label, &now) && !g_utf8_validate(label, -1, NULL))
        abort();
    read_log(store, size);
    if (log_segment_number("logs/demo/a-1/", key, &number) && number > 99999999)
        abort();
    store_unref(store);
    return 0;
}
