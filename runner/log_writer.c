/* Writing a run's log segments.
 *
 * threads: one of its own, which sends; lock guards everything below it. Shut down: ending is set,
 *          the thread sends what is left until the deadline, and is joined.
 */
#include "config/error.h"
#include "config/log.h"
#include "runner/log_segment.h"
#include "runner/logs.h"
#include <pthread.h>
#include <string.h>
#include <time.h>

enum { EVERY_MS = 500, SEGMENT_MAX = 1024 * 1024, UNSAVED_MAX = 8 * 1024 * 1024, AGAIN_MS = 1000 };

struct log_writer {
    struct store *root;
    char *prefix;
    uint64_t next;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    GByteArray *unsaved;
    int64_t end_us; /* monotonic; 0: not ending */
    GError *error;  /* of the last try; NULL: it went well */
};

static void wait_until(struct log_writer *writer, int64_t until_us)
{
    struct timespec until = {until_us / G_USEC_PER_SEC, until_us % G_USEC_PER_SEC * 1000};

    pthread_cond_timedwait(&writer->changed, &writer->lock, &until);
}

/* Called and returns with the lock held; sends the first bytes of unsaved. */
static bool send_segment(struct log_writer *writer)
{
    size_t size = MIN(writer->unsaved->len, SEGMENT_MAX);
    g_autofree char *key = log_segment_key(writer->prefix, writer->next);
    g_autofree guint8 *data = g_memdup2(writer->unsaved->data, size);
    g_autoptr(GError) error = NULL;
    bool sent;

    pthread_mutex_unlock(&writer->lock);
    sent = store_write(writer->root, key, data, size, NULL, NULL, &error);
    pthread_mutex_lock(&writer->lock);
    g_clear_error(&writer->error);
    if (sent) {
        g_byte_array_remove_range(writer->unsaved, 0, (guint)size);
        writer->next++;
        pthread_cond_broadcast(&writer->changed);
    } else {
        log_warning("%s; trying again", error->message);
        writer->error = g_steal_pointer(&error);
    }
    return sent;
}

static void *write_segments(void *user)
{
    struct log_writer *writer = user;
    int64_t due_us = 0;

    pthread_mutex_lock(&writer->lock);
    for (;;) {
        int64_t now_us = g_get_monotonic_time();
        bool ending = writer->end_us != 0;
        bool full = writer->unsaved->len >= SEGMENT_MAX && !writer->error;

        if (ending && (writer->unsaved->len == 0 || now_us > writer->end_us))
            break;
        if (writer->unsaved->len == 0)
            pthread_cond_wait(&writer->changed, &writer->lock);
        else if (now_us < due_us && !full && (!ending || writer->error))
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
    g_byte_array_unref(writer->unsaved);
    g_clear_error(&writer->error);
    store_unref(writer->root);
    g_free(writer->prefix);
    g_free(writer);
}

struct log_writer *log_writer_open(struct store *root, const char *repo, const char *run,
                                   GError **error)
{
    struct log_writer *writer = g_new0(struct log_writer, 1);
    pthread_condattr_t monotonic;
    int code;

    writer->root = store_ref(root);
    writer->prefix = log_prefix(repo, run);
    writer->unsaved = g_byte_array_new();
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
    while (writer->unsaved->len >= UNSAVED_MAX)
        pthread_cond_wait(&writer->changed, &writer->lock);
    g_byte_array_append(writer->unsaved, (const guint8 *)data, (guint)size);
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

bool log_writer_has_room(struct log_writer *writer)
{
    bool room;

    pthread_mutex_lock(&writer->lock);
    room = writer->unsaved->len < UNSAVED_MAX;
    pthread_mutex_unlock(&writer->lock);
    return room;
}

bool log_writer_close(struct log_writer *writer, unsigned timeout_ms, GError **error)
{
    guint left;

    pthread_mutex_lock(&writer->lock);
    writer->end_us = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
    pthread_join(writer->thread, NULL);
    left = writer->unsaved->len;
    if (left)
        error_set(error, EIO, "%u bytes of output could not be saved: %s", left,
                  writer->error ? writer->error->message : "out of time");
    writer_free(writer);
    return left == 0;
}
