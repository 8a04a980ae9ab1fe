#include "fusefs/ranges.h"

struct range {
    uint64_t start, end;
};

void ranges_init(struct ranges *ranges)
{
    ranges->items = g_array_new(FALSE, FALSE, sizeof(struct range));
}

void ranges_free(struct ranges *ranges)
{
    g_array_unref(ranges->items);
}

void ranges_clear(struct ranges *ranges)
{
    g_array_set_size(ranges->items, 0);
}

static struct range *range_at(const struct ranges *ranges, unsigned index)
{
    return &g_array_index(ranges->items, struct range, index);
}

/* How many end below AT. */
static unsigned count_below(const struct ranges *ranges, uint64_t at)
{
    unsigned low = 0, high = ranges->items->len;

    while (low < high) {
        unsigned middle = low + (high - low) / 2;

        if (range_at(ranges, middle)->end < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void ranges_add(struct ranges *ranges, uint64_t start, uint64_t end)
{
    unsigned first = count_below(ranges, start), next = first;
    struct range whole = {start, end};

    if (start >= end)
        return;
    for (; next < ranges->items->len && range_at(ranges, next)->start <= end; next++) {
        whole.start = MIN(whole.start, range_at(ranges, next)->start);
        whole.end = MAX(whole.end, range_at(ranges, next)->end);
    }
    if (next > first)
        g_array_remove_range(ranges->items, first, next - first);
    else if (ranges->items->len == RANGES_MAX) {
        ranges_clear(ranges);
        first = 0;
    }
    g_array_insert_val(ranges->items, first, whole);
}

bool ranges_hold(const struct ranges *ranges, uint64_t start, uint64_t end)
{
    unsigned index = count_below(ranges, end);

    return index < ranges->items->len && range_at(ranges, index)->start <= start;
}

uint64_t ranges_gap_above(const struct ranges *ranges, uint64_t at, uint64_t *end)
{
    unsigned index = count_below(ranges, at);

    if (index < ranges->items->len && range_at(ranges, index)->start <= at)
        at = range_at(ranges, index++)->end;
    *end = index < ranges->items->len ? range_at(ranges, index)->start : UINT64_MAX;
    return at;
}

uint64_t ranges_gap_below(const struct ranges *ranges, uint64_t at, uint64_t *start)
{
    unsigned index = count_below(ranges, at);

    if (index < ranges->items->len && range_at(ranges, index)->start <= at)
        at = range_at(ranges, index)->start;
    *start = at && index ? range_at(ranges, index - 1)->end : 0;
    return at;
}
