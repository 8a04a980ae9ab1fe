/* A journal's file. The input is what stands from the first chain on; its table names the input's
 * begin, and what the input's first bytes name. Every byte that an entry says is there is read. */
#include "fusefs/journal_format.h"
#include "fusefs/journal_read.h"

#include <string.h>

#define SLOTS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_backed(const void *user, uint64_t pos, uint64_t length)
{
    return true;
}

static void read_entry(const struct journal_entry *entry)
{
    uint64_t at = 0, sum = 0;

    g_assert(entry->path && *entry->path && entry->metadata);
    for (unsigned i = 0; i < layout_count(&entry->layout); i++) {
        const struct extent *extent = layout_at(&entry->layout, i);

        g_assert(extent->start == at && extent->end > at);
        at = extent->end;
        for (uint64_t j = 0; extent->buffer && j < extent->end - extent->start; j += 512)
            sum += extent->buffer->data[extent->buffer_offset + j];
    }
    g_assert(at == layout_size(&entry->layout) && sum < UINT64_MAX);
}

/* A checksum keeps most inputs out: it is put right, so that what is behind it is read too. */
static void mend(uint8_t *file, size_t size)
{
    struct journal_head *head = (void *)(file + JOURNAL_SLOT + sizeof(struct journal_piece));
    size_t most = size > sizeof(struct journal_piece) + sizeof(*head)
                      ? size - sizeof(struct journal_piece) - sizeof(*head)
                      : 0;

    if (head->image_bytes <= most && head->generation % 2)
        head->image_check = journal_hash(head + 1, head->image_bytes, head->generation);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *file = g_malloc0(SLOTS * JOURNAL_SLOT);
    g_autoptr(GPtrArray) entries = NULL;
    uint64_t first = JOURNAL_SLOT;
    unsigned damaged;

    if (size < sizeof(uint64_t) || size > (SLOTS - 1) * JOURNAL_SLOT)
        return 0;
    memcpy(file + JOURNAL_TABLE, &first, sizeof(first));
    memcpy(file + JOURNAL_TABLE + sizeof(first), data + size - sizeof(first), sizeof(first));
    memcpy(file + JOURNAL_SLOT, data, size);
    mend(file, size);
    entries = journal_read(file, SLOTS * JOURNAL_SLOT, is_backed, NULL, &damaged);
    for (guint i = 0; i < entries->len; i++)
        read_entry(entries->pdata[i]);
    return 0;
}
