/* Recovery: what mounts that were killed had not saved, from their journals into the store.
 * docs/journal.md has the rules. recover_check.c finds out what is to be done, recover.c does it.
 *
 * threads: the one that starts the mount, before anybody else uses the filesystem.
 */
#pragma once

#include "fusefs/journal_read.h"
#include "fusefs/lease_record.h"

enum fate {
    FATE_SHOW,  /* under its own name */
    FATE_ASIDE, /* beside it */
    FATE_DONE,  /* the store has it already */
    FATE_LOST,  /* what is needed for it is gone */
};

struct recovery {
    struct fs *fs;
    struct fs_caller *caller;
    const struct lease_record *previous; /* may be NULL */
    struct fs_recovered *result;
};

/* All that the journals of earlier mounts tell of. A failure leaves it where it is. */
bool fs_recover(struct fs *fs, const struct lease_record *previous, GError **error);

/* --- recover_check.c --- */
/* Compares ENTRY with what the store has, and makes it say so: what has landed in the store since
 * is in the object. 0 and *FATE with WHY (static), or the store's error. */
int recover_check(struct recovery *r, struct journal_entry *entry, enum fate *fate,
                  const char **why);

/* Whether OBJECT is what ENTRY tells already. */
int recover_is_there(struct recovery *r, const struct journal_entry *entry,
                     const struct store_object *object, bool *is_there);
