/* The memory budget: every byte of file content that the mount holds is in a buffer of it.
 *
 * shape:   a buffer is up to BUFFER_MAX bytes; the largest size is recycled warm, since touching
 *          fresh memory costs more than copying into it. Lanes leave room for each other: dirty
 *          data stops at 3/4 of the limit, what is read ahead at 1/2, what a reader waits for at
 *          the whole. So does what a publish needs to free dirty data (padding), for which
 *          nothing counts that is charged.
 * units:   bytes, milliseconds.
 * owns:    buffers are reference-counted; the last unref gives the memory back and wakes waiters.
 * threads: any.
 */
#pragma once

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BUFFER_MAX   (1024 * 1024)
#define CHARGE_ABOVE (128 * 1024) /* what serves a request may hold so much beside the buffers */

struct budget;
struct journal;

enum budget_lane { BUDGET_AHEAD, BUDGET_DIRTY, BUDGET_WANTED, BUDGET_PADDING };

struct buffer {
    struct budget *budget; /* NULL: the memory is somebody else's */
    atomic_uint refs;
    atomic_uint frozen; /* requests that are sending it: bytes that were filled may not change */
    uint32_t capacity;
    uint32_t filled; /* guarded by the owner's lock */
    bool in_journal; /* its bytes outlive the process */
    uint8_t *data;
};

struct budget *budget_new(uint64_t limit_bytes);
/* Dirty data is kept in JOURNAL from now on. Before the first buffer. */
void budget_use_journal(struct budget *budget, struct journal *journal);
void budget_free(struct budget *budget); /* no buffer may be left; takes NULL */

/* The default: the smaller of 512 MiB and a quarter of the tightest cgroup limit above us. */
uint64_t budget_default_bytes(void);

/* A buffer of at least CAPACITY bytes (<= BUFFER_MAX), or NULL when the lane has no room now. */
struct buffer *buffer_try_new(struct budget *budget, size_t capacity, enum budget_lane lane);

/* The same, after waiting up to TIMEOUT_MS for room. */
struct buffer *buffer_wait_new(struct budget *budget, size_t capacity, enum budget_lane lane,
                               unsigned timeout_ms);

/* SIZE bytes that are held beside the buffers leave less room for these until they are uncharged.
 * Waits for nothing; no more than a quarter of the limit counts, so that some room is always left.
 * Those who are charged wait for dirty data to go, so padding must not wait for them. */
void budget_charge(struct budget *budget, uint64_t size);
void budget_uncharge(struct budget *budget, uint64_t size);

/* SIZE bytes at DATA that stay where they are; they count in no budget. */
struct buffer *buffer_over(const void *data, uint32_t size);

struct buffer *buffer_ref(struct buffer *buffer);
void buffer_unref(struct buffer *buffer); /* takes NULL */

uint64_t budget_limit_bytes(const struct budget *budget);
uint64_t budget_used_bytes(struct budget *budget);
uint64_t budget_peak_bytes(struct budget *budget);

/* Whether somebody waits for room: what can give way should. */
bool budget_is_tight(struct budget *budget);
