/* The bytes of a journal file, for who writes them and who reads them. docs/journal.md has the
 * picture.
 *
 * shape:   numbers are the machine's own: the file is read on the machine that wrote it. Positions
 *          count from the file's begin; 0 is none.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define JOURNAL_MAGIC   "dstackJ"
#define JOURNAL_VERSION 2
#define JOURNAL_SLOT    (1u << 20) /* the first one is the header and the table */
#define JOURNAL_FILES   65536u
#define JOURNAL_TABLE   4096 /* where it begins */
#define JOURNAL_CHUNK   1024 /* the smallest piece of a slot */
#define JOURNAL_NONE    UINT64_MAX

struct journal_header {
    char magic[8];
    uint32_t version, files;
    uint64_t bytes;
    char boot[64], source[1024];
};

/* A chain is a list of pieces, each a chunk of its own. The bytes behind their headers are one
 * stream: the image, up to a multiple of a record, then the records. */
struct journal_piece {
    _Atomic uint64_t next;
    uint64_t capacity, unused[2];
};

/* Behind the first piece's header. */
struct journal_head {
    uint64_t generation; /* no other chain of the file has it */
    uint64_t image_check;
    uint32_t image_bytes;
    _Atomic uint32_t records;
    _Atomic uint32_t state; /* enum journal_state */
    uint32_t unused;
};

/* What a file was doing: whether it may be shown as it is. */
enum journal_state {
    JOURNAL_WRITERS = 1,    /* somebody has it open for writing */
    JOURNAL_WANTED = 2,     /* a close or fsync is under way, or has failed */
    JOURNAL_DUE = 4,        /* the timer was to publish it */
    JOURNAL_REWRITTEN = 8,  /* published bytes changed */
    JOURNAL_BULK = 16,      /* an upload was open */
    JOURNAL_SLOW = 32,      /* it grows slowly all the same */
    JOURNAL_DATA = 64,      /* its bytes changed, not only its attributes */
    JOURNAL_PUBLISHED = 128 /* what it is based on was seen by everybody */
};

/* pos JOURNAL_NONE: the file was cut or extended to OFFSET. */
struct journal_record {
    uint64_t offset, pos;
    _Atomic uint64_t length; /* and its complement in the upper half */
    uint64_t check;          /* of all but the length, and the generation */
};

_Static_assert(sizeof(struct journal_piece) == 32 && sizeof(struct journal_head) == 32 &&
                   sizeof(struct journal_record) == 32,
               "the stream's records are in no two pieces");

static inline uint64_t journal_hash(const void *data, uint64_t size, uint64_t hash)
{
    const uint8_t *bytes = data;

    for (uint64_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 1099511628211ull; /* FNV-1a */
    return hash;
}

static inline uint64_t journal_record_check(uint64_t offset, uint64_t pos, uint64_t generation)
{
    uint64_t hash = (offset ^ 14695981039346656037ull) * 1099511628211ull;

    hash = (hash ^ pos) * 1099511628211ull;
    return (hash ^ generation) * 1099511628211ull; /* FNV-1a by words: each step is one-to-one */
}

static inline uint64_t journal_length(uint32_t length)
{
    return length | (uint64_t)~length << 32;
}
