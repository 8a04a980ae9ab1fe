/* Waiting for the store with an ear for the caller: a signal ends any wait within 100 ms. */
#include "fusefs/fs_internal.h"

#include <time.h>

#define POLL_MS    100
#define COPIES_MAX 8 /* ranges of one object at a time */

int64_t now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

void timespec_in(struct timespec *until, unsigned ms)
{
    clock_gettime(CLOCK_MONOTONIC, until);
    until->tv_sec += ms / 1000;
    until->tv_nsec += ms % 1000 * 1000000l;
    if (until->tv_nsec >= 1000000000l) {
        until->tv_nsec -= 1000000000l;
        until->tv_sec++;
    }
}

bool is_interrupted(struct fs_caller *caller)
{
    return caller && caller->interrupted && caller->interrupted(caller);
}

bool caller_is_over(void *caller)
{
    return is_interrupted(caller);
}

bool wait_changed(struct inode *inode, unsigned ms)
{
    struct timespec until;

    timespec_in(&until, ms);
    return pthread_cond_timedwait(&inode->changed, &inode->lock, &until) == 0;
}

/* One waiter for one call; the call's `done` may come after the waiter lost its patience, so both
 * hold a reference. */
struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    struct fs *left_to; /* who waited has gone, and the call goes on (late.c) */
    atomic_uint refs;
};

static struct waiter *waiter_new(void)
{
    struct waiter *waiter = g_new0(struct waiter, 1);
    pthread_condattr_t attr;

    pthread_mutex_init(&waiter->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&waiter->cond, &attr);
    pthread_condattr_destroy(&attr);
    atomic_store(&waiter->refs, 2);
    return waiter;
}

static void waiter_unref(struct waiter *waiter)
{
    if (atomic_fetch_sub(&waiter->refs, 1) != 1)
        return;
    pthread_cond_destroy(&waiter->cond);
    pthread_mutex_destroy(&waiter->lock);
    g_free(waiter);
}

static void wake(struct store_call *call, void *user)
{
    struct waiter *waiter = user;

    pthread_mutex_lock(&waiter->lock);
    waiter->done = true;
    pthread_cond_signal(&waiter->cond);
    pthread_mutex_unlock(&waiter->lock);
    if (waiter->left_to)
        late_end(waiter->left_to, call);
    waiter_unref(waiter);
}

struct waiter *start_call(struct fs *fs, struct store_call *call)
{
    struct waiter *waiter = waiter_new();

    store_start(fs->store, call, wake, waiter);
    return waiter;
}

/* Answers come in any order. */
static void note_time(struct fs *fs, int64_t store_ns)
{
    long long latest = atomic_load(&fs->store_ns);

    while (store_ns > latest && !atomic_compare_exchange_weak(&fs->store_ns, &latest, store_ns))
        ;
}

bool maybe_carried_out(int error)
{
    return error == EINTR || error == EIO || error == ETIMEDOUT || error == EHOSTUNREACH;
}

/* Whether a server goes on with CALL for long when nobody waits for its answer. */
static bool goes_on(const struct store_call *call)
{
    return call->verb == STORE_COPY || call->verb == STORE_COMMIT || call->verb == STORE_DELETE;
}

int finish_call(struct fs *fs, struct fs_caller *caller, struct store_call *call,
                struct waiter *waiter)
{
    bool cancelled = false;

    pthread_mutex_lock(&waiter->lock);
    while (!waiter->done) {
        struct timespec until;

        timespec_in(&until, POLL_MS);
        pthread_cond_timedwait(&waiter->cond, &waiter->lock, &until);
        if (!waiter->done && goes_on(call) && is_interrupted(caller)) {
            late_begin(fs, call->key);
            waiter->left_to = fs;
            pthread_mutex_unlock(&waiter->lock);
            waiter_unref(waiter);
            return EINTR;
        }
        if (!waiter->done && !cancelled && is_interrupted(caller)) {
            cancelled = true;
            pthread_mutex_unlock(&waiter->lock);
            store_cancel(fs->store, call);
            pthread_mutex_lock(&waiter->lock);
        }
    }
    pthread_mutex_unlock(&waiter->lock);
    waiter_unref(waiter);
    note_time(fs, call->answered_ns);
    if (cancelled && error_is(call->error, ECANCELED))
        return EINTR;
    return error_errno(call->error);
}

bool call_is_answered(struct fs_caller *caller, struct waiter *waiter, int64_t until_ms)
{
    bool done;

    pthread_mutex_lock(&waiter->lock);
    while (!waiter->done && now_ms() < until_ms && !is_interrupted(caller)) {
        struct timespec until;

        timespec_in(&until, (unsigned)CLAMP(until_ms - now_ms(), 1, POLL_MS));
        pthread_cond_timedwait(&waiter->cond, &waiter->lock, &until);
    }
    done = waiter->done;
    pthread_mutex_unlock(&waiter->lock);
    return done;
}

int run_call(struct fs *fs, struct fs_caller *caller, struct store_call *call)
{
    return finish_call(fs, caller, call, start_call(fs, call));
}

/* Ranges of a source on their way into an upload, the oldest first. */
struct range_copy {
    struct store_call *call;
    struct waiter *waiter;
};

static int wait_range(struct fs *fs, struct fs_caller *caller, GQueue *sending,
                      struct store_call *commit)
{
    g_autofree struct range_copy *range = g_queue_pop_head(sending);
    int error = finish_call(fs, caller, range->call, range->waiter);

    if (!error)
        store_call_add_part(commit, range->call->part_number, range->call->part_etag);
    store_call_unref(range->call);
    return error;
}

static int copy_ranges(struct fs *fs, struct fs_caller *caller, const char *from, uint64_t size,
                       const char *etag, struct store_call *commit)
{
    uint64_t offset = 0;
    GQueue sending = G_QUEUE_INIT;
    int error = 0;

    for (unsigned number = 1; !error && offset < size; number++) {
        struct range_copy *range = g_new0(struct range_copy, 1);
        struct store_call *part = store_call_new(STORE_COPY_PART, commit->key);

        part->upload_id = g_strdup(commit->upload_id);
        part->part_number = number;
        part->source_key = g_strdup(from);
        part->if_match = g_strdup(etag);
        part->offset = offset;
        part->length = copied_part_bytes(fs, size, size - offset);
        offset += part->length;
        range->call = part;
        range->waiter = start_call(fs, part);
        g_queue_push_tail(&sending, range);
        if (sending.length >= COPIES_MAX)
            error = wait_range(fs, caller, &sending, commit);
    }
    while (sending.length) {
        int late = wait_range(fs, caller, &sending, commit);

        error = error ? error : late;
    }
    return error;
}

/* A copy that one request cannot do: an upload made of ranges of the source. */
static int copy_in_parts(struct fs *fs, struct fs_caller *caller, const char *from, const char *to,
                         uint64_t size, const char *etag, GHashTable *metadata, char **new_etag)
{
    g_autoptr(StoreCall) begin = store_call_new(STORE_BEGIN, to);
    g_autoptr(StoreCall) commit = NULL;
    int error;

    begin->metadata = metadata_copy(metadata);
    error = run_call(fs, caller, begin);
    upload_begun(fs, begin);
    if (error)
        return error;
    commit = store_call_commit(to, begin->upload_id);
    error = copy_ranges(fs, caller, from, size, etag, commit);
    if (error) {
        upload_abort(fs, to, begin->upload_id);
        return error;
    }
    /* Not aborted when the commit may go on: the object would lose its parts. */
    error = run_call(fs, caller, commit);
    if (!error && new_etag)
        *new_etag = g_strdup(commit->object.etag);
    if (!error)
        upload_forget(fs, to, begin->upload_id);
    else if (!maybe_carried_out(error))
        upload_abort(fs, to, begin->upload_id);
    return error;
}

/* The metadata that a copy keeps, where it is not one request that keeps them by itself. */
static int source_metadata(struct fs *fs, struct fs_caller *caller, const char *from,
                           GHashTable **metadata)
{
    g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, from);
    int error = run_call(fs, caller, head);

    *metadata = error ? NULL : metadata_copy(head->object.metadata);
    return error;
}

int object_copy(struct fs *fs, struct fs_caller *caller, const char *from, const char *to,
                uint64_t size, const char *etag, GHashTable *metadata, char **new_etag)
{
    g_autoptr(StoreCall) call = NULL;
    int error;

    if (size > store_caps(fs->store)->max_copy_bytes) {
        g_autoptr(GHashTable) own = NULL;

        error = metadata ? 0 : source_metadata(fs, caller, from, &own);
        return error ? error
                     : copy_in_parts(fs, caller, from, to, size, etag, metadata ? metadata : own,
                                     new_etag);
    }
    call = store_call_new(STORE_COPY, to);
    call->source_key = g_strdup(from);
    call->if_match = g_strdup(etag);
    if (metadata)
        call->metadata = metadata_copy(metadata);
    error = run_call(fs, caller, call);
    if (error && error != EINTR)
        complain(fs, from, "copy %s to %s: %s", from, to, call->error->message);
    else if (!error && new_etag)
        *new_etag = g_strdup(call->object.etag);
    return error;
}

/* Waits for the gate to change. gate_lock held. */
static int wait_gate(struct fs *fs, struct fs_caller *caller)
{
    struct timespec until;

    timespec_in(&until, POLL_MS);
    pthread_cond_timedwait(&fs->gate_changed, &fs->gate_lock, &until);
    return is_interrupted(caller) ? EINTR : 0;
}

int gate_enter(struct fs *fs, struct fs_caller *caller)
{
    int error = 0;

    pthread_mutex_lock(&fs->gate_lock);
    while (!error && fs->gate_closed)
        error = wait_gate(fs, caller);
    if (!error)
        fs->gate_users++;
    pthread_mutex_unlock(&fs->gate_lock);
    return error;
}

void gate_leave(struct fs *fs)
{
    pthread_mutex_lock(&fs->gate_lock);
    fs->gate_users--;
    pthread_cond_broadcast(&fs->gate_changed);
    pthread_mutex_unlock(&fs->gate_lock);
}

int gate_close(struct fs *fs, struct fs_caller *caller)
{
    int error = 0;

    pthread_mutex_lock(&fs->gate_lock);
    while (!error && fs->gate_closed)
        error = wait_gate(fs, caller);
    if (!error) {
        fs->gate_closed = true;
        while (!error && fs->gate_users)
            error = wait_gate(fs, caller);
        fs->gate_closed = !error;
        pthread_cond_broadcast(&fs->gate_changed);
    }
    pthread_mutex_unlock(&fs->gate_lock);
    return error;
}

bool gate_is_open(struct fs *fs)
{
    bool open;

    pthread_mutex_lock(&fs->gate_lock);
    open = !fs->gate_closed;
    pthread_mutex_unlock(&fs->gate_lock);
    return open;
}

void gate_open(struct fs *fs)
{
    pthread_mutex_lock(&fs->gate_lock);
    fs->gate_closed = false;
    pthread_cond_broadcast(&fs->gate_changed);
    pthread_mutex_unlock(&fs->gate_lock);
}
