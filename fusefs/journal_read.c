#include "fusefs/journal_read.h"

#include "fusefs/journal_format.h"
#include "fusefs/upload.h"

#include <string.h>

struct reader {
    const uint8_t *data;
    uint64_t size;
    journal_is_backed *is_backed;
    const void *user;
};

/* --- a chain's stream --- */

static bool is_there(const struct reader *reader, uint64_t pos, uint64_t length)
{
    return pos <= reader->size && length <= reader->size - pos &&
           reader->is_backed(reader->user, pos, length);
}

/* Everything behind the head of the chain at POS, or as much as there is of it. */
static GByteArray *read_stream(const struct reader *reader, uint64_t pos, uint64_t most)
{
    GByteArray *stream = g_byte_array_new();
    uint64_t skip = sizeof(struct journal_piece) + sizeof(struct journal_head);

    while (pos && stream->len < most) {
        const struct journal_piece *piece;
        uint64_t capacity, here;

        if (pos % JOURNAL_CHUNK || !is_there(reader, pos, JOURNAL_CHUNK))
            break;
        piece = (const void *)(reader->data + pos);
        capacity = piece->capacity;
        if (capacity < JOURNAL_CHUNK || capacity > JOURNAL_SLOT || capacity % JOURNAL_CHUNK)
            break;
        here = MIN(capacity - skip, most - stream->len);
        if (!is_there(reader, pos, skip + here)) /* behind it nobody may ever have written */
            break;
        g_byte_array_append(stream, reader->data + pos + skip, here);
        skip = sizeof(struct journal_piece);
        pos = atomic_load(&piece->next);
    }
    return stream;
}

/* --- an image --- */

struct cursor {
    const uint8_t *at, *end;
    bool bad;
};

static uint64_t take_number(struct cursor *c)
{
    uint64_t number = 0;

    if ((size_t)(c->end - c->at) < sizeof(number)) {
        c->bad = true;
        return 0;
    }
    memcpy(&number, c->at, sizeof(number));
    c->at += sizeof(number);
    return number;
}

/* A number of things of at least LEAST bytes each. */
static uint64_t take_count(struct cursor *c, uint64_t least)
{
    uint64_t count = take_number(c);

    c->bad = c->bad || count > (uint64_t)(c->end - c->at) / least;
    return c->bad ? 0 : count;
}

static char *take_string(struct cursor *c)
{
    uint64_t length = take_number(c);
    char *text;

    if (c->bad || length == JOURNAL_NONE)
        return NULL;
    if (length > (uint64_t)(c->end - c->at) || memchr(c->at, '\0', length)) {
        c->bad = true;
        return NULL;
    }
    text = g_strndup((const char *)c->at, length);
    c->at += length;
    return text;
}

static GHashTable *take_metadata(struct cursor *c)
{
    GHashTable *metadata = metadata_new();

    for (uint64_t left = take_count(c, 16); left && !c->bad; left--) {
        char *name = take_string(c), *value = take_string(c);

        c->bad = c->bad || !name || !value;
        if (name && value)
            g_hash_table_replace(metadata, name, value);
        else
            g_free(name), g_free(value);
    }
    return metadata;
}

static struct upload *take_upload(struct cursor *c)
{
    g_autofree char *id = take_string(c);
    struct upload *upload;

    if (!id)
        return NULL;
    upload = upload_new(NULL);
    upload->id = g_steal_pointer(&id);
    upload->key = take_string(c);
    upload->lineage = take_string(c);
    c->bad = c->bad || !upload->key;
    upload->staged = key_is_staged(upload->key);
    for (uint64_t left = take_count(c, 32); left && !c->bad; left--) {
        uint64_t start = take_number(c), end = take_number(c);
        struct part *part;

        if (start != upload->end || end <= start) {
            c->bad = true;
            break;
        }
        part = part_new(upload, NULL, start, end);
        part->copied = take_number(c);
        part->etag = take_string(c);
        part->state = part->etag ? PART_SENT : PART_WAITING;
    }
    return upload;
}

/* Bytes of the file that are in the mapping. */
static bool put(const struct reader *reader, struct layout *layout, uint64_t offset, uint64_t pos,
                uint64_t length)
{
    struct buffer *buffer;

    if (!length || length > INT32_MAX || offset > INT64_MAX - length || pos < JOURNAL_SLOT ||
        !is_there(reader, pos, length))
        return false;
    buffer = buffer_over(reader->data + pos, length);
    layout_put(layout, offset, length, buffer, 0);
    buffer_unref(buffer);
    return true;
}

static void take_layout(const struct reader *reader, struct cursor *c, struct layout *layout)
{
    uint64_t at = 0;

    for (uint64_t left = take_count(c, 24); left && !c->bad; left--) {
        uint64_t end = take_number(c), pos = take_number(c), where = take_number(c);

        if (end <= at || end > INT64_MAX || where > 3 ||
            (pos != JOURNAL_NONE && !put(reader, layout, at, pos, end - at))) {
            c->bad = true;
            return;
        }
        layout_resize(layout, end);
        layout_set_places(layout, at, end, where & 1, where & 2);
        at = end;
    }
}

/* --- the records --- */

/* False: some of them are damaged, and nothing from there on counts. */
static bool replay(const struct reader *reader, struct layout *layout,
                   const struct journal_record *records, uint32_t count, uint64_t generation)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = records[i].offset, pos = records[i].pos;
        uint64_t word = atomic_load(&records[i].length);

        if (records[i].check != journal_record_check(offset, pos, generation) ||
            word != journal_length((uint32_t)word) || offset > INT64_MAX)
            return false;
        if (pos == JOURNAL_NONE)
            layout_resize(layout, offset);
        else if (!put(reader, layout, offset, pos, (uint32_t)word))
            return false;
    }
    return true;
}

/* Parts of which some byte was written to since are to be sent again. */
static void find_changed_parts(struct journal_entry *entry)
{
    for (guint i = 0; entry->upload && i < entry->upload->parts->len; i++) {
        struct part *part = entry->upload->parts->pdata[i];

        if (part->copied || !part->etag ||
            layout_is_in_part(&entry->layout, part->start, part->end))
            continue;
        part->state = PART_WAITING;
        g_clear_pointer(&part->etag, g_free); /* nobody can be sure of what is in it alone */
        layout_unmark_part(&entry->layout, part->start, part->end);
    }
}

static void read_image(const struct reader *reader, struct cursor *c, struct journal_entry *entry)
{
    entry->path = take_string(c);
    entry->etag = take_string(c);
    entry->base_key = take_string(c);
    entry->base_lineage = take_string(c);
    entry->base_size = take_number(c);
    entry->failed_close = take_number(c);
    entry->metadata = take_metadata(c);
    entry->upload = take_upload(c);
    take_layout(reader, c, &entry->layout);
    c->bad = c->bad || !entry->path || !*entry->path || c->at != c->end;
}

/* NULL: nothing of it can be used. */
static struct journal_entry *read_chain(const struct reader *reader, uint64_t pos)
{
    const struct journal_head *head;
    g_autoptr(GByteArray) stream = NULL;
    g_autoptr(JournalEntry) entry = NULL;
    uint64_t image, records;
    struct cursor c;

    if (pos < JOURNAL_SLOT || pos % JOURNAL_CHUNK || !is_there(reader, pos, JOURNAL_CHUNK))
        return NULL;
    head = (const void *)(reader->data + pos + sizeof(struct journal_piece));
    image = (head->image_bytes + sizeof(struct journal_record) - 1) /
            sizeof(struct journal_record) * sizeof(struct journal_record);
    records = atomic_load(&head->records);
    if (image + records * sizeof(struct journal_record) > reader->size)
        return NULL;
    stream = read_stream(reader, pos, image + records * sizeof(struct journal_record));
    if (!head->image_bytes || stream->len < head->image_bytes ||
        journal_hash(stream->data, head->image_bytes, head->generation) != head->image_check)
        return NULL;
    entry = g_new0(struct journal_entry, 1);
    layout_init(&entry->layout);
    entry->state = atomic_load(&head->state);
    c = (struct cursor){stream->data, stream->data + head->image_bytes, false};
    read_image(reader, &c, entry);
    if (c.bad)
        return NULL;
    entry->is_cut = stream->len < image + records * sizeof(struct journal_record) ||
                    !replay(reader, &entry->layout, (const void *)(stream->data + image),
                            (uint32_t)records, head->generation);
    find_changed_parts(entry);
    return g_steal_pointer(&entry);
}

void journal_entry_free(struct journal_entry *entry)
{
    if (!entry)
        return;
    layout_clear(&entry->layout);
    if (entry->upload)
        upload_free(entry->upload);
    if (entry->metadata)
        g_hash_table_unref(entry->metadata);
    g_free(entry->path);
    g_free(entry->etag);
    g_free(entry->base_key);
    g_free(entry->base_lineage);
    g_free(entry);
}

/* Failed closes first, in their order. */
static int compare_entries(const void *a, const void *b)
{
    const struct journal_entry *x = *(struct journal_entry *const *)a;
    const struct journal_entry *y = *(struct journal_entry *const *)b;
    uint64_t m = x->failed_close - 1, n = y->failed_close - 1; /* 0: the last */

    return m < n ? -1 : m > n ? 1 : strcmp(x->path, y->path);
}

GPtrArray *journal_read(const uint8_t *data, uint64_t size, journal_is_backed *is_backed,
                        const void *user, unsigned *damaged)
{
    GPtrArray *entries = g_ptr_array_new_with_free_func((GDestroyNotify)journal_entry_free);
    struct reader reader = {data, size, is_backed, user};
    const _Atomic uint64_t *table = (const void *)(data + JOURNAL_TABLE);

    *damaged = 0;
    for (uint32_t i = 0; size >= JOURNAL_SLOT && i < JOURNAL_FILES; i++) {
        uint64_t pos = atomic_load(&table[i]);
        struct journal_entry *entry;

        if (!pos)
            continue;
        entry = read_chain(&reader, pos);
        *damaged += !entry || entry->is_cut;
        if (!entry)
            continue;
        entry->index = i;
        g_ptr_array_add(entries, entry);
    }
    g_ptr_array_sort(entries, compare_entries);
    return entries;
}
