/* Getting a lease: at once when it is free, lapsed, or its process has ended; else it is watched.
 */
#include "fusefs/lease_internal.h"

#include "config/error.h"
#include "fusefs/staged.h"

#include <errno.h>
#include <string.h>

#define LOOKS_PER_TTL 16
#define CANCEL_MS     100
#define TRIES         8    /* of taking it: others may come and go meanwhile */
#define AGE_SLACK_MS  2000 /* stores tell times in seconds */

static int64_t now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

/* 1: ours now. 0: somebody else's, in *THEIRS with *ETAG, or just gone (NULL). -1: *ERROR. */
static int try_take(struct lease *lease, struct lease_record **theirs, char **etag, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autofree char *body = lease_next_body(lease), *text = NULL;
    int64_t began = now_ms();
    size_t size;

    if (!body) {
        error_set(error, ENOMEM, "no memory for the lease");
        return -1;
    }
    if (lease_put(lease, body, *etag ? *etag : "", lease->ttl_ms, &lease->etag, &why)) {
        lease->sure_until_ms = began + lease->ttl_ms;
        return 1;
    }
    if (!error_is(why, EEXIST) && !error_is(why, ESTALE) && !error_is(why, ENOENT)) {
        g_propagate_error(error, g_steal_pointer(&why));
        return -1;
    }
    g_clear_pointer(etag, g_free);
    g_clear_error(&why);
    if (store_read(lease->store, lease->key, LEASE_RECORD_MAX, &text, &size, etag, &why)) {
        *theirs = lease_record_parse(text, size, error);
        if (!*theirs)
            g_prefix_error(error, "%s of %s: ", lease->key, store_url(lease->store));
        return *theirs ? 0 : -1;
    }
    if (error_is(why, ENOENT))
        return 0;
    g_propagate_error(error, g_steal_pointer(&why));
    return -1;
}

static bool pause_ms(const struct lease_options *options, unsigned ms)
{
    for (unsigned slept = 0; slept < ms; slept += CANCEL_MS) {
        if (options->cancelled && options->cancelled(options->user))
            return false;
        g_usleep(MIN(CANCEL_MS, ms - slept) * 1000);
    }
    return true;
}

static bool time_of(struct lease *lease, const char *key, int64_t *mtime_ns, GError **error)
{
    struct store_object object = {0};

    if (!store_head(lease->store, key, &object, error))
        return false;
    *mtime_ns = object.mtime_ns;
    store_object_clear(&object);
    return true;
}

/* How long ago the lease was last written, by the store's own clock: something is written now and
 * the two times compared. */
static bool find_age(struct lease *lease, int64_t *age_ms, GError **error)
{
    g_autofree char *probe = g_strconcat(PROBES_PREFIX, lease->record->owner, NULL);
    int64_t written_ns = 0, now_ns = 0;
    bool ok = store_write(lease->store, probe, "", 0, NULL, NULL, error) &&
              time_of(lease, probe, &now_ns, error) && store_delete(lease->store, probe, error) &&
              time_of(lease, lease->key, &written_ns, error);

    *age_ms = written_ns && now_ns ? (now_ns - written_ns) / 1000000 : 0;
    return ok;
}

static bool refuse(struct lease *lease, const struct lease_record *theirs, GError **error)
{
    g_autofree char *who = lease_record_describe(theirs);

    return error_set(error, EBUSY,
                     "%s is being written by %s; mount it with --mode read-only, or unmount it "
                     "there first",
                     store_url(lease->store), who);
}

static void say_waiting(const struct lease_options *options, const struct lease_record *theirs,
                        int64_t ms)
{
    g_autofree char *who = lease_record_describe(theirs);
    g_autofree char *line = g_strdup_printf(
        "waiting up to %d s to see whether %s still writes here", (int)((ms + 999) / 1000), who);

    if (options->waiting)
        options->waiting(line, options->user);
}

/* Whether THEIRS may be taken over (ETAG): it has lapsed, or is watched until it has. */
static bool has_lapsed(struct lease *lease, const struct lease_options *options,
                       const struct lease_record *theirs, const char *etag, GError **error)
{
    g_autoptr(GError) why = NULL;
    int64_t until, age_ms = 0;

    if (lease_record_is_dead(theirs))
        return true;
    if (!find_age(lease, &age_ms, &why) && !error_is(why, ENOENT)) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    until = now_ms() + theirs->ttl_ms + AGE_SLACK_MS - CLAMP(age_ms, 0, theirs->ttl_ms);
    if (age_ms > (int64_t)theirs->ttl_ms + AGE_SLACK_MS)
        return true;
    say_waiting(options, theirs, until - now_ms());
    while (now_ms() < until) {
        struct store_object object = {0};
        bool same;

        if (!pause_ms(options, theirs->ttl_ms / LOOKS_PER_TTL))
            return error_set(error, EINTR, "interrupted while waiting for the lease");
        g_clear_error(&why);
        if (!store_head(lease->store, lease->key, &object, &why)) {
            if (error_is(why, ENOENT))
                return true;
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        same = g_strcmp0(object.etag, etag) == 0;
        store_object_clear(&object);
        if (!same)
            return refuse(lease, theirs, error);
    }
    return true;
}

struct writers {
    struct lease *lease;
    int64_t now_ns;
};

/* One more look before it is ours: who shares the prefix, and still writes? */
static bool check_writer(const struct store_object *object, void *user, GError **error)
{
    struct writers *writers = user;
    g_autoptr(LeaseRecord) theirs = NULL;
    g_autofree char *text = NULL;
    size_t size;

    if (!store_read(writers->lease->store, object->key, LEASE_RECORD_MAX, &text, &size, NULL, NULL))
        return true; /* just gone */
    theirs = lease_record_parse(text, size, NULL);
    if (!theirs || lease_record_is_dead(theirs))
        return true;
    if ((writers->now_ns - object->mtime_ns) / 1000000 > (int64_t)theirs->ttl_ms + AGE_SLACK_MS)
        return true;
    refuse(writers->lease, theirs, error);
    return false;
}

static bool check_writers(struct lease *lease, GError **error)
{
    struct writers writers = {.lease = lease};

    return time_of(lease, lease->key, &writers.now_ns, error) &&
           store_list(lease->store, WRITERS_PREFIX, false, check_writer, &writers, error);
}

/* The lease itself, for who writes beside others: whoever has it alone lets nobody. */
static bool check_owner(struct lease *lease, GError **error)
{
    g_autoptr(LeaseRecord) theirs = NULL;
    g_autoptr(GError) why = NULL;
    g_autofree char *text = NULL;
    int64_t now_ns = 0, then_ns = 0;
    size_t size;

    if (!store_read(lease->store, LEASE_KEY, LEASE_RECORD_MAX, &text, &size, NULL, &why) ||
        !time_of(lease, LEASE_KEY, &then_ns, &why)) {
        if (error_is(why, ENOENT))
            return true;
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    theirs = lease_record_parse(text, size, error);
    if (!theirs || !time_of(lease, lease->key, &now_ns, error))
        return false;
    if (lease_record_is_dead(theirs) ||
        (now_ns - then_ns) / 1000000 > (int64_t)theirs->ttl_ms + AGE_SLACK_MS)
        return true;
    return refuse(lease, theirs, error);
}

static bool take_exclusive(struct lease *lease, const struct lease_options *options,
                           struct lease_record **previous, GError **error)
{
    g_autofree char *etag = NULL;

    for (int i = 0; i < TRIES; i++) {
        g_autoptr(LeaseRecord) theirs = NULL;
        g_autoptr(GError) why = NULL;
        int taken;

        /* With the same request: from then on theirs is gone. */
        lease_record_inherit(lease->record, *previous);
        taken = try_take(lease, &theirs, &etag, error);
        if (taken != 0)
            return taken > 0;
        g_clear_pointer(previous, lease_record_free);
        if (!theirs)
            continue;
        if (!has_lapsed(lease, options, theirs, etag, error) ||
            (!time_of(lease, lease->key, &theirs->written_ns, &why) && !error_is(why, ENOENT)))
            return false;
        *previous = g_steal_pointer(&theirs);
    }
    return error_set(error, EBUSY, "%s: other mounts come and go too fast",
                     store_url(lease->store));
}

/* Who writes first and looks then sees the other one, whichever of the two it is. */
bool lease_take(struct lease *lease, const struct lease_options *options,
                struct lease_record **previous, GError **error)
{
    const struct store_caps *caps = store_caps(lease->store);
    bool ok;

    if (lease->exclusive && !(caps->has_put_if_absent && caps->has_put_if_match))
        return error_set(error, ENOTSUP,
                         "%s has no conditional PUT, so nobody can be kept from writing there too; "
                         "mount it with --mode shared",
                         store_url(lease->store));
    if (lease->exclusive)
        ok = take_exclusive(lease, options, previous, error);
    else
        ok = lease_beat(lease, error);
    if (!ok)
        return false;
    ok = lease->exclusive ? check_writers(lease, error) : check_owner(lease, error);
    if (!ok && lease_record_is_settled(lease->record))
        lease_give_back(lease);
    return ok;
}
