/* A lease: who writes below a prefix. Its object is rewritten every quarter of its ttl; when that
 * stops for a whole ttl, or its process is known to have ended, the next mount takes it over.
 *
 * shape:   OWN_PREFIX "lease", written on condition (If-None-Match, If-Match), so that there is one
 *          owner: an exclusive lease. On a shared mount OWN_PREFIX "writer/OWNER", one for each.
 *          What is under way in the store (uploads, renames of directories) stands in it, for the
 *          next mount to clear up.
 * clocks:  ages are differences of the store's own times; this machine's clock is not asked what
 *          time it is.
 * errors:  EBUSY: somebody else has it, and lives; ENOTSUP: the store has no conditional PUT.
 * threads: any; one thread of its own rewrites the object.
 */
#pragma once

#include "fusefs/lease_record.h"
#include "storage/store.h"

struct lease;

struct lease_options {
    bool exclusive;
    unsigned ttl_ms; /* 0: 20000 */
    /* Told once when somebody else's lease may have lapsed and is watched; may be NULL. */
    void (*waiting)(const char *line, void *user);
    bool (*cancelled)(void *user); /* asked while it waits; may be NULL */
    void *user;
};

/* PREVIOUS: whose lease was taken over, if any: its leftovers are the caller's to clear up. */
struct lease *lease_acquire(struct store *store, const struct lease_options *options,
                            struct lease_record **previous, GError **error);

/* Gives it back: its object is deleted, if it still is ours. With something under way, or left by
 * the one before, it stays, for the next mount to find; and when the store does not answer in
 * time, until it lapses. Takes NULL. */
void lease_release(struct lease *lease);

/* Ends like a process that is killed: its object stays, for the next mount to find what is under
 * way. Takes NULL. */
void lease_abandon(struct lease *lease);

const char *lease_owner(const struct lease *lease);
bool lease_is_exclusive(const struct lease *lease);

/* False once somebody else has taken it: nothing may be written any more. */
bool lease_is_held(struct lease *lease);

/* Whether, as of now, it surely still is ours; asks the store when the last answer is too old. And
 * whether it tells of no rename that has ended: the next mount would do that again, with what is
 * made under the old name now. IS_OVER (may be NULL)
 * is asked at least every 100 ms while it waits. ESTALE: lost for good. EINTR: it is over. Anything
 * else: the store could not be asked. */
bool lease_assure(struct lease *lease, bool (*is_over)(void *user), void *user, GError **error);

/* What is under way; at first, what was in the lease that was taken over. It is written down with
 * the next beat, which comes at once; a rename is before lease_add_rename returns (see
 * lease_assure). */
void lease_add_upload(struct lease *lease, const char *key, const char *id);
void lease_remove_upload(struct lease *lease, const char *key, const char *id);
bool lease_add_rename(struct lease *lease, const char *from, const char *to,
                      bool (*is_over)(void *user), void *user, GError **error);
void lease_remove_rename(struct lease *lease, const char *from);
/* All that mounts before this one left is dealt with. */
void lease_settle(struct lease *lease);
