/* Writing chains: see journal_format.h. Every store that makes something valid is the last one of
 * what it makes valid; a process that is killed leaves a prefix of its stores. */
#include "fusefs/journal_internal.h"

#include <string.h>

#define ROOM_MIN 512 /* for records, behind a new image */

struct chain_piece {
    struct journal_piece *piece;
    uint32_t capacity;
};

static void free_pieces(struct journal *journal, GArray *pieces)
{
    for (guint i = 0; pieces && i < pieces->len; i++) {
        struct chain_piece *p = &g_array_index(pieces, struct chain_piece, i);

        journal_free(journal, p->piece, p->capacity);
    }
    if (pieces)
        g_array_unref(pieces);
}

/* A piece with room for at least SIZE bytes of the stream, or as much as fits into one. NULL: no
 * room. */
static struct journal_piece *add_piece(struct journal *journal, GArray *pieces, uint64_t size)
{
    struct chain_piece p = {.capacity = JOURNAL_CHUNK};

    while (p.capacity < JOURNAL_SLOT && p.capacity < size + sizeof(struct journal_piece))
        p.capacity *= 2;
    p.piece = journal_alloc(journal, p.capacity);
    if (!p.piece)
        return NULL;
    atomic_store_explicit(&p.piece->next, 0, memory_order_relaxed);
    p.piece->capacity = p.capacity;
    g_array_append_val(pieces, p);
    return p.piece;
}

static void link_piece(struct journal *journal, GArray *pieces, struct journal_piece *piece)
{
    if (pieces->len > 1)
        atomic_store(&g_array_index(pieces, struct chain_piece, pieces->len - 2).piece->next,
                     journal_position(journal, piece));
}

/* The pieces of a new chain, with IMAGE in them; END is where the stream ends. */
static GArray *write_pieces(struct journal *journal, const GByteArray *image, uint8_t **end,
                            uint8_t **room_end)
{
    GArray *pieces = g_array_new(FALSE, FALSE, sizeof(struct chain_piece));
    uint64_t done = 0, stream = sizeof(struct journal_head);

    do {
        struct journal_piece *piece =
            add_piece(journal, pieces, stream + image->len - done + ROOM_MIN);
        uint8_t *to;
        uint64_t size;

        if (!piece) {
            free_pieces(journal, pieces);
            return NULL;
        }
        link_piece(journal, pieces, piece);
        to = (uint8_t *)(piece + 1) + stream;
        *room_end = (uint8_t *)piece + piece->capacity;
        size = MIN((uint64_t)(*room_end - to), image->len - done);
        memcpy(to, image->data + done, size);
        done += size;
        stream = 0;
        *end = to + (size + sizeof(struct journal_record) - 1) / sizeof(struct journal_record) *
                        sizeof(struct journal_record);
    } while (done < image->len);
    return pieces;
}

static bool take_index(struct journal *journal, struct journal_chain *chain)
{
    if (chain->is_listed)
        return true;
    pthread_mutex_lock(&journal->lock);
    if (journal->indices->len) {
        chain->index = g_array_index(journal->indices, uint32_t, journal->indices->len - 1);
        g_array_set_size(journal->indices, journal->indices->len - 1);
        chain->is_listed = true;
    }
    pthread_mutex_unlock(&journal->lock);
    return chain->is_listed;
}

bool chain_write(struct journal *journal, struct journal_chain *chain, const GByteArray *image,
                 uint32_t state)
{
    uint8_t *end = NULL, *room_end = NULL;
    GArray *pieces = NULL, *before = chain->pieces;
    struct journal_piece *first;

    pieces = write_pieces(journal, image, &end, &room_end);
    if (!pieces || !take_index(journal, chain)) {
        free_pieces(journal, pieces);
        chain_clear(journal, chain);
        return false;
    }
    first = g_array_index(pieces, struct chain_piece, 0).piece;
    chain->head = (struct journal_head *)(first + 1);
    chain->head->generation = atomic_fetch_add(&journal->generation, 1);
    chain->head->image_bytes = image->len;
    chain->head->image_check = journal_hash(image->data, image->len, chain->head->generation);
    atomic_store(&chain->head->records, 0);
    atomic_store(&chain->head->state, state);
    chain->pieces = pieces;
    chain->next = (struct journal_record *)(void *)end;
    chain->end = (struct journal_record *)(void *)room_end;
    chain->last = NULL;
    atomic_store(&journal->table[chain->index], journal_position(journal, first));
    free_pieces(journal, before);
    return true;
}

/* Makes the last record longer, when what comes is what goes on there. */
static bool extend_last(struct journal_chain *chain, uint64_t offset, uint64_t pos, uint32_t length)
{
    struct journal_record *last = chain->last;
    uint32_t before;

    if (!last || pos == JOURNAL_NONE || last->pos == JOURNAL_NONE)
        return false;
    before = (uint32_t)atomic_load_explicit(&last->length, memory_order_relaxed);
    if (last->offset + before != offset || last->pos + before != pos || before > INT32_MAX - length)
        return false;
    atomic_store(&last->length, journal_length(before + length));
    return true;
}

bool chain_append(struct journal *journal, struct journal_chain *chain, uint64_t offset,
                  uint64_t pos, uint32_t length)
{
    struct journal_record *record;

    if (extend_last(chain, offset, pos, length))
        return true;
    if (chain->next == chain->end) {
        struct chain_piece *tail =
            &g_array_index(chain->pieces, struct chain_piece, chain->pieces->len - 1);
        uint64_t size = MIN(2 * (uint64_t)tail->capacity, JOURNAL_SLOT);
        struct journal_piece *piece =
            add_piece(journal, chain->pieces, size - sizeof(struct journal_piece));

        if (!piece) {
            chain_clear(journal, chain);
            return false;
        }
        link_piece(journal, chain->pieces, piece);
        chain->next = (struct journal_record *)(void *)(piece + 1);
        chain->end = (struct journal_record *)(void *)((uint8_t *)piece + piece->capacity);
    }
    record = chain->next++;
    record->offset = offset;
    record->pos = pos;
    record->check = journal_record_check(offset, pos, chain->head->generation);
    atomic_store_explicit(&record->length, journal_length(length), memory_order_relaxed);
    atomic_fetch_add(&chain->head->records, 1);
    chain->last = record;
    return true;
}

void chain_end(struct journal *journal, struct journal_chain *chain)
{
    bool sealed;

    pthread_mutex_lock(&journal->lock);
    sealed = journal->sealed;
    pthread_mutex_unlock(&journal->lock);
    if (!sealed)
        chain_clear(journal, chain);
    else if (chain->pieces)
        g_array_unref(chain->pieces);
}

void chain_clear(struct journal *journal, struct journal_chain *chain)
{
    if (chain->is_listed) {
        atomic_store(&journal->table[chain->index], 0);
        pthread_mutex_lock(&journal->lock);
        g_array_append_val(journal->indices, chain->index);
        pthread_mutex_unlock(&journal->lock);
    }
    chain->is_listed = false;
    free_pieces(journal, chain->pieces);
    chain->pieces = NULL;
    chain->head = NULL;
    chain->next = chain->end = chain->last = NULL;
}
