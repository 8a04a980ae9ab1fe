#include "tests/support/faulty_store.h"

#include "config/error.h"
#include "storage/pool.h"
#include "storage/store_driver.h"
#include "tests/support/call_copy.h"

#include <pthread.h>

#define THREADS 32 /* the calls that can wait at once */

struct faulty_store {
    struct store base;
    struct store *below;
    struct pool *pool;

    pthread_mutex_t lock;
    /* Guarded by lock: */
    enum store_verb verb;
    unsigned first, last; /* of the calls that fail */
    int code;
    bool lands; /* it is carried out all the same */
    unsigned delay_ms, answer_delay_ms, matched, in_flight, most_in_flight;
    unsigned calls[STORE_VERBS + 1];
    uint64_t received_bytes;
};

struct faulty_job {
    struct faulty_store *store;
    struct store_call *call;
    bool fails, lands;
    int code;
    unsigned delay_ms, answer_delay_ms;
};

static void run_job(void *data)
{
    g_autofree struct faulty_job *job = data;
    struct faulty_store *store = job->store;
    GError *error = NULL;

    g_usleep(job->delay_ms * 1000);
    if (!job->fails || job->lands) {
        g_autoptr(StoreCall) copy = call_copy_request(job->call);

        store_run(store->below, copy, job->fails ? NULL : &error);
        if (!job->fails)
            call_move_answer(job->call, copy);
    }
    if (job->fails)
        error_set(&error, job->code, "%s: injected", job->call->key);
    g_usleep(job->answer_delay_ms * 1000);
    pthread_mutex_lock(&store->lock);
    store->received_bytes += job->call->received_bytes;
    store->in_flight--;
    pthread_mutex_unlock(&store->lock);
    store_complete(job->call, error);
}

static void faulty_start(struct store *base, struct store_call *call)
{
    struct faulty_store *store = (struct faulty_store *)base;
    struct faulty_job *job = g_new0(struct faulty_job, 1);

    job->store = store;
    job->call = call;
    pthread_mutex_lock(&store->lock);
    store->calls[call->verb]++;
    store->calls[STORE_VERBS]++;
    if (store->verb == STORE_VERBS || store->verb == call->verb) {
        store->matched++;
        job->fails = store->matched >= store->first && store->matched <= store->last;
    }
    job->code = store->code;
    job->lands = store->lands;
    job->delay_ms = store->delay_ms;
    job->answer_delay_ms = store->answer_delay_ms;
    store->in_flight++;
    store->most_in_flight = MAX(store->most_in_flight, store->in_flight);
    pthread_mutex_unlock(&store->lock);
    pool_add(store->pool, run_job, job);
}

static void faulty_cancel(struct store *base, struct store_call *call)
{
}

static void faulty_free(struct store *base)
{
    struct faulty_store *store = (struct faulty_store *)base;

    pool_free(store->pool);
    store_unref(store->below);
    pthread_mutex_destroy(&store->lock);
    g_free(store);
}

static const struct store_driver faulty_driver = {
    .name = "faulty",
    .start = faulty_start,
    .cancel = faulty_cancel,
    .free = faulty_free,
};

struct store *faulty_store_new(struct store *below)
{
    struct faulty_store *store = g_new0(struct faulty_store, 1);

    store->below = store_ref(below);
    store->pool = pool_new(THREADS, NULL);
    g_assert(store->pool);
    pthread_mutex_init(&store->lock, NULL);
    store->base.caps = *store_caps(below);
    store_init(&store->base, &faulty_driver, store_url(below));
    return &store->base;
}

static void set_rule(struct store *base, enum store_verb verb, unsigned n, unsigned count, int code,
                     bool lands)
{
    struct faulty_store *store = (struct faulty_store *)base;

    pthread_mutex_lock(&store->lock);
    store->lands = lands;
    store->verb = verb;
    store->matched = 0;
    store->first = n;
    store->last = count ? n + count - 1 : 0;
    store->code = code;
    pthread_mutex_unlock(&store->lock);
}

void faulty_store_fail(struct store *base, enum store_verb verb, unsigned n, unsigned count,
                       int code)
{
    set_rule(base, verb, n, count, code, false);
}

void faulty_store_lose(struct store *base, enum store_verb verb, unsigned n, unsigned count,
                       int code)
{
    set_rule(base, verb, n, count, code, true);
}

void faulty_store_delay(struct store *base, unsigned delay_ms)
{
    struct faulty_store *store = (struct faulty_store *)base;

    pthread_mutex_lock(&store->lock);
    store->delay_ms = delay_ms;
    pthread_mutex_unlock(&store->lock);
}

void faulty_store_delay_answers(struct store *base, unsigned delay_ms)
{
    struct faulty_store *store = (struct faulty_store *)base;

    pthread_mutex_lock(&store->lock);
    store->answer_delay_ms = delay_ms;
    pthread_mutex_unlock(&store->lock);
}

unsigned faulty_store_calls(struct store *base, enum store_verb verb)
{
    struct faulty_store *store = (struct faulty_store *)base;
    unsigned calls;

    pthread_mutex_lock(&store->lock);
    calls = store->calls[verb];
    pthread_mutex_unlock(&store->lock);
    return calls;
}

uint64_t faulty_store_received(struct store *base)
{
    struct faulty_store *store = (struct faulty_store *)base;
    uint64_t bytes;

    pthread_mutex_lock(&store->lock);
    bytes = store->received_bytes;
    pthread_mutex_unlock(&store->lock);
    return bytes;
}

unsigned faulty_store_most_in_flight(struct store *base)
{
    struct faulty_store *store = (struct faulty_store *)base;
    unsigned most;

    pthread_mutex_lock(&store->lock);
    most = store->most_in_flight;
    pthread_mutex_unlock(&store->lock);
    return most;
}
