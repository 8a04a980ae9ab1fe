/* What the files of the journal share. Not for others. */
#pragma once

#include "fusefs/journal.h"
#include "fusefs/journal_format.h"

#include <pthread.h>

#define JOURNAL_CLASSES 11 /* of chunks: 1 KiB to a whole slot */

/* A slot in use: one chunk, or several of one size. */
struct journal_slot {
    uint64_t taken[JOURNAL_SLOT / JOURNAL_CHUNK / 64];
    uint32_t count;
    uint8_t class;
};

struct journal {
    char *path, *source;
    int fd;
    uint8_t *data; /* the mapping */
    uint64_t bytes;
    bool is_shared; /* its filesystem is for everybody: half of it is left to others */
    _Atomic uint64_t *table;
    _Atomic uint64_t generation;
    _Atomic int64_t touched_s; /* by the monotonic clock; 0: it is not there yet */
    GPtrArray *old;            /* struct journal_old* */

    pthread_mutex_t lock;
    /* guarded by lock: */
    struct journal_slot **slots;      /* by number; NULL: nobody uses it */
    GArray *unused, *warm;            /* uint32_t, numbers of slots without and with memory */
    GArray *partial[JOURNAL_CLASSES]; /* uint32_t, slots with chunks to give */
    GArray *indices;                  /* uint32_t, entries of the table that are free */
    bool complained, sealed;
};

struct journal_chain {
    char *path;
    /* of what is in the file */
    bool is_listed;
    uint32_t index;
    GArray *pieces; /* struct chain_piece */
    struct journal_head *head;
    struct journal_record *next; /* where the next record goes; NULL: a new piece */
    struct journal_record *end, *last;
    uint64_t size; /* of the file, as it tells */
    /* of the inode, since it was clean */
    bool data, rewritten, due, uncovered;
};
