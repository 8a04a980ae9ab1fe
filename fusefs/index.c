#include "fusefs/index.h"

#include <string.h>
#include <zlib.h>

#define HEADER      "dstack-index 1\n"
#define CHUNK       (64 * 1024)
#define NAME_BYTES  255
#define ETAG_BYTES  255
#define TARGET_MAX  4096
#define ENTRY_BYTES 58
#define KEPT_FLAGS  (RECORD_EXACT | RECORD_XATTRS)

/* --- writing --- */

static void add_number(GByteArray *raw, uint64_t number, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)(number >> (8 * i));

        g_byte_array_append(raw, &byte, 1);
    }
}

bool index_add(GByteArray *raw, const struct record *record)
{
    const char *etag = record_etag(record), *target = record_target(record);
    size_t name_bytes = strlen(record->name), etag_bytes = strlen(etag ? etag : ""),
           target_bytes = strlen(target ? target : "");

    if (raw->len + ENTRY_BYTES + name_bytes + etag_bytes + target_bytes > INDEX_RAW_MAX)
        return false;
    if (!name_bytes || name_bytes > NAME_BYTES || !etag_bytes || etag_bytes > ETAG_BYTES ||
        target_bytes >= TARGET_MAX)
        return true; /* left out */
    add_number(raw, name_bytes, 1);
    add_number(raw, etag_bytes, 1);
    add_number(raw, target_bytes, 2);
    add_number(raw, record->flags & KEPT_FLAGS, 2);
    add_number(raw, record->mode, 4);
    add_number(raw, record->uid, 4);
    add_number(raw, record->gid, 4);
    add_number(raw, (uint64_t)record->mtime_ns, 8);
    add_number(raw, (uint64_t)record->ctime_ns, 8);
    add_number(raw, (uint64_t)record->atime_ns, 8);
    add_number(raw, record->size, 8);
    add_number(raw, (uint64_t)record->changed_ns, 8);
    g_byte_array_append(raw, (const uint8_t *)record->name, (guint)name_bytes);
    g_byte_array_append(raw, (const uint8_t *)etag, (guint)etag_bytes);
    g_byte_array_append(raw, (const uint8_t *)target, (guint)target_bytes);
    return true;
}

static void deflate_into(GByteArray *packed, z_stream *stream, const void *data, size_t size,
                         int flush)
{
    uint8_t chunk[16 * 1024];

    stream->next_in = (Bytef *)(uintptr_t)data;
    stream->avail_in = (uInt)size;
    do {
        stream->next_out = chunk;
        stream->avail_out = sizeof(chunk);
        deflate(stream, flush);
        g_byte_array_append(packed, chunk, (guint)(sizeof(chunk) - stream->avail_out));
    } while (stream->avail_out == 0);
}

GBytes *index_pack(const GByteArray *raw)
{
    GByteArray *packed = g_byte_array_new();
    z_stream stream = {0};

    g_byte_array_append(packed, (const uint8_t *)HEADER, strlen(HEADER));
    if (deflateInit(&stream, Z_BEST_SPEED) != Z_OK)
        g_error("zlib cannot begin"); /* as when any other memory is refused */
    deflate_into(packed, &stream, raw->data, raw->len, Z_NO_FLUSH);
    deflate_into(packed, &stream, "", 1, Z_FINISH);
    deflateEnd(&stream);
    return g_byte_array_free_to_bytes(packed);
}

/* --- reading --- */

struct reader {
    z_stream stream;
    uint8_t *chunk;
    size_t at, filled;
    uint64_t total;
    bool ended;
};

/* The next SIZE bytes (at most CHUNK / 2) in one piece; NULL: there are not so many. */
static const uint8_t *take(struct reader *reader, size_t size)
{
    const uint8_t *taken;

    if (reader->filled - reader->at < size) {
        memmove(reader->chunk, reader->chunk + reader->at, reader->filled - reader->at);
        reader->filled -= reader->at;
        reader->at = 0;
    }
    while (reader->filled < size && !reader->ended) {
        int rc;

        reader->stream.next_out = reader->chunk + reader->filled;
        reader->stream.avail_out = (uInt)(CHUNK - reader->filled);
        rc = inflate(&reader->stream, Z_NO_FLUSH);
        reader->filled = CHUNK - reader->stream.avail_out;
        reader->ended = rc == Z_STREAM_END;
        if (rc != Z_OK && rc != Z_STREAM_END)
            return NULL; /* damaged, or cut short */
    }
    if (reader->filled - reader->at < size || (reader->total += size) > INDEX_RAW_MAX + 1)
        return NULL;
    taken = reader->chunk + reader->at;
    reader->at += size;
    return taken;
}

static uint64_t number_at(const uint8_t **at, unsigned bytes)
{
    uint64_t number = 0;

    for (unsigned i = 0; i < bytes; i++)
        number |= (uint64_t)(*at)[i] << (8 * i);
    *at += bytes;
    return number;
}

/* A zero-terminated copy; NULL when it has a zero inside. */
static char *text_at(const uint8_t **at, size_t bytes)
{
    const uint8_t *text = *at;

    *at += bytes;
    return memchr(text, '\0', bytes) ? NULL : g_strndup((const char *)text, bytes);
}

static void take_numbers(struct record *record, uint32_t flags, const uint8_t *at)
{
    record->flags = (flags & KEPT_FLAGS) | RECORD_FULL | RECORD_INDEXED;
    record->mode = (uint32_t)number_at(&at, 4);
    record->uid = (uint32_t)number_at(&at, 4);
    record->gid = (uint32_t)number_at(&at, 4);
    record->mtime_ns = (int64_t)number_at(&at, 8);
    record->ctime_ns = (int64_t)number_at(&at, 8);
    record->atime_ns = (int64_t)number_at(&at, 8);
    record->size = number_at(&at, 8);
    record->changed_ns = (int64_t)number_at(&at, 8);
}

/* Only files and symlinks are in an index, and only the latter have targets. */
static bool is_sane(const struct record *record)
{
    mode_t type = record->mode & S_IFMT;

    return record->mode <= 0177777 && (type == S_IFREG || type == S_IFLNK) &&
           (type == S_IFLNK || !record_target(record)) && record_etag(record) &&
           !strchr(record->name, '/');
}

/* One entry, whose first byte was NAME_BYTES; NULL: it is none. */
static struct record *parse_entry(struct reader *reader, size_t name_bytes)
{
    uint8_t fixed[ENTRY_BYTES - 1];
    g_autofree char *name = NULL, *etag = NULL, *target = NULL;
    const uint8_t *at = take(reader, sizeof(fixed));
    size_t etag_bytes, target_bytes;
    struct record *record;
    uint32_t flags;

    if (!at)
        return NULL;
    memcpy(fixed, at, sizeof(fixed)); /* the chunk moves on */
    at = fixed;
    etag_bytes = (size_t)number_at(&at, 1);
    target_bytes = (size_t)number_at(&at, 2);
    flags = (uint32_t)number_at(&at, 2);
    if (target_bytes >= TARGET_MAX)
        return NULL;
    {
        const uint8_t *texts = take(reader, name_bytes + etag_bytes + target_bytes);

        if (!texts || !(name = text_at(&texts, name_bytes)) ||
            !(etag = text_at(&texts, etag_bytes)) || !(target = text_at(&texts, target_bytes)))
            return NULL;
    }
    record = record_new(name, etag, target);
    take_numbers(record, flags, at);
    if (is_sane(record))
        return record;
    record_free(record);
    return NULL;
}

static bool parse_entries(struct reader *reader, GHashTable *records)
{
    for (;;) {
        const uint8_t *first = take(reader, 1);
        struct record *record;

        if (!first)
            return false;
        if (!*first) /* the end, behind which the checksum has to hold */
            return !take(reader, 1) && reader->ended;
        record = parse_entry(reader, *first);
        if (!record)
            return false;
        g_hash_table_add(records, record->name);
    }
}

GHashTable *index_parse(const void *data, size_t size)
{
    g_autoptr(GHashTable) records = records_new();
    g_autofree uint8_t *chunk = NULL;
    struct reader reader = {0};
    bool ok;

    if (size < strlen(HEADER) || size > INDEX_OBJECT_MAX ||
        memcmp(data, HEADER, strlen(HEADER)) != 0 || inflateInit(&reader.stream) != Z_OK)
        return NULL;
    reader.chunk = chunk = g_malloc(CHUNK);
    reader.stream.next_in = (Bytef *)((uintptr_t)data + strlen(HEADER));
    reader.stream.avail_in = (uInt)(size - strlen(HEADER));
    ok = parse_entries(&reader, records);
    inflateEnd(&reader.stream);
    return ok ? g_steal_pointer(&records) : NULL;
}
