/* A run's output as log segments: objects logs/REPO/RUN/NNNNNNNN, plain bytes, in order.
 *
 * shape:   a segment is written at most every 500 ms, when there is something, or at 1 MiB. One
 * that is there is never written over: its number is taken, and the next ones are tried. threads: a
 * writer has one thread of its own that talks to the store; log_writer_add may be called from any
 * thread. What the store does not take waits in memory and then on disk (log_queue.h);
 * log_writer_add waits when neither has room, so output is never dropped. limits:  without
 * has_put_if_absent it is looked for just before it is written.
 */
#pragma once

#include "storage/store.h"

struct log_writer;

/* What stands for RUN where its rank RANK writes: "RUN", or "RUN/rank-R". The caller's. */
char *log_place(const char *run, unsigned rank);

/* Whether the run is still the caller's to write. False and ECANCELED: it never will be again;
 * another error: that is not known now. Called from the writer's thread. */
typedef bool log_may_write(void *user, GError **error);

struct log_options {
    const char *dir; /* where output waits that the store does not take; NULL: memory alone */
    log_may_write *may_write; /* asked before each segment; NULL: always */
    void *user;
};

/* Goes on behind the segments that are there already. OPTIONS may be NULL. */
struct log_writer *log_writer_open(struct store *root, const char *repo, const char *run,
                                   const struct log_options *options, GError **error);
void log_writer_add(struct log_writer *writer, const char *data, size_t size);

/* Whether log_writer_add would not wait. */
bool log_writer_has_room(struct log_writer *writer);

/* Saves what is left, until nothing could be saved for TIMEOUT_MS. False and *ERROR: the rest is in
 * the file KEEP (may be NULL), or lost. Frees the writer in either case. */
bool log_writer_close(struct log_writer *writer, unsigned timeout_ms, const char *keep,
                      GError **error);

typedef bool log_each(const char *data, size_t size, void *user, GError **error);

/* Who follows a run may see its transfers too; a LABEL of NULL: output comes, the last one is over.
 */
struct transfer_progress;
struct log_watcher {
    void (*progress)(const char *label, const struct transfer_progress *now, void *user);
    void *user;
};

struct log_reader {
    struct store *root;
    char *repo, *run;
    uint64_t next; /* the segment to read next */
    bool inside;   /* a line may have begun in the segment before: it is shown whole */
    struct log_watcher watcher;
    bool progress_shown;
    unsigned pause_ms; /* between two looks that found nothing: adapts to the store's latency */
    int64_t ask_us;    /* when the run's engine may be asked again */
    unsigned rank;
    bool until_idle; /* following ends, too, when nobody will start an interrupted run again */
};

/* RANK: whose output, of a run on several nodes. SINCE_MS (0: all) skips segments that were written
 * before, but not the beginning of a line. */
bool log_reader_init(struct log_reader *reader, struct store *root, const char *repo,
                     const char *run, unsigned rank, int64_t since_ms, GError **error);
void log_reader_clear(struct log_reader *reader);

/* Hands over every segment that is there and not yet read. COUNT (may be NULL): how many. */
bool log_reader_poll(struct log_reader *reader, log_each *each, void *user, unsigned *count,
                     GError **error);

/* Reads on until the run is finished and everything is read, or *STOP (may be NULL) is not 0
 * (ECANCELED). FINAL (may be NULL) is the run as it ended; the caller's. */
struct run;
bool log_reader_follow(struct log_reader *reader, log_each *each, void *user, const int *stop,
                       struct run **final, GError **error);
