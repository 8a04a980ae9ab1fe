#include "runner/job/log_queue.h"
#include "config/autofd.h"
#include "config/log.h"
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <unistd.h>

enum { MEMORY_MAX = 8 * 1024 * 1024, READ_BYTES = 1024 * 1024 };

void log_queue_init(struct log_queue *queue, const char *dir)
{
    *queue = (struct log_queue){.front = g_byte_array_new(), .dir = g_strdup(dir), .fd = -1};
}

void log_queue_clear(struct log_queue *queue)
{
    g_clear_pointer(&queue->front, g_byte_array_unref);
    g_clear_pointer(&queue->dir, g_free);
    fd_close(&queue->fd);
}

static bool in_file(const struct log_queue *queue)
{
    return queue->end > queue->begin;
}

uint64_t log_queue_bytes(const struct log_queue *queue)
{
    return queue->front->len + queue->end - queue->begin;
}

bool log_queue_has_room(const struct log_queue *queue)
{
    return !queue->is_full && (queue->dir || queue->front->len < MEMORY_MAX);
}

static bool open_file(struct log_queue *queue)
{
    g_autofree char *path = g_build_filename(queue->dir, "output-XXXXXX", NULL);

    if (queue->fd >= 0)
        return true;
    queue->fd = g_mkstemp_full(path, O_RDWR | O_CLOEXEC, 0600);
    if (queue->fd >= 0)
        g_unlink(path);
    return queue->fd >= 0;
}

static bool write_all(struct log_queue *queue, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t wrote = TEMP_FAILURE_RETRY(
            pwrite(queue->fd, data + done, size - done, (off_t)(queue->end + done)));

        if (wrote < 0)
            return false;
        done += (size_t)wrote;
    }
    queue->end += size;
    return true;
}

static bool add_to_file(struct log_queue *queue, const char *data, size_t size)
{
    if (!queue->was_said)
        log_warning("the store does not take the output: it waits in %s", queue->dir);
    queue->was_said = true;
    if (open_file(queue) && write_all(queue, data, size))
        return true;
    log_warning("no more output can wait in %s (%s): the commands wait when they write", queue->dir,
                g_strerror(errno));
    queue->is_full = true;
    return false;
}

bool log_queue_add(struct log_queue *queue, const char *data, size_t size)
{
    if (!log_queue_has_room(queue))
        return false;
    if (in_file(queue) || queue->front->len >= MEMORY_MAX)
        return add_to_file(queue, data, size);
    g_byte_array_append(queue->front, (const guint8 *)data, (guint)size);
    return true;
}

static void empty_file(struct log_queue *queue)
{
    queue->begin = queue->end = 0;
    if (ftruncate(queue->fd, 0) != 0)
        log_warning("empty a file in %s: %s", queue->dir, g_strerror(errno));
}

/* The file's first bytes become the front. */
static void take_from_file(struct log_queue *queue)
{
    size_t size = MIN(queue->end - queue->begin, READ_BYTES);
    ssize_t got;

    g_byte_array_set_size(queue->front, (guint)size);
    got = TEMP_FAILURE_RETRY(pread(queue->fd, queue->front->data, size, (off_t)queue->begin));
    g_byte_array_set_size(queue->front, got > 0 ? (guint)got : 0);
    if (got > 0) {
        queue->begin += (uint64_t)got;
        return;
    }
    log_error("output that waited in %s cannot be read: %s", queue->dir, g_strerror(errno));
    queue->lost_bytes += queue->end - queue->begin;
    queue->begin = queue->end;
}

guint8 *log_queue_peek(struct log_queue *queue, size_t max, size_t *size)
{
    *size = MIN(queue->front->len, max);
    return g_memdup2(queue->front->data, *size);
}

void log_queue_drop(struct log_queue *queue, size_t size)
{
    g_byte_array_remove_range(queue->front, 0, (guint)size);
    if (queue->front->len == 0 && in_file(queue))
        take_from_file(queue);
    if (!in_file(queue) && queue->fd >= 0 && queue->end)
        empty_file(queue);
    if (!in_file(queue) && queue->front->len < MEMORY_MAX)
        queue->is_full = false;
}
