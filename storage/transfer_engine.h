/* What upload, download and copy share: calls in flight within bounds, the first error, progress.
 *
 * threads: everything runs on the calling thread; completions of calls are queued by the store's
 *          threads and handled in transfer_step. A `finished` handler may start further calls but
 *          never waits (transfer_room, transfer_step).
 */
#pragma once

#include "storage/transfer.h"

#include <pthread.h>

#define TRANSFER_PART_BYTES (16u << 20) /* larger files travel in parts */

struct transfer {
    const struct transfer_options *options;
    struct transfer_progress progress;
    struct transfer_result result;
    GError *error;   /* the first one that ends it */
    GError *skipped; /* the first of a single file's, which do not */
    unsigned parallel, in_flight;
    uint64_t memory_bytes, memory_used;
    int64_t next_progress_us;
    GHashTable *running; /* of struct transfer_task */
    bool cancelled;
    bool counted; /* the totals are known already */

    pthread_mutex_t lock;
    /* Guarded by lock: */
    pthread_cond_t changed;
    GQueue done; /* of struct transfer_task */
};

struct transfer_task {
    struct transfer *transfer;
    struct store *store;
    struct store_call *call;
    void *buffer; /* the call's body or destination; a handler may take it (set to NULL) */
    uint64_t bytes;
    void (*finished)(struct transfer_task *task, void *user);
    void *user;
};
typedef void transfer_finished(struct transfer_task *task, void *user);

void transfer_init(struct transfer *transfer, const struct transfer_options *options,
                   unsigned parallel);

/* Waits for what is in flight, then reports and clears. RESULT may be NULL. */
bool transfer_end(struct transfer *transfer, struct transfer_result *result, GError **error);

/* The first error stays; takes ERROR over. */
void transfer_fail(struct transfer *transfer, GError *error);
void transfer_fail_call(struct transfer *transfer, const struct transfer_task *task,
                        const char *verb, const char *name);

/* One file cannot be read: the others are transferred, and the whole fails in the end. Takes ERROR
 * over. */
void transfer_skip(struct transfer *transfer, GError *error);

/* Whether new work may still start. */
bool transfer_goes_on(struct transfer *transfer);

/* Waits until one more call with BYTES of memory may start; false: the transfer is over. */
bool transfer_room(struct transfer *transfer, uint64_t bytes);

/* Starts CALL (taken over) with BUFFER (taken over, may be NULL). */
void transfer_start(struct transfer *transfer, struct store *store, struct store_call *call,
                    void *buffer, uint64_t bytes, transfer_finished *finished, void *user);

/* Handles one completion, waiting for it; false when nothing is in flight. */
bool transfer_step(struct transfer *transfer);

/* For who watches the progress: the totals of a listing, before anything moves. */
void transfer_count_list(struct transfer *transfer, struct store *store, const char *prefix);

/* One more file of the totals, unless they are known. */
void transfer_found(struct transfer *transfer, uint64_t bytes);

void transfer_file_done(struct transfer *transfer);
void transfer_file_skipped(struct transfer *transfer, uint64_t bytes);
void transfer_bytes_done(struct transfer *transfer, uint64_t bytes);
void *transfer_buffer(struct transfer *transfer, size_t size, const char *name);

/* --- an object that goes up in parts (transfer_multipart.c) --- */
struct multipart {
    struct transfer *transfer;
    struct store *store;
    char *key;
    char *upload_id;
    uint64_t size_bytes, part_bytes;
    GPtrArray *etags; /* char*, NULL while a part is on its way */
    unsigned pending;
    bool begun, ended, failed;
};

/* Waits for the upload's beginning; NULL when that failed. Works in the caller's loop: each part is
 * started with transfer_start and reported with multipart_part_done; then multipart_end. */
struct multipart *multipart_begin(struct transfer *transfer, struct store *store, const char *key,
                                  GHashTable *metadata, uint64_t size_bytes);
unsigned multipart_parts(const struct multipart *multipart);
uint64_t multipart_part_size(const struct multipart *multipart, unsigned index);
void multipart_part_started(struct multipart *multipart);
/* ETAG NULL: failed. May free MULTIPART. */
void multipart_part_done(struct multipart *multipart, unsigned number, const char *etag);
void multipart_fail(struct multipart *multipart);
/* No more parts will start: commits when the last one is done, or aborts. */
void multipart_end(struct multipart *multipart);
/* A transfer_finished for STORE_PART and STORE_COPY_PART; USER is the multipart. */
void multipart_part_finished(struct transfer_task *task, void *user);
