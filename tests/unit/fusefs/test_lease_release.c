/* A lease given back while the store is hard to hear: the next mount's is not hit. */
#include "tests/unit/fusefs/fixture.h"

#include "config/error.h"
#include "fusefs/lease.h"
#include "fusefs/staged.h"
#include "storage/pool.h"
#include "storage/store_driver.h"
#include "tests/support/call_copy.h"

#include <pthread.h>
#include <stdatomic.h>

#define TTL_MS     1000
#define SILENCE_MS 400   /* then a call is sent again; longer than a beat, as it is with S3 */
#define LONGEST_MS 60000 /* of a call that says nothing of it */

/* --- a layer over a store that is hard to hear: it sends again what was not answered --- */

enum hearing {
    WELL,
    NO_ANSWER_TO_DELETE, /* to the first one, which is carried out */
    NO_DELETE,           /* none gets through */
    NOTHING,
};

static struct deaf_store {
    struct store base;
    struct store *below;
    struct pool *pool;
    _Atomic enum hearing hearing;
} * deaf;

static bool is_deaf_to(const struct store_call *call)
{
    enum hearing hearing = atomic_load(&deaf->hearing);

    return hearing == NOTHING || (hearing != WELL && call->verb == STORE_DELETE);
}

static void send_below(struct store_call *call, GError **error)
{
    g_autoptr(StoreCall) copy = call_copy_request(call);

    if (store_run(deaf->below, copy, error))
        call_move_answer(call, copy);
}

static void run_deaf(void *data)
{
    struct store_call *call = data;
    unsigned left_ms = call->deadline_ms ? call->deadline_ms : LONGEST_MS;
    GError *error = NULL;

    while (left_ms && is_deaf_to(call)) {
        if (atomic_load(&deaf->hearing) == NO_ANSWER_TO_DELETE) {
            send_below(call, NULL);
            atomic_store(&deaf->hearing, WELL);
        }
        g_usleep(MIN(left_ms, SILENCE_MS) * 1000);
        left_ms -= MIN(left_ms, SILENCE_MS);
    }
    if (left_ms)
        send_below(call, &error);
    else
        error_set(&error, ETIMEDOUT, "%s: no answer", call->key);
    store_complete(call, error);
}

static void deaf_start(struct store *base, struct store_call *call)
{
    pool_add(deaf->pool, run_deaf, call);
}

static void deaf_cancel(struct store *base, struct store_call *call)
{
}

static void deaf_free(struct store *base)
{
    pool_free(deaf->pool);
    store_unref(deaf->below);
    g_free(deaf);
}

static const struct store_driver deaf_driver = {
    .name = "deaf",
    .start = deaf_start,
    .cancel = deaf_cancel,
    .free = deaf_free,
};

static void set_up_deaf(void)
{
    store = memory_store_new();
    deaf = g_new0(struct deaf_store, 1);
    deaf->below = store_ref(store);
    deaf->pool = pool_new(4, NULL);
    deaf->base.caps = *store_caps(store);
    store_init(&deaf->base, &deaf_driver, store_url(store));
}

static void tear_down_deaf(void)
{
    store_unref(&deaf->base);
    store_unref(store);
}

TestSuite(lease_release, .init = set_up_deaf, .fini = tear_down_deaf, .timeout = 60);

/* --- the tests --- */

static struct lease *take(struct store *from, bool exclusive)
{
    struct lease_options options = {.exclusive = exclusive, .ttl_ms = TTL_MS};
    g_autoptr(LeaseRecord) previous = NULL;

    return lease_acquire(from, &options, &previous, NULL);
}

static bool is_there(void)
{
    bool has = false;

    cr_assert(store_has(store, LEASE_KEY, &has, NULL));
    return has;
}

static void wait_for_delete(void)
{
    while (atomic_load(&deaf->hearing) != WELL)
        g_usleep(1000);
}

static void *release(void *lease)
{
    lease_release(lease);
    return NULL;
}

/* The next mount's lease, taken while the release of the one before goes on. */
static void must_stay(struct lease *next, pthread_t releasing)
{
    cr_assert_not_null(next);
    pthread_join(releasing, NULL);
    cr_assert(is_there());
    g_usleep(TTL_MS * 1000); /* four beats */
    cr_assert(lease_is_held(next));
    lease_settle(next);
    lease_release(next);
    cr_assert_not(is_there());
}

Test(lease_release, whose_answer_is_lost_does_not_hit_who_comes_next)
{
    struct lease *lease = take(&deaf->base, true);
    pthread_t thread;

    cr_assert_not_null(lease);
    atomic_store(&deaf->hearing, NO_ANSWER_TO_DELETE);
    pthread_create(&thread, NULL, release, lease);
    wait_for_delete();
    must_stay(take(store, true), thread);
}

/* The network is back when the lease has lapsed, and another mount of it has begun. */
Test(lease_release, that_gets_through_too_late_does_not_hit_who_comes_next)
{
    struct lease *lease = take(&deaf->base, true), *next;
    pthread_t thread;

    cr_assert_not_null(lease);
    atomic_store(&deaf->hearing, NO_DELETE);
    pthread_create(&thread, NULL, release, lease);
    next = take(store, true);
    atomic_store(&deaf->hearing, WELL);
    must_stay(next, thread);
}

/* Its clock slept as well: by that, the lease is surely its own. */
Test(lease_release, of_a_machine_that_slept_does_not_hit_who_came_meanwhile)
{
    struct lease *lease = take(store, true);
    g_autoptr(LeaseRecord) theirs = lease_record_new(60000);
    g_autofree char *text = lease_record_format(theirs);

    cr_assert_not_null(lease);
    cr_assert(store_write(store, LEASE_KEY, text, strlen(text), NULL, NULL, NULL));
    lease_release(lease);
    cr_assert(is_there());
}

Test(lease_release, deletes_what_a_beat_wrote_unheard)
{
    struct lease *lease = take(store, true);
    g_autoptr(LeaseRecord) record = NULL;
    g_autofree char *text = NULL, *next = NULL;
    size_t size;

    cr_assert_not_null(lease);
    cr_assert(store_read(store, LEASE_KEY, LEASE_RECORD_MAX, &text, &size, NULL, NULL));
    record = lease_record_parse(text, size, NULL);
    record->beats++;
    next = lease_record_format(record);
    cr_assert(store_write(store, LEASE_KEY, next, strlen(next), NULL, NULL, NULL));
    lease_release(lease);
    cr_assert_not(is_there());
}

Test(lease_release, does_not_wait_for_a_store_that_is_silent)
{
    struct lease *lease = take(&deaf->base, true);
    int64_t began = g_get_monotonic_time();

    cr_assert_not_null(lease);
    atomic_store(&deaf->hearing, NOTHING);
    lease_release(lease);
    cr_assert_lt(g_get_monotonic_time() - began, TTL_MS * 1000);
    cr_assert(is_there());
}

static void *take_in_vain(void *user)
{
    return take(&deaf->base, true);
}

/* Refused, since somebody shares the prefix, it gives back what it had taken. */
Test(lease_release, of_who_was_refused_does_not_hit_who_comes_next)
{
    struct lease *sharing = take(store, false);
    pthread_t thread;

    cr_assert_not_null(sharing);
    atomic_store(&deaf->hearing, NO_ANSWER_TO_DELETE);
    pthread_create(&thread, NULL, take_in_vain, NULL);
    wait_for_delete();
    lease_release(sharing);
    must_stay(take(store, true), thread);
}
