/* What each byte of a file is made of: a sorted run of extents from 0 to the file's size.
 *
 * shape:   an extent says in which of three places its bytes are, in any combination: in memory
 *          (a buffer), in the base object (at the same offset), in a part of the open upload. In
 *          none of them, it is a hole and reads as zeros. Extents touch and never overlap.
 *            buffer  in_object  in_part
 *              x                         dirty: only here
 *              x                   x     sent, not yet committed; kept for readers while room lasts
 *              x         x               saved, kept for readers and for the next small publish
 *                        x               saved
 *                                  x     sent and let go: unreadable until the upload is committed
 *                                        hole
 * threads: none of its own; the inode's lock guards it.
 */
#pragma once

#include "fusefs/budget.h"

struct extent {
    uint64_t start, end;
    struct buffer *buffer; /* NULL: not in memory */
    uint32_t buffer_offset;
    bool in_object, in_part;
};

struct layout {
    GArray *extents; /* struct extent */
};

void layout_init(struct layout *layout);
void layout_clear(struct layout *layout);

uint64_t layout_size(const struct layout *layout);
unsigned layout_count(const struct layout *layout);
const struct extent *layout_at(const struct layout *layout, unsigned index);

/* The index of the extent that holds OFFSET; layout_count when it is at or behind the end. */
unsigned layout_find(const struct layout *layout, uint64_t offset);

/* The whole file is SIZE bytes of the base object. */
void layout_set_object(struct layout *layout, uint64_t size);

/* Says of [start, end) where else than in memory it is. */
void layout_set_places(struct layout *layout, uint64_t start, uint64_t end, bool in_object,
                       bool in_part);

/* Cuts, or extends with a hole. */
void layout_resize(struct layout *layout, uint64_t size);

/* Puts BUFFER's bytes [buffer_offset, +length) at OFFSET as dirty data; takes its own reference.
 * A gap before OFFSET becomes a hole. */
void layout_put(struct layout *layout, uint64_t offset, uint64_t length, struct buffer *buffer,
                uint32_t buffer_offset);

/* Copies DATA over bytes that are all in one unfrozen dirty buffer, or appends to the last
 * buffer's room. False when they are not: the caller brings a buffer and uses layout_put. */
bool layout_write_in_place(struct layout *layout, uint64_t offset, const void *data,
                           uint64_t length);

/* Marks [start, end), which is in memory, as sent. KEEP: leave the memory for readers. */
void layout_mark_part(struct layout *layout, const struct layout *sent, uint64_t start,
                      uint64_t end, bool keep);

/* The part with [start, end), which is all in memory, is not what it was sent as: its memory has to
 * stay until it is sent again. */
void layout_unmark_part(struct layout *layout, uint64_t start, uint64_t end);

/* SAVED became the base object: whatever of LAYOUT still is what SAVED says is in it now, and
 * nothing else is. KEEP: leave the memory for readers. */
void layout_mark_saved(struct layout *layout, const struct layout *saved, bool keep);

/* Lets go of memory whose bytes are elsewhere too. Returns the bytes given up. */
uint64_t layout_drop_clean(struct layout *layout);

/* Whether some memory is of bytes that are in a part too. */
bool layout_has_sent_memory(const struct layout *layout);

/* The same for LAYOUT's upload: it is gone, so nothing is in it. False when bytes were only there.
 */
bool layout_forget_parts(struct layout *layout);

/* A copy of [start, end) with references to its buffers, at the same offsets. While it is
 * frozen, the buffers' bytes are not overwritten in place. */
void layout_copy(const struct layout *from, uint64_t start, uint64_t end, struct layout *to);
void layout_freeze(struct layout *layout);
void layout_thaw(struct layout *layout);

/* Whether the whole file is the base object's first SIZE bytes. */
bool layout_is_saved(const struct layout *layout);

/* Whether what LAYOUT holds of [start, end) still is what SENT, an earlier copy of it, says: bytes
 * that are nowhere but in a part are those that were sent. */
bool layout_is_unchanged(const struct layout *layout, const struct layout *sent, uint64_t start,
                         uint64_t end);

/* Whether every byte of [start, end) is in the open upload. */
bool layout_is_in_part(const struct layout *layout, uint64_t start, uint64_t end);

/* Whether some byte of [start, end) is nowhere but in the open upload. */
bool layout_only_in_part(const struct layout *layout, uint64_t start, uint64_t end);

/* How far, from START, every byte is in memory. */
uint64_t layout_memory_end(const struct layout *layout, uint64_t start);

uint64_t layout_dirty_bytes(const struct layout *layout);
