/* Writing a run's log segments.
 *
 * threads: one of its own, which sends; lock guards everything below it. Shut down: ending is set,
 *          the thread sends what is left as long as it gets on, and is joined.
 */
#include "config/error.h"
#include "config/log.h"
#include "runner/job/log_queue.h"
#include "runner/run/log_segment.h"
#include "runner/run/logs.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { EVERY_MS = 500, SEGMENT_MAX = 1024 * 1024, AGAIN_MS = 1000 };

struct log_writer {
    struct store *root;
    char *prefix;
    log_may_write *may_write;
    void *user;
    pthread_t thread;
    /* of the thread alone: */
    uint64_t next;
    size_t trying; /* bytes of the segment that is sent again as it was; 0: a new one */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct log_queue unsaved;
    bool is_taken;      /* the run is another attempt's: nothing is written any more */
    unsigned ending_ms; /* 0: not ending; else how long without a success is too long */
    int64_t success_us; /* monotonic: the last one, or when the end began */
    GError *error;      /* of the last try; NULL: it went well */
};

static void wait_until(struct log_writer *writer, int64_t until_us)
{
    struct timespec until = {until_us / G_USEC_PER_SEC, until_us % G_USEC_PER_SEC * 1000};

    pthread_cond_timedwait(&writer->changed, &writer->lock, &until);
}

/* A key that is there: of an earlier try of ours whose answer was lost, or another attempt's. */
static bool is_ours(struct log_writer *writer, const char *key, const guint8 *data, size_t size)
{
    g_autofree char *there = NULL;
    size_t there_size;

    return writer->trying &&
           store_read(writer->root, key, SEGMENT_MAX, &there, &there_size, NULL, NULL) &&
           there_size == size && memcmp(there, data, size) == 0;
}

static bool put(struct log_writer *writer, const char *key, const guint8 *data, size_t size,
                GError **error)
{
    bool atomic = store_caps(writer->root)->has_put_if_absent, has = false;

    if (!atomic && !store_has(writer->root, key, &has, error))
        return false;
    if (has)
        return error_set(error, EEXIST, "%s is there already", key);
    return store_write(writer->root, key, data, size, atomic ? "" : NULL, NULL, error);
}

/* One that is there stays; ours goes behind the last. */
static bool send_bytes(struct log_writer *writer, const guint8 *data, size_t size, GError **error)
{
    g_autofree char *key = log_segment_key(writer->prefix, writer->next);
    g_autoptr(GError) taken = NULL;
    uint64_t end;

    if (writer->may_write && !writer->may_write(writer->user, error))
        return false;
    if (put(writer, key, data, size, &taken) ||
        (error_is(taken, EEXIST) && is_ours(writer, key, data, size))) {
        writer->next++;
        writer->trying = 0;
        return true;
    }
    if (!error_is(taken, EEXIST)) {
        writer->trying = size;
        g_propagate_error(error, g_steal_pointer(&taken));
        return false;
    }
    writer->trying = 0;
    if (!log_segment_end(writer->root, writer->prefix, &end, error))
        return false;
    writer->next = MAX(end, writer->next + 1);
    return send_bytes(writer, data, size, error);
}

/* Called and returns with the lock held; sends the first bytes of unsaved. */
static bool send_segment(struct log_writer *writer)
{
    g_autoptr(GError) error = NULL;
    size_t size;
    g_autofree guint8 *data =
        log_queue_peek(&writer->unsaved, writer->trying ? writer->trying : SEGMENT_MAX, &size);
    bool sent;

    pthread_mutex_unlock(&writer->lock);
    sent = send_bytes(writer, data, size, &error);
    pthread_mutex_lock(&writer->lock);
    g_clear_error(&writer->error);
    if (sent) {
        log_queue_drop(&writer->unsaved, size);
        writer->success_us = g_get_monotonic_time();
        pthread_cond_broadcast(&writer->changed);
        return true;
    }
    writer->is_taken = error_is(error, ECANCELED);
    log_warning("%s; %s", error->message,
                writer->is_taken ? "what is left of the output is dropped" : "trying again");
    writer->error = g_steal_pointer(&error);
    pthread_cond_broadcast(&writer->changed);
    return false;
}

/* lock held */
static bool is_over(const struct log_writer *writer)
{
    int64_t without_us = g_get_monotonic_time() - writer->success_us;

    return writer->is_taken || (writer->ending_ms && (log_queue_bytes(&writer->unsaved) == 0 ||
                                                      without_us > writer->ending_ms * 1000LL));
}

static void *write_segments(void *user)
{
    struct log_writer *writer = user;
    int64_t due_us = 0;

    pthread_mutex_lock(&writer->lock);
    while (!is_over(writer)) {
        int64_t now_us = g_get_monotonic_time();
        uint64_t bytes = log_queue_bytes(&writer->unsaved);
        bool at_once = !writer->error && (bytes >= SEGMENT_MAX || writer->ending_ms);

        if (bytes == 0)
            pthread_cond_wait(&writer->changed, &writer->lock);
        else if (now_us < due_us && !at_once)
            wait_until(writer, due_us);
        else
            due_us = now_us + (send_segment(writer) ? EVERY_MS : AGAIN_MS) * 1000;
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

static void writer_free(struct log_writer *writer)
{
    pthread_mutex_destroy(&writer->lock);
    pthread_cond_destroy(&writer->changed);
    log_queue_clear(&writer->unsaved);
    g_clear_error(&writer->error);
    store_unref(writer->root);
    g_free(writer->prefix);
    g_free(writer);
}

struct log_writer *log_writer_open(struct store *root, const char *repo, const char *run,
                                   const struct log_options *options, GError **error)
{
    struct log_writer *writer = g_new0(struct log_writer, 1);
    pthread_condattr_t monotonic;
    int code;

    writer->root = store_ref(root);
    writer->prefix = log_prefix(repo, run);
    writer->may_write = options ? options->may_write : NULL;
    writer->user = options ? options->user : NULL;
    log_queue_init(&writer->unsaved, options ? options->dir : NULL);
    pthread_mutex_init(&writer->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&writer->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (!log_segment_end(root, writer->prefix, &writer->next, error)) {
        writer_free(writer);
        return NULL;
    }
    code = pthread_create(&writer->thread, NULL, write_segments, writer);
    if (code) {
        error_set_errno(error, code, "start a thread for logs");
        writer_free(writer);
        return NULL;
    }
    return writer;
}

void log_writer_add(struct log_writer *writer, const char *data, size_t size)
{
    pthread_mutex_lock(&writer->lock);
    while (!writer->is_taken && !log_queue_add(&writer->unsaved, data, size))
        pthread_cond_wait(&writer->changed, &writer->lock);
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

bool log_writer_has_room(struct log_writer *writer)
{
    bool room;

    pthread_mutex_lock(&writer->lock);
    room = writer->is_taken || log_queue_has_room(&writer->unsaved);
    pthread_mutex_unlock(&writer->lock);
    return room;
}

/* The thread is gone. False: not all of it. */
static bool keep_rest(struct log_queue *unsaved, const char *path)
{
    FILE *file = path ? fopen(path, "ae") : NULL;
    bool fine = file && !unsaved->lost_bytes;

    while (fine && log_queue_bytes(unsaved) > 0) {
        size_t size;
        g_autofree guint8 *data = log_queue_peek(unsaved, SEGMENT_MAX, &size);

        fine = fwrite(data, 1, size, file) == size;
        log_queue_drop(unsaved, size);
    }
    return file && fclose(file) == 0 && fine;
}

bool log_writer_close(struct log_writer *writer, unsigned timeout_ms, const char *keep,
                      GError **error)
{
    uint64_t left;

    pthread_mutex_lock(&writer->lock);
    writer->ending_ms = MAX(timeout_ms, 1);
    writer->success_us = g_get_monotonic_time();
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
    pthread_join(writer->thread, NULL);
    left = writer->is_taken ? 0 : log_queue_bytes(&writer->unsaved) + writer->unsaved.lost_bytes;
    if (left) {
        bool is_kept = keep_rest(&writer->unsaved, keep);

        error_set(error, EIO, "%" G_GUINT64_FORMAT " bytes of output could not be saved%s%s: %s",
                  left, is_kept ? " and are in " : "", is_kept ? keep : "",
                  writer->error ? writer->error->message : "out of time");
    }
    writer_free(writer);
    return left == 0;
}
