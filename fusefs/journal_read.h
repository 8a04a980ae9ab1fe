/* Reading a journal's bytes, which anybody may have written: chains into entries. What is damaged
 * is left out.
 *
 * owns:    an entry's layout is made of buffers over the bytes that were read, which must stay.
 */
#pragma once

#include "fusefs/fs_internal.h"

struct journal_entry {
    uint32_t index; /* in the table */
    uint32_t state; /* enum journal_state */
    bool is_cut;    /* what was written last is damaged */
    char *path;
    char *etag, *base_key, *base_lineage; /* what the layout calls the object; may be NULL */
    uint64_t base_size, failed_close;
    GHashTable *metadata;
    struct upload *upload; /* NULL: none; its parts have ETags where they need not be sent again */
    struct layout layout;
};

void journal_entry_free(struct journal_entry *entry);
typedef struct journal_entry JournalEntry;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JournalEntry, journal_entry_free)

/* Whether [pos, pos+length) can be read: within the file, and in none of its holes. */
typedef bool journal_is_backed(const void *user, uint64_t pos, uint64_t length);

/* The file's entries, in the order in which they are to be recovered. DAMAGED: how many chains were
 * left out, or cut short. */
GPtrArray *journal_read(const uint8_t *data, uint64_t size, journal_is_backed *is_backed,
                        const void *user, unsigned *damaged);
