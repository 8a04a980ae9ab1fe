/* Output that waits for the store: the first 8 MiB in memory, what comes then in a file.
 *
 * shape:   first in, first out. The file has no name, so that nothing of it stays behind; it is in
 *          the run's work directory, and its room is given back when all of it has gone.
 * errors:  a disk that takes no more leaves no room until the file is empty again; what the disk
 *          gives back no more is lost, and counted.
 * threads: none of its own; the caller's lock guards it.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct log_queue {
    GByteArray *front;   /* the oldest */
    char *dir;           /* of the file; NULL: memory alone */
    int fd;              /* -1: none yet */
    uint64_t begin, end; /* of what waits in the file, behind the front */
    uint64_t lost_bytes;
    bool is_full, was_said;
};

void log_queue_init(struct log_queue *queue, const char *dir);
void log_queue_clear(struct log_queue *queue);
uint64_t log_queue_bytes(const struct log_queue *queue);

/* False: there is no room now. */
bool log_queue_add(struct log_queue *queue, const char *data, size_t size);
bool log_queue_has_room(const struct log_queue *queue);

/* The first MAX bytes, or all there are; the caller's. They stay until they are dropped. */
guint8 *log_queue_peek(struct log_queue *queue, size_t max, size_t *size);
void log_queue_drop(struct log_queue *queue, size_t size);
