#include "fusefs/lease_internal.h"

#include "config/error.h"
#include "config/log.h"
#include "fusefs/staged.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define TTL_MS      20000
#define COALESCE_MS 50
#define ASK_MS      100
#define UNHEARD_MS  5000 /* with nothing left to save, an end waits no longer for a store */

static int64_t now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

/* --- writing it --- */

static void note_lost(struct lease *lease)
{
    pthread_mutex_lock(&lease->lock);
    if (!lease->lost)
        log_error("the lease of %s was taken over by another mount: nothing is written any more",
                  store_url(lease->store));
    lease->lost = true;
    pthread_mutex_unlock(&lease->lock);
}

char *lease_next_body(struct lease *lease)
{
    char *body;

    pthread_mutex_lock(&lease->lock);
    lease->record->beats++;
    lease->hurry = lease->awaited = false;
    body = lease_record_format(lease->record);
    pthread_mutex_unlock(&lease->lock);
    return body;
}

bool lease_put(struct lease *lease, const char *body, const char *condition, unsigned deadline_ms,
               char **etag, GError **error)
{
    g_autoptr(StoreCall) call = store_call_put(lease->key, body, strlen(body));

    call->if_absent = condition && !*condition;
    call->if_match = condition && *condition ? g_strdup(condition) : NULL;
    call->deadline_ms = deadline_ms;
    if (!store_run(lease->store, call, error))
        return false;
    *etag = g_strdup(call->object.etag);
    return true;
}

/* What is there may be a beat of ours whose answer was lost; then *ETAG is its. *ERROR is ESTALE
 * only if it is somebody else's. */
static bool find_own(struct lease *lease, char **etag, GError **error)
{
    g_autoptr(LeaseRecord) found = NULL;
    g_autofree char *text = NULL;
    size_t size;

    if (!store_read(lease->store, lease->key, LEASE_RECORD_MAX, &text, &size, etag, error))
        return false;
    found = lease_record_parse(text, size, NULL);
    return (found && strcmp(found->owner, lease->record->owner) == 0) ||
           error_set(error, ESTALE, "%s is another mount's now", lease->key);
}

static bool put_next(struct lease *lease, const char *body, char **etag, GError **error)
{
    return lease_put(lease, body, lease->exclusive ? lease->etag : NULL,
                     lease->ttl_ms / BEATS_PER_TTL, etag, error);
}

/* Rewrites the object. beat_lock held, across the store's answer: it guards nothing else, and who
 * waits for it waits for that answer. */
static bool beat_locked(struct lease *lease, GError **error)
{
    g_autofree char *body = lease_next_body(lease);
    int64_t began = now_ms();
    g_autoptr(GError) why = NULL;
    char *etag = NULL;
    bool ok;

    if (!body)
        return error_set(error, ENOMEM, "no memory for the lease");
    ok = put_next(lease, body, &etag, &why);
    if (!ok && lease->exclusive && error_is(why, ESTALE)) {
        g_autofree char *theirs = NULL;

        g_clear_error(&why);
        if (find_own(lease, &theirs, &why)) {
            g_free(lease->etag);
            lease->etag = g_steal_pointer(&theirs);
            ok = put_next(lease, body, &etag, &why);
        }
    }
    if (!ok) {
        if (lease->exclusive && (error_is(why, ESTALE) || error_is(why, ENOENT)))
            note_lost(lease);
        g_propagate_prefixed_error(error, g_steal_pointer(&why), "lease: ");
        return false;
    }
    g_free(lease->etag);
    lease->etag = etag;
    pthread_mutex_lock(&lease->lock);
    lease->sure_until_ms = began + lease->ttl_ms;
    lease->written_beat = lease->record->beats; /* bodies are made with beat_lock held */
    pthread_mutex_unlock(&lease->lock);
    return true;
}

bool lease_beat(struct lease *lease, GError **error)
{
    bool ok;

    if (!lease_is_held(lease))
        return error_set(error, ESTALE, "the lease was taken over by another mount");
    pthread_mutex_lock(&lease->beat_lock);
    ok = beat_locked(lease, error);
    pthread_mutex_unlock(&lease->beat_lock);
    return ok;
}

static void wait_until(struct lease *lease, int64_t until_ms)
{
    struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};

    pthread_cond_timedwait(&lease->changed, &lease->lock, &until);
}

/* Sleeps until the next beat is due; false: stop. */
static bool wait_beat(struct lease *lease, int64_t due_ms)
{
    bool go_on;

    pthread_mutex_lock(&lease->lock);
    while (!lease->stopping && !lease->lost && !lease->awaited && now_ms() < due_ms) {
        if (lease->hurry)
            due_ms = MIN(due_ms, now_ms() + COALESCE_MS);
        wait_until(lease, due_ms);
    }
    go_on = !lease->stopping && !lease->lost;
    lease->begun += go_on;
    pthread_mutex_unlock(&lease->lock);
    return go_on;
}

static void note_ended(struct lease *lease, int error)
{
    pthread_mutex_lock(&lease->lock);
    lease->ended++;
    lease->error = error;
    pthread_cond_broadcast(&lease->changed);
    pthread_mutex_unlock(&lease->lock);
}

/* A beat that fails is no news while others may follow in time: half of its life is over. */
static bool is_at_risk(struct lease *lease)
{
    bool at_risk;

    pthread_mutex_lock(&lease->lock);
    at_risk = !lease->lost && now_ms() + lease->ttl_ms / 2 >= lease->sure_until_ms;
    pthread_mutex_unlock(&lease->lock);
    return at_risk;
}

static void *beat_main(void *user)
{
    struct lease *lease = user;
    int64_t period_ms = lease->ttl_ms / BEATS_PER_TTL;
    bool complained = false;

    while (wait_beat(lease, now_ms() + period_ms)) {
        g_autoptr(GError) error = NULL;
        bool ok = lease_beat(lease, &error);

        note_ended(lease, ok ? 0 : error_errno(error));
        if (!ok && !complained && is_at_risk(lease)) {
            log_warning("%s", error->message);
            complained = true;
        }
        complained = complained && !ok;
    }
    return NULL;
}

static void lease_free(struct lease *lease)
{
    lease_record_free(lease->record);
    store_unref(lease->store);
    g_free(lease->key);
    g_free(lease->etag);
    pthread_cond_destroy(&lease->changed);
    pthread_mutex_destroy(&lease->lock);
    pthread_mutex_destroy(&lease->beat_lock);
    g_free(lease);
}

static struct lease *lease_new(struct store *store, const struct lease_options *options)
{
    struct lease *lease = g_new0(struct lease, 1);
    pthread_condattr_t attr;

    lease->store = store_ref(store);
    lease->exclusive = options->exclusive;
    lease->record = lease_record_new(options->ttl_ms ? options->ttl_ms : TTL_MS);
    lease->ttl_ms = lease->record->ttl_ms;
    lease->key = options->exclusive ? g_strdup(LEASE_KEY)
                                    : g_strconcat(WRITERS_PREFIX, lease->record->owner, NULL);
    pthread_mutex_init(&lease->beat_lock, NULL);
    pthread_mutex_init(&lease->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&lease->changed, &attr);
    pthread_condattr_destroy(&attr);
    return lease;
}

struct lease *lease_acquire(struct store *store, const struct lease_options *options,
                            struct lease_record **previous, GError **error)
{
    struct lease *lease = lease_new(store, options);
    sigset_t all, before;
    int code;

    *previous = NULL;
    if (!lease_take(lease, options, previous, error)) {
        g_clear_pointer(previous, lease_record_free);
        lease_free(lease);
        return NULL;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(&lease->thread, NULL, beat_main, lease);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code == 0)
        return lease;
    error_set_errno(error, code, "start a thread");
    g_clear_pointer(previous, lease_record_free);
    lease_free(lease);
    return NULL;
}

static void stop_beating(struct lease *lease)
{
    pthread_mutex_lock(&lease->lock);
    lease->stopping = true;
    pthread_cond_broadcast(&lease->changed);
    pthread_mutex_unlock(&lease->lock);
    pthread_join(lease->thread, NULL);
}

void lease_abandon(struct lease *lease)
{
    g_autoptr(GError) error = NULL;

    if (!lease)
        return;
    stop_beating(lease);
    if (!lease_beat(lease, &error)) /* with all that is under way */
        log_info("the lease stays as it was: %s", error->message);
    lease_free(lease);
}

static bool is_settled(struct lease *lease)
{
    bool settled;

    pthread_mutex_lock(&lease->lock);
    settled = lease_record_is_settled(lease->record);
    pthread_mutex_unlock(&lease->lock);
    return settled;
}

/* What lease_assure asks for. lock held. */
static bool is_sure(const struct lease *lease)
{
    return lease->written_beat >= lease->owed_beat &&
           (!lease->exclusive ||
            (!lease->lost && now_ms() + lease->ttl_ms / BEATS_PER_TTL < lease->sure_until_ms));
}

static bool is_sure_now(struct lease *lease)
{
    bool sure;

    pthread_mutex_lock(&lease->lock);
    sure = is_sure(lease);
    pthread_mutex_unlock(&lease->lock);
    return sure;
}

/* --- giving it back --- */

/* So long that nobody can have taken it before the end. */
static unsigned last_ms(const struct lease *lease)
{
    return MIN(lease->ttl_ms / BEATS_PER_TTL, UNHEARD_MS);
}

/* Whether what is there is our last body; ESTALE: it is another one. The clock says nothing of the
 * time that this machine was asleep. Without beats. */
static bool is_as_written(struct lease *lease, GError **error)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_HEAD, lease->key);

    call->deadline_ms = last_ms(lease);
    return store_run(lease->store, call, error) &&
           (g_strcmp0(call->object.etag, lease->etag) == 0 ||
            error_set(error, ESTALE, "%s has changed", lease->key));
}

/* Whether it is ours for as long as a DELETE may take. */
static bool is_ours_to_delete(struct lease *lease, GError **error)
{
    g_autoptr(GError) why = NULL;
    bool same = !lease->exclusive || is_as_written(lease, &why);

    if (same && is_sure_now(lease))
        return true;
    if (same || error_is(why, ESTALE)) /* a beat of ours, maybe, whose answer was lost */
        return lease_beat(lease, error);
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

/* A DELETE takes no condition, and once it is carried out the key is free: one that is sent again,
 * or late, would hit the next mount's lease. Rather than that, ours is left to lapse. */
void lease_give_back(struct lease *lease)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_DELETE, lease->key);
    g_autoptr(GError) error = NULL;

    call->deadline_ms = lease->exclusive ? last_ms(lease) : 0;
    call->once = lease->exclusive;
    if (!is_ours_to_delete(lease, &error) || !store_run(lease->store, call, &error))
        log_info("the lease is left to lapse: %s", error->message);
}

void lease_release(struct lease *lease)
{
    if (!lease)
        return;
    if (!is_settled(lease)) {
        lease_abandon(lease);
        return;
    }
    stop_beating(lease);
    lease_give_back(lease);
    lease_free(lease);
}

/* --- asking --- */

const char *lease_owner(const struct lease *lease)
{
    return lease->record->owner;
}

bool lease_is_exclusive(const struct lease *lease)
{
    return lease->exclusive;
}

bool lease_is_held(struct lease *lease)
{
    bool held;

    pthread_mutex_lock(&lease->lock);
    held = !lease->lost;
    pthread_mutex_unlock(&lease->lock);
    return held;
}

static void hurry(struct lease *lease)
{
    lease->hurry = true;
    pthread_cond_broadcast(&lease->changed);
}

/* Waits for a beat of the thread that begins from now on: all who wait have the same one. lock
 * held.
 */
static int wait_sure(struct lease *lease, bool (*is_over)(void *user), void *user)
{
    unsigned before = lease->begun;
    int error = 0;

    while (!error && !is_sure(lease)) {
        if (lease->lost)
            error = ESTALE;
        else if ((int)(lease->ended - before) > 0)
            error = lease->error;
        if (!error && is_over && is_over(user))
            error = EINTR;
        if (!error) {
            lease->awaited = true;
            pthread_cond_broadcast(&lease->changed);
            wait_until(lease, now_ms() + ASK_MS);
        }
    }
    return error;
}

bool lease_assure(struct lease *lease, bool (*is_over)(void *user), void *user, GError **error)
{
    int code;

    pthread_mutex_lock(&lease->lock);
    code = wait_sure(lease, is_over, user);
    pthread_mutex_unlock(&lease->lock);
    return code == 0 || error_set_errno(error, code, "the lease of %s could not be renewed",
                                        store_url(lease->store));
}

/* --- what is under way --- */

void lease_add_upload(struct lease *lease, const char *key, const char *id)
{
    pthread_mutex_lock(&lease->lock);
    g_ptr_array_add(lease->record->uploads, lease_upload_new(key, id));
    hurry(lease);
    pthread_mutex_unlock(&lease->lock);
}

void lease_remove_upload(struct lease *lease, const char *key, const char *id)
{
    pthread_mutex_lock(&lease->lock);
    for (guint i = 0; i < lease->record->uploads->len; i++) {
        struct lease_upload *upload = lease->record->uploads->pdata[i];

        if (strcmp(upload->id, id) == 0 && strcmp(upload->key, key) == 0) {
            g_ptr_array_remove_index_fast(lease->record->uploads, i);
            break;
        }
    }
    pthread_mutex_unlock(&lease->lock);
}

bool lease_add_rename(struct lease *lease, const char *from, const char *to,
                      bool (*is_over)(void *user), void *user, GError **error)
{
    pthread_mutex_lock(&lease->lock);
    g_ptr_array_add(lease->record->renames, lease_rename_new(from, to));
    lease->owed_beat = lease->record->beats + 1;
    pthread_mutex_unlock(&lease->lock);
    if (lease_assure(lease, is_over, user, error))
        return true;
    lease_remove_rename(lease, from);
    return false;
}

void lease_remove_rename(struct lease *lease, const char *from)
{
    pthread_mutex_lock(&lease->lock);
    for (guint i = 0; i < lease->record->renames->len; i++) {
        struct lease_rename *rename = lease->record->renames->pdata[i];

        if (strcmp(rename->from, from) == 0) {
            g_ptr_array_remove_index(lease->record->renames, i);
            break;
        }
    }
    lease->owed_beat = lease->record->beats + 1;
    hurry(lease);
    pthread_mutex_unlock(&lease->lock);
}

void lease_settle(struct lease *lease)
{
    pthread_mutex_lock(&lease->lock);
    lease->record->unsettled_ns = 0;
    pthread_mutex_unlock(&lease->lock);
}
