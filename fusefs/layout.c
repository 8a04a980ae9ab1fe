#include "fusefs/layout.h"

#include <string.h>

static struct extent *at(const struct layout *layout, unsigned index)
{
    return &g_array_index(layout->extents, struct extent, index);
}

void layout_init(struct layout *layout)
{
    layout->extents = g_array_new(FALSE, TRUE, sizeof(struct extent));
}

void layout_clear(struct layout *layout)
{
    if (!layout->extents)
        return;
    for (unsigned i = 0; i < layout->extents->len; i++)
        buffer_unref(at(layout, i)->buffer);
    g_array_free(layout->extents, TRUE);
    layout->extents = NULL;
}

uint64_t layout_size(const struct layout *layout)
{
    return layout->extents->len ? at(layout, layout->extents->len - 1)->end : 0;
}

unsigned layout_count(const struct layout *layout)
{
    return layout->extents->len;
}

const struct extent *layout_at(const struct layout *layout, unsigned index)
{
    return at(layout, index);
}

unsigned layout_find(const struct layout *layout, uint64_t offset)
{
    unsigned low = 0, high = layout->extents->len;

    while (low < high) {
        unsigned middle = low + (high - low) / 2;

        if (at(layout, middle)->end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Whether B goes on where A ends, in the same places: then they are one extent. */
static bool continues(const struct extent *a, const struct extent *b)
{
    if (a->end != b->start || a->in_object != b->in_object || a->in_part != b->in_part)
        return false;
    if (a->buffer != b->buffer)
        return false;
    return !a->buffer || a->buffer_offset + (a->end - a->start) == b->buffer_offset;
}

static void merge_around(struct layout *layout, unsigned first, unsigned last)
{
    unsigned i = first ? first - 1 : 0;

    while (i + 1 < layout->extents->len && i <= last) {
        if (!continues(at(layout, i), at(layout, i + 1))) {
            i++;
            continue;
        }
        at(layout, i)->end = at(layout, i + 1)->end;
        buffer_unref(at(layout, i + 1)->buffer);
        g_array_remove_index(layout->extents, i + 1);
        if (last)
            last--;
    }
}

/* Makes OFFSET a border between two extents. Returns the index of the one that begins there. */
static unsigned split(struct layout *layout, uint64_t offset)
{
    unsigned index = layout_find(layout, offset);
    struct extent tail;

    if (index == layout->extents->len || at(layout, index)->start == offset)
        return index;
    tail = *at(layout, index);
    if (tail.buffer) {
        tail.buffer_offset += offset - tail.start;
        buffer_ref(tail.buffer);
    }
    tail.start = offset;
    at(layout, index)->end = offset;
    g_array_insert_val(layout->extents, index + 1, tail);
    return index + 1;
}

/* Replaces what stands at EXTENT's range, which begins at or before the end, by EXTENT. */
static void replace(struct layout *layout, struct extent extent)
{
    unsigned first = split(layout, extent.start);
    unsigned last = split(layout, extent.end);

    for (unsigned i = first; i < last; i++)
        buffer_unref(at(layout, i)->buffer);
    g_array_remove_range(layout->extents, first, last - first);
    g_array_insert_val(layout->extents, first, extent);
    merge_around(layout, first, first);
}

void layout_set_object(struct layout *layout, uint64_t size)
{
    struct extent extent = {.start = 0, .end = size, .in_object = true};

    layout_resize(layout, 0);
    if (size)
        g_array_append_val(layout->extents, extent);
}

void layout_set_places(struct layout *layout, uint64_t start, uint64_t end, bool in_object,
                       bool in_part)
{
    unsigned first = split(layout, start), last = split(layout, end);

    for (unsigned i = first; i < last; i++) {
        at(layout, i)->in_object = in_object;
        at(layout, i)->in_part = in_part;
    }
    merge_around(layout, first, last);
}

void layout_resize(struct layout *layout, uint64_t size)
{
    uint64_t old = layout_size(layout);
    struct extent hole = {.start = old, .end = size};

    if (size > old) {
        g_array_append_val(layout->extents, hole);
        merge_around(layout, layout->extents->len - 1, layout->extents->len - 1);
    } else if (size < old) {
        unsigned first = split(layout, size);

        for (unsigned i = first; i < layout->extents->len; i++)
            buffer_unref(at(layout, i)->buffer);
        g_array_set_size(layout->extents, first);
    }
}

void layout_put(struct layout *layout, uint64_t offset, uint64_t length, struct buffer *buffer,
                uint32_t buffer_offset)
{
    struct extent extent = {.start = offset,
                            .end = offset + length,
                            .buffer = buffer_ref(buffer),
                            .buffer_offset = buffer_offset};

    if (offset > layout_size(layout))
        layout_resize(layout, offset);
    replace(layout, extent);
}

static bool is_dirty(const struct extent *extent)
{
    return extent->buffer && !extent->in_object && !extent->in_part;
}

static bool append_in_place(struct layout *layout, const void *data, uint64_t length)
{
    struct extent *last = at(layout, layout->extents->len - 1);
    uint64_t used = last->buffer_offset + (last->end - last->start);

    if (!is_dirty(last) || used != last->buffer->filled || used + length > last->buffer->capacity)
        return false;
    /* Allowed even while frozen: nobody sends bytes beyond those that were filled then. */
    memcpy(last->buffer->data + used, data, length);
    last->buffer->filled += length;
    last->end += length;
    return true;
}

bool layout_write_in_place(struct layout *layout, uint64_t offset, const void *data,
                           uint64_t length)
{
    unsigned index = layout_find(layout, offset);
    struct extent *extent;

    if (!layout->extents->len)
        return false;
    if (index == layout->extents->len)
        return offset == layout_size(layout) && append_in_place(layout, data, length);
    extent = at(layout, index);
    if (!is_dirty(extent) || atomic_load(&extent->buffer->frozen) || offset + length > extent->end)
        return false;
    memcpy(extent->buffer->data + extent->buffer_offset + (offset - extent->start), data, length);
    return true;
}

/* Calls EACH for every piece of LAYOUT that lies in one extent of OTHER, over [start, end); EACH
 * may change the piece's flags and buffer. Borders are made where needed and merged afterwards. */
typedef void each_piece(struct extent *piece, const struct extent *other, bool keep);

static void for_pieces(struct layout *layout, const struct layout *other, uint64_t start,
                       uint64_t end, each_piece *each, bool keep)
{
    unsigned first, last;

    for (unsigned i = layout_find(other, start); i < layout_count(other); i++) {
        const struct extent *extent = layout_at(other, i);

        if (extent->start >= end)
            break;
        split(layout, MAX(extent->start, start));
        split(layout, MIN(extent->end, end));
    }
    first = split(layout, start);
    last = split(layout, end);
    for (unsigned i = first; i < last; i++) {
        struct extent *piece = at(layout, i);
        unsigned match = layout_find(other, piece->start);

        each(piece, match < layout_count(other) ? layout_at(other, match) : NULL, keep);
    }
    merge_around(layout, first, last);
}

/* Whether PIECE still is the memory that OTHER, which covers it, was when it was copied. */
static bool same_memory(const struct extent *piece, const struct extent *other)
{
    return piece->buffer && other && other->buffer == piece->buffer &&
           other->buffer_offset + (piece->start - other->start) == piece->buffer_offset;
}

static void drop_buffer(struct extent *extent)
{
    buffer_unref(extent->buffer);
    extent->buffer = NULL;
    extent->buffer_offset = 0;
}

static void piece_sent(struct extent *piece, const struct extent *other, bool keep)
{
    if (!same_memory(piece, other) || piece->in_object)
        return;
    piece->in_part = true;
    if (!keep)
        drop_buffer(piece);
}

void layout_mark_part(struct layout *layout, const struct layout *sent, uint64_t start,
                      uint64_t end, bool keep)
{
    for_pieces(layout, sent, start, MIN(end, layout_size(layout)), piece_sent, keep);
}

static void piece_unsent(struct extent *piece, const struct extent *other, bool keep)
{
    if (piece->buffer)
        piece->in_part = false;
}

void layout_unmark_part(struct layout *layout, uint64_t start, uint64_t end)
{
    for_pieces(layout, layout, start, MIN(end, layout_size(layout)), piece_unsent, true);
}

static void piece_saved(struct extent *piece, const struct extent *other, bool keep)
{
    bool was_object = piece->in_object && !piece->buffer;
    bool was_part = piece->in_part && !piece->buffer;
    bool is_hole = !piece->buffer && !piece->in_object && !piece->in_part;
    bool hole_too = other && !other->buffer && !other->in_object && !other->in_part;

    piece->in_object =
        other && (was_object || was_part || same_memory(piece, other) || (is_hole && hole_too));
    piece->in_part = false;
    if (piece->in_object && piece->buffer && !keep)
        drop_buffer(piece);
}

void layout_mark_saved(struct layout *layout, const struct layout *saved, bool keep)
{
    uint64_t size = layout_size(layout), common = MIN(size, layout_size(saved));

    for_pieces(layout, saved, 0, common, piece_saved, keep);
}

uint64_t layout_drop_clean(struct layout *layout)
{
    uint64_t dropped = 0;

    for (unsigned i = 0; i < layout->extents->len; i++) {
        struct extent *extent = at(layout, i);

        if (extent->buffer && (extent->in_object || extent->in_part)) {
            dropped += extent->end - extent->start;
            drop_buffer(extent);
        }
    }
    merge_around(layout, 0, layout->extents->len);
    return dropped;
}

bool layout_has_sent_memory(const struct layout *layout)
{
    for (unsigned i = 0; i < layout->extents->len; i++)
        if (at(layout, i)->buffer && at(layout, i)->in_part)
            return true;
    return false;
}

bool layout_forget_parts(struct layout *layout)
{
    bool whole = true;

    for (unsigned i = 0; i < layout->extents->len; i++) {
        struct extent *extent = at(layout, i);

        whole = whole && !(extent->in_part && !extent->buffer);
        extent->in_part = false;
    }
    return whole;
}

void layout_copy(const struct layout *from, uint64_t start, uint64_t end, struct layout *to)
{
    layout_init(to);
    for (unsigned i = layout_find(from, start); i < layout_count(from); i++) {
        struct extent extent = *layout_at(from, i);

        if (extent.start >= end)
            break;
        if (extent.start < start) {
            extent.buffer_offset += extent.buffer ? start - extent.start : 0;
            extent.start = start;
        }
        extent.end = MIN(extent.end, end);
        if (extent.buffer)
            buffer_ref(extent.buffer);
        g_array_append_val(to->extents, extent);
    }
}

void layout_freeze(struct layout *layout)
{
    for (unsigned i = 0; i < layout->extents->len; i++)
        if (at(layout, i)->buffer)
            atomic_fetch_add(&at(layout, i)->buffer->frozen, 1);
}

void layout_thaw(struct layout *layout)
{
    for (unsigned i = 0; i < layout->extents->len; i++)
        if (at(layout, i)->buffer)
            atomic_fetch_sub(&at(layout, i)->buffer->frozen, 1);
}

bool layout_is_saved(const struct layout *layout)
{
    for (unsigned i = 0; i < layout->extents->len; i++)
        if (!at(layout, i)->in_object)
            return false;
    return true;
}

static bool piece_is_unchanged(const struct extent *piece, const struct extent *other,
                               uint64_t start)
{
    if (!piece->buffer && piece->in_part)
        return true;
    if (!piece->buffer || !other->buffer)
        return !piece->buffer && !other->buffer && piece->in_object == other->in_object;
    return piece->buffer == other->buffer && piece->buffer_offset + (start - piece->start) ==
                                                 other->buffer_offset + (start - other->start);
}

bool layout_is_unchanged(const struct layout *layout, const struct layout *sent, uint64_t start,
                         uint64_t end)
{
    while (start < end) {
        unsigned here = layout_find(layout, start), there = layout_find(sent, start);

        if (here == layout_count(layout) || there == layout_count(sent))
            return false;
        if (!piece_is_unchanged(layout_at(layout, here), layout_at(sent, there), start))
            return false;
        start = MIN(layout_at(layout, here)->end, layout_at(sent, there)->end);
    }
    return true;
}

bool layout_is_in_part(const struct layout *layout, uint64_t start, uint64_t end)
{
    for (unsigned i = layout_find(layout, start); i < layout->extents->len && start < end; i++) {
        if (!at(layout, i)->in_part)
            return false;
        start = at(layout, i)->end;
    }
    return start >= end;
}

bool layout_only_in_part(const struct layout *layout, uint64_t start, uint64_t end)
{
    for (unsigned i = layout_find(layout, start); i < layout->extents->len; i++) {
        const struct extent *extent = at(layout, i);

        if (extent->start >= end)
            break;
        if (extent->in_part && !extent->buffer)
            return true;
    }
    return false;
}

uint64_t layout_memory_end(const struct layout *layout, uint64_t start)
{
    uint64_t end = start;

    for (unsigned i = layout_find(layout, start); i < layout->extents->len; i++) {
        if (!at(layout, i)->buffer)
            break;
        end = at(layout, i)->end;
    }
    return end;
}

uint64_t layout_dirty_bytes(const struct layout *layout)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < layout->extents->len; i++)
        if (is_dirty(at(layout, i)))
            bytes += at(layout, i)->end - at(layout, i)->start;
    return bytes;
}
