/* Room in the journal's file: slots of 1 MiB, whole or cut into chunks of one size. Memory is
 * allocated before it is touched, so that a full filesystem is an answer and not a signal. */
#include "fusefs/journal_internal.h"

#include "config/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static uint32_t pop(GArray *stack)
{
    uint32_t number = g_array_index(stack, uint32_t, stack->len - 1);

    g_array_set_size(stack, stack->len - 1);
    return number;
}

static void take_out(GArray *stack, uint32_t number)
{
    for (guint i = 0; i < stack->len; i++) {
        if (g_array_index(stack, uint32_t, i) == number) {
            g_array_remove_index_fast(stack, i);
            return;
        }
    }
}

/* Whether the filesystem has room for another slot. Programs share /dev/shm, and die of SIGBUS when
 * it is full. */
static bool has_room(const struct journal *journal)
{
    struct statvfs st;

    if (!journal->is_shared || fstatvfs(journal->fd, &st) != 0)
        return true;
    if ((uint64_t)st.f_bavail * st.f_frsize >=
        (uint64_t)st.f_blocks * st.f_frsize / 2 + JOURNAL_SLOT)
        return true;
    errno = ENOSPC;
    return false;
}

static bool back_slot(struct journal *journal, off_t pos)
{
    return has_room(journal) && fallocate(journal->fd, 0, pos, JOURNAL_SLOT) == 0;
}

/* A slot that had no memory; 0: there is none, or none for it. lock held. */
static uint32_t take_unused(struct journal *journal)
{
    uint32_t number;

    if (!journal->unused->len)
        return 0; /* too much of the others is in small pieces */
    number = pop(journal->unused);
    if (back_slot(journal, (off_t)number * JOURNAL_SLOT)) {
        /* Faults one by one cost more; older kernels take them all the same. */
        madvise(journal->data + (uint64_t)number * JOURNAL_SLOT, JOURNAL_SLOT, MADV_POPULATE_WRITE);
        return number;
    }
    g_array_append_val(journal->unused, number);
    if (!journal->complained)
        log_warning("%s: %s; some unsaved data would not survive a crash", journal->path,
                    g_strerror(errno));
    journal->complained = true;
    return 0;
}

static unsigned class_of(uint32_t size)
{
    unsigned class = 0;

    while ((uint32_t)JOURNAL_CHUNK << class < size)
        class ++;
    return class;
}

/* The first free chunk of SLOT, which has one. */
static uint32_t take_chunk(struct journal_slot *slot)
{
    uint32_t i = 0;

    while (slot->taken[i] == UINT64_MAX)
        i++;
    uint32_t bit = __builtin_ctzll(~slot->taken[i]);

    slot->taken[i] |= UINT64_C(1) << bit;
    slot->count++;
    return i * 64 + bit;
}

void *journal_alloc(struct journal *journal, uint32_t size)
{
    unsigned class = class_of(size);
    uint32_t number, chunk, chunks = JOURNAL_SLOT / (JOURNAL_CHUNK << class);
    GArray *partial = journal->partial[class];

    pthread_mutex_lock(&journal->lock);
    if (partial->len) {
        number = g_array_index(partial, uint32_t, partial->len - 1);
    } else {
        number = journal->warm->len ? pop(journal->warm) : take_unused(journal);
        if (number) {
            journal->slots[number] = g_new0(struct journal_slot, 1);
            journal->slots[number]->class = class;
            g_array_append_val(partial, number);
        }
    }
    if (!number) {
        pthread_mutex_unlock(&journal->lock);
        return NULL;
    }
    chunk = take_chunk(journal->slots[number]);
    if (journal->slots[number]->count == chunks)
        take_out(partial, number);
    pthread_mutex_unlock(&journal->lock);
    return journal->data + (uint64_t)number * JOURNAL_SLOT + chunk * (JOURNAL_CHUNK << class);
}

void journal_free(struct journal *journal, void *memory, uint32_t size)
{
    uint64_t pos = journal_position(journal, memory);
    uint32_t number = pos / JOURNAL_SLOT, bytes = JOURNAL_CHUNK << class_of(size);
    uint32_t chunk = pos % JOURNAL_SLOT / bytes;
    struct journal_slot *slot;

    pthread_mutex_lock(&journal->lock);
    slot = journal->slots[number];
    if (slot->count == JOURNAL_SLOT / bytes)
        g_array_append_val(journal->partial[slot->class], number);
    slot->taken[chunk / 64] &= ~(UINT64_C(1) << chunk % 64);
    if (--slot->count == 0) {
        take_out(journal->partial[slot->class], number);
        g_free(slot);
        journal->slots[number] = NULL;
        g_array_append_val(journal->warm, number);
    }
    pthread_mutex_unlock(&journal->lock);
}

void journal_trim(struct journal *journal, uint64_t bytes)
{
    pthread_mutex_lock(&journal->lock);
    while (!journal->sealed && journal->warm->len * (uint64_t)JOURNAL_SLOT > bytes) {
        uint32_t number = pop(journal->warm);

        if (fallocate(journal->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)number * JOURNAL_SLOT, JOURNAL_SLOT) != 0)
            log_warning("%s: free memory: %s", journal->path, g_strerror(errno));
        g_array_append_val(journal->unused, number);
    }
    pthread_mutex_unlock(&journal->lock);
}

void journal_seal(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    journal->sealed = true;
    pthread_mutex_unlock(&journal->lock);
}

uint64_t journal_position(const struct journal *journal, const void *memory)
{
    return (uint64_t)((const uint8_t *)memory - journal->data);
}
