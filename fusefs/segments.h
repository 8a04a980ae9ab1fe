/* Pieces of the object that a file is based on, each fetched into buffers of the budget by one GET.
 * An inode's are sorted and do not overlap; who wants which is not their business.
 *
 * threads: inode->lock guards them and their fields; the memory is written by the store's threads
 *          while FETCHING and read-only afterwards.
 */
#pragma once

#include "fusefs/fs_internal.h"

#define SEGMENT_MIN     (1u << 20)
#define SEGMENT_MAX     (8u << 20)
#define SEGMENT_BUFFERS (SEGMENT_MAX / BUFFER_MAX)

enum segment_state { SEGMENT_FETCHING, SEGMENT_READY, SEGMENT_FAILED };

struct segment {
    struct fs *fs;
    struct inode *inode; /* pinned while FETCHING */
    uint64_t start, end;
    struct buffer *buffers[SEGMENT_BUFFERS];
    unsigned buffer_count;
    enum segment_state state;
    int error;
    unsigned refs;
    struct store_call *call;
};

/* One for [START, END), of at most SEGMENT_MAX, which nothing overlaps; segments_start is to be
 * called with it. NULL: no memory; WANTED: somebody waits for it. */
struct segment *segment_add(struct fs *fs, struct inode *inode, uint64_t start, uint64_t end,
                            bool wanted);
/* Without inode->lock. Empties SEGMENTS. */
void segments_start(struct fs *fs, struct inode *inode, GPtrArray *segments);

/* Where the first byte of [AT, END) is that no segment holds (END: there is none), and in *ROOM how
 * many there are in one go, beyond END too. */
uint64_t segments_gap_above(const struct inode *inode, uint64_t at, uint64_t end, uint64_t *room);
/* The end of the last bytes of [FROM, AT) that no segment holds (FROM: there are none). */
uint64_t segments_gap_below(const struct inode *inode, uint64_t from, uint64_t at, uint64_t *room);

/* References to those that hold [OFFSET, END), in order, into HELD. 0; EAGAIN when one is still
 * fetched, ENODATA when one is not there; else the error of one that failed, which is then gone.
 * HELD is empty unless it returns 0. */
int segments_collect(struct inode *inode, uint64_t offset, uint64_t end, GPtrArray *held);
void segments_release(GPtrArray *held);
/* The bytes of [OFFSET, END) out of HELD. No lock. */
void segments_reply(GPtrArray *held, uint64_t offset, uint64_t end, fs_reply *reply, void *user);

/* Lets go of those that IS_WANTED says no to; NULL: of all. */
void segments_prune(struct inode *inode,
                    bool (*is_wanted)(const struct inode *, const struct segment *));
