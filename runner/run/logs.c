#include "runner/run/logs.h"
#include "config/error.h"
#include "runner/job/job_progress.h"
#include "runner/run/log_segment.h"
#include "runner/run/lost.h"
#include "runner/run/run_store.h"
#include <stdlib.h>
#include <string.h>

enum {
    SEGMENT_LIMIT = 16 * 1024 * 1024, /* foreign: ours are smaller */
    DIGITS = 8,
    PAUSE_MIN_MS = 50,
    PAUSE_MAX_MS = 1000,
    REFRESH_FACTOR = 4,
    PAUSE_FACTOR = 20, /* looking takes a twentieth of the time */
    ASK_ENGINE_S = 10, /* Slurm's controller has others to serve, and ssh is a login each time */
};

char *log_prefix(const char *repo, const char *run)
{
    return g_strdup_printf("logs/%s/%s/", repo, run);
}

char *log_place(const char *run, unsigned rank)
{
    return rank ? g_strdup_printf("%s/rank-%u", run, rank) : g_strdup(run);
}

char *log_segment_key(const char *prefix, uint64_t number)
{
    return g_strdup_printf("%s%0*" G_GUINT64_FORMAT, prefix, DIGITS, number);
}

bool log_segment_number(const char *prefix, const char *key, uint64_t *number)
{
    const char *digits = key + strlen(prefix);

    if (!g_str_has_prefix(key, prefix) || strlen(digits) != DIGITS ||
        strspn(digits, "0123456789") != DIGITS)
        return false;
    *number = strtoull(digits, NULL, 10);
    return true;
}

struct end {
    const char *prefix;
    uint64_t next;
};

static bool note_end(const struct store_object *object, void *user, GError **error)
{
    struct end *end = user;
    uint64_t number;

    if (log_segment_number(end->prefix, object->key, &number))
        end->next = number + 1;
    return true;
}

bool log_segment_end(struct store *root, const char *prefix, uint64_t *next, GError **error)
{
    struct end end = {prefix, 0};

    if (!store_list(root, prefix, false, note_end, &end, error))
        return false;
    *next = end.next;
    return true;
}

struct since {
    const char *prefix;
    int64_t since_ns;
    uint64_t next;
};

/* Stops at the first segment that is young enough. */
static bool note_since(const struct store_object *object, void *user, GError **error)
{
    struct since *since = user;
    uint64_t number;

    if (!log_segment_number(since->prefix, object->key, &number))
        return true;
    since->next = number;
    if (object->mtime_ns >= since->since_ns)
        return false;
    since->next = number + 1;
    return true;
}

bool log_reader_init(struct log_reader *reader, struct store *root, const char *repo,
                     const char *run, unsigned rank, int64_t since_ms, GError **error)
{
    g_autofree char *place = log_place(run, rank);
    g_autofree char *prefix = log_prefix(repo, place);
    struct since since = {prefix, since_ms * 1000000, 0};

    if (since_ms > 0 && !store_list(root, prefix, false, note_since, &since, error))
        return false;
    *reader = (struct log_reader){.root = store_ref(root), .rank = rank};
    reader->repo = g_strdup(repo);
    reader->run = g_strdup(run);
    reader->next = since.next;
    reader->inside = since.next > 0;
    reader->pause_ms = PAUSE_MIN_MS;
    return true;
}

void log_reader_clear(struct log_reader *reader)
{
    g_clear_pointer(&reader->root, store_unref);
    g_clear_pointer(&reader->repo, g_free);
    g_clear_pointer(&reader->run, g_free);
}

static void hide_progress(struct log_reader *reader)
{
    if (reader->progress_shown)
        reader->watcher.progress(NULL, NULL, reader->watcher.user);
}

/* The end of the segment before, if it is the beginning of a line. */
static bool read_beginning(struct log_reader *reader, const char *prefix, log_each *each,
                           void *user, GError **error)
{
    g_autofree char *key = log_segment_key(prefix, reader->next - 1), *data = NULL;
    g_autoptr(GError) why = NULL;
    const char *newline;
    size_t size, begin;

    reader->inside = false;
    if (!store_read(reader->root, key, SEGMENT_LIMIT, &data, &size, NULL, &why)) {
        if (error_is(why, ENOENT))
            return true;
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    newline = memrchr(data, '\n', size);
    begin = newline ? (size_t)(newline - data) + 1 : 0;
    return begin == size || each(data + begin, size - begin, user, error);
}

bool log_reader_poll(struct log_reader *reader, log_each *each, void *user, unsigned *count,
                     GError **error)
{
    g_autofree char *place = log_place(reader->run, reader->rank);
    g_autofree char *prefix = log_prefix(reader->repo, place);
    unsigned found = 0;

    for (;; found++) {
        g_autofree char *key = log_segment_key(prefix, reader->next);
        int64_t begin_us = g_get_monotonic_time();
        g_autoptr(GError) missing = NULL;
        g_autofree char *data = NULL;
        size_t size;

        if (!store_read(reader->root, key, SEGMENT_LIMIT, &data, &size, NULL, &missing)) {
            int64_t took_ms = (g_get_monotonic_time() - begin_us) / 1000;

            reader->pause_ms =
                (unsigned)CLAMP(took_ms * PAUSE_FACTOR, (int64_t)PAUSE_MIN_MS, PAUSE_MAX_MS);
            if (count)
                *count = found;
            if (error_is(missing, ENOENT))
                return true;
            g_propagate_error(error, g_steal_pointer(&missing));
            return false;
        }
        hide_progress(reader);
        if (reader->inside && !read_beginning(reader, prefix, each, user, error))
            return false;
        reader->next++;
        if (!each(data, size, user, error))
            return false;
    }
}

/* The run was seen finished before the last look found nothing: everything is read. */
static bool finish(struct log_reader *reader, log_each *each, void *user, struct run *run,
                   struct run **final, GError **error)
{
    bool read = log_reader_poll(reader, each, user, NULL, error);

    if (read && final)
        *final = run;
    else
        run_free(run);
    return read;
}

static void show_progress(struct log_reader *reader, const struct run *run)
{
    struct transfer_progress now;
    g_autofree char *label = NULL;

    if (!reader->watcher.progress ||
        (run->status != RUN_DOWNLOADING && run->status != RUN_UPLOADING &&
         run->status != RUN_STOPPING) ||
        !job_progress_read(reader->root, run->repo, run->name, &label, &now))
        return;
    reader->watcher.progress(label, &now, reader->watcher.user);
    reader->progress_shown = true;
}

/* The run as it is now, and, unless an engine was asked for it a moment ago, as it should be. */
static struct run *look_at_run(struct log_reader *reader, GError **error)
{
    int64_t now_us = g_get_monotonic_time();
    struct run *run;

    if (now_us < reader->ask_us)
        return run_store_load(reader->root, reader->repo, reader->run, error);
    run = run_store_refresh(reader->root, reader->repo, reader->run, error);
    if (run && run_fate_asks_engine(run))
        reader->ask_us = now_us + ASK_ENGINE_S * G_USEC_PER_SEC;
    return run;
}

bool log_reader_follow(struct log_reader *reader, log_each *each, void *user, const int *stop,
                       struct run **final, GError **error)
{
    int64_t refresh_us = 0;

    while (!stop || !__atomic_load_n(stop, __ATOMIC_ACQUIRE)) {
        unsigned count;

        if (!log_reader_poll(reader, each, user, &count, error))
            return false;
        if (g_get_monotonic_time() >= refresh_us) {
            struct run *run = look_at_run(reader, error);

            if (!run)
                return false;
            if (run_status_is_final(run->status) || (reader->until_idle && run->is_idle))
                return finish(reader, each, user, run, final, error);
            show_progress(reader, run);
            run_free(run);
            refresh_us = g_get_monotonic_time() + (int64_t)reader->pause_ms * REFRESH_FACTOR * 1000;
        }
        if (count == 0)
            g_usleep(reader->pause_ms * 1000);
    }
    return error_set(error, ECANCELED, "stopped following %s", reader->run);
}
