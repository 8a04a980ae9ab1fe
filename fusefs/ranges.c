#include "fusefs/ranges.h"

struct range {
    uint64_t start, end;
};

void ranges_clear(struct ranges *ranges)
{
    g_clear_pointer(&ranges->items, g_array_unref);
}

static unsigned count_of(const struct ranges *ranges)
{
    return ranges->items ? ranges->items->len : 0;
}

static struct range *range_at(const struct ranges *ranges, unsigned index)
{
    return &g_array_index(ranges->items, struct range, index);
}

/* How many end below AT. */
static unsigned count_below(const struct ranges *ranges, uint64_t at)
{
    unsigned low = 0, high = count_of(ranges);

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
    for (; next < count_of(ranges) && range_at(ranges, next)->start <= end; next++) {
        whole.start = MIN(whole.start, range_at(ranges, next)->start);
        whole.end = MAX(whole.end, range_at(ranges, next)->end);
    }
    if (next > first) {
        g_array_remove_range(ranges->items, first, next - first);
    } else if (count_of(ranges) == RANGES_MAX) {
        ranges_clear(ranges);
        first = 0;
    }
    if (!ranges->items)
        ranges->items = g_array_new(FALSE, FALSE, sizeof(struct range));
    g_array_insert_val(ranges->items, first, whole);
}

bool ranges_hold(const struct ranges *ranges, uint64_t start, uint64_t end)
{
    unsigned index = count_below(ranges, end);

    return index < count_of(ranges) && range_at(ranges, index)->start <= start;
}

static bool counts(const struct range *range, uint64_t least)
{
    return range->end - range->start >= least;
}

uint64_t ranges_gap_above(const struct ranges *ranges, uint64_t at, uint64_t least, uint64_t *end)
{
    unsigned index = count_below(ranges, at), count = count_of(ranges);

    if (index < count && range_at(ranges, index)->start <= at) {
        if (counts(range_at(ranges, index), least))
            at = range_at(ranges, index)->end;
        index++;
    }
    while (index < count && !counts(range_at(ranges, index), least))
        index++;
    *end = index < count ? range_at(ranges, index)->start : UINT64_MAX;
    return at;
}

uint64_t ranges_gap_below(const struct ranges *ranges, uint64_t at, uint64_t least, uint64_t *start)
{
    unsigned index = count_below(ranges, at);

    if (index < count_of(ranges) && range_at(ranges, index)->start <= at &&
        counts(range_at(ranges, index), least))
        at = range_at(ranges, index)->start;
    while (index && !counts(range_at(ranges, index - 1), least))
        index--;
    *start = at && index ? range_at(ranges, index - 1)->end : 0;
    return at;
}
