/* The index's format, and when what it says is believed. */
#include "fusefs/index.h"

#include <criterion/criterion.h>
#include <string.h>
#include <zlib.h>

#define NS_PER_S INT64_C(1000000000)

static struct record *make(const char *name, const char *etag, const char *target)
{
    struct record *record = record_new(name, etag, target);

    record->flags = RECORD_FULL;
    record->mode = target ? S_IFLNK | 0777 : S_IFREG | 0640;
    record->uid = 1001;
    record->gid = UINT32_MAX - 1;
    record->mtime_ns = -1;
    record->ctime_ns = 1700000000 * NS_PER_S + 123456789;
    record->atime_ns = INT64_MAX;
    record->size = UINT64_C(5) << 40;
    record->changed_ns = 1700000000 * NS_PER_S;
    return record;
}

static GBytes *pack(struct record **records, unsigned count)
{
    g_autoptr(GByteArray) raw = g_byte_array_new();

    for (unsigned i = 0; i < count; i++)
        cr_assert(index_add(raw, records[i]));
    return index_pack(raw);
}

static GHashTable *parse(GBytes *bytes)
{
    gsize size;
    const void *data = g_bytes_get_data(bytes, &size);

    return index_parse(data, size);
}

static void check_same(const struct record *a, const struct record *b)
{
    cr_assert(a && b);
    cr_assert_eq(a->mode, b->mode);
    cr_assert_eq(a->uid, b->uid);
    cr_assert_eq(a->gid, b->gid);
    cr_assert_eq(a->mtime_ns, b->mtime_ns);
    cr_assert_eq(a->ctime_ns, b->ctime_ns);
    cr_assert_eq(a->atime_ns, b->atime_ns);
    cr_assert_eq(a->size, b->size);
    cr_assert_eq(a->changed_ns, b->changed_ns);
    cr_assert_str_eq(record_etag(a), record_etag(b));
    cr_assert_eq(g_strcmp0(record_target(a), record_target(b)), 0);
}

Test(index, what_was_packed_is_parsed)
{
    g_autofree char *longest = g_strnfill(255, 'n');
    struct record *records[] = {make("a", "etag", NULL), make("link", "e-2", "../x y"),
                                make(longest, "\"odd\"", NULL)};
    g_autoptr(GBytes) bytes = NULL;
    g_autoptr(GHashTable) table = NULL;

    records[0]->flags |= RECORD_EXACT | RECORD_XATTRS;
    bytes = pack(records, G_N_ELEMENTS(records));
    table = parse(bytes);
    cr_assert(table && g_hash_table_size(table) == G_N_ELEMENTS(records));
    for (unsigned i = 0; i < G_N_ELEMENTS(records); i++) {
        const struct record *found = records_find(table, records[i]->name);

        check_same(found, records[i]);
        cr_assert_eq(found->flags, records[i]->flags | RECORD_INDEXED);
        record_free(records[i]);
    }
    cr_assert_null(records_find(table, "b"));
}

Test(index, an_empty_one_is_one)
{
    g_autoptr(GBytes) bytes = pack(NULL, 0);
    g_autoptr(GHashTable) table = parse(bytes);

    cr_assert(table && g_hash_table_size(table) == 0);
}

Test(index, what_is_cut_or_changed_is_none)
{
    struct record *records[] = {make("a", "etag", NULL), make("b", "etag", NULL)};
    g_autoptr(GBytes) bytes = pack(records, 2);
    gsize size;
    const uint8_t *data = g_bytes_get_data(bytes, &size);

    for (gsize length = 0; length < size; length++)
        cr_assert_null(index_parse(data, length), "cut at %zu", length);
    for (gsize at = 0; at < size; at++) {
        g_autofree uint8_t *changed = g_memdup2(data, size);

        changed[at] ^= 0x10;
        cr_assert_null(index_parse(changed, size), "changed at %zu", at);
    }
    record_free(records[0]);
    record_free(records[1]);
}

/* The zlib stream of RAW, which may be no entries at all. */
static GHashTable *parse_raw(const void *raw, size_t size)
{
    uLongf bound = compressBound(size);
    const char *header = "dstack-index 1\n";
    g_autofree uint8_t *data = g_malloc(strlen(header) + bound);

    memcpy(data, header, strlen(header));
    cr_assert_eq(compress(data + strlen(header), &bound, raw, size), Z_OK);
    return index_parse(data, strlen(header) + bound);
}

static GHashTable *parse_one(const struct record *record, const char *behind, size_t size)
{
    g_autoptr(GByteArray) raw = g_byte_array_new();

    cr_assert(index_add(raw, record));
    g_byte_array_append(raw, (const uint8_t *)behind, size);
    return parse_raw(raw->data, raw->len);
}

Test(index, hostile_entries_are_refused)
{
    struct record *record = make("name", "etag", NULL);
    struct record *slash = make("a/b", "etag", NULL);
    struct record *target = make("name", "etag", "x");
    g_autoptr(GHashTable) good = parse_one(record, "", 1);
    g_autofree char *many = g_malloc0(64);

    cr_assert(good);
    cr_assert_null(parse_one(record, "", 0));   /* no end */
    cr_assert_null(parse_one(record, many, 2)); /* something behind it */
    cr_assert_null(parse_one(slash, "", 1));
    target->mode = S_IFREG | 0644;
    cr_assert_null(parse_one(target, "", 1)); /* a file with a target */
    for (mode_t type = 0; type <= S_IFMT; type += 010000) {
        g_autoptr(GHashTable) table = NULL;

        record->mode = type | 04755;
        table = parse_one(record, "", 1);
        cr_assert_eq(table != NULL, type == S_IFREG || type == S_IFLNK, "%o", type);
    }
    record->mode = UINT32_MAX;
    cr_assert_null(parse_one(record, "", 1));
    record_free(record);
    record_free(slash);
    record_free(target);
}

Test(index, a_bomb_is_refused_and_a_full_one_says_so)
{
    g_autofree uint8_t *ones = g_malloc(64 << 20);
    struct record *record = make("name", "etag", NULL);
    g_autoptr(GByteArray) raw = g_byte_array_new();
    unsigned count = 0;

    memset(ones, 1, 64 << 20);
    cr_assert_null(parse_raw(ones, 64 << 20));
    while (index_add(raw, record))
        count++;
    cr_assert(count > 200000 && raw->len <= INDEX_RAW_MAX);
    record_free(record);
}

Test(index, a_record_is_believed_only_of_the_object_it_was_made_of)
{
    struct record *record = make("name", "etag", NULL);
    int64_t at = record->changed_ns;
    struct store_object object = {.etag = "etag", .size_bytes = record->size, .mtime_ns = at};

    cr_assert(record_matches(record, &object));
    object.etag = "other";
    cr_assert_not(record_matches(record, &object));
    object.etag = NULL;
    cr_assert_not(record_matches(record, &object));
    object.etag = "etag";
    object.size_bytes--;
    cr_assert_not(record_matches(record, &object));
    object.size_bytes++;
    object.mtime_ns = at + 1; /* behind the bound */
    cr_assert_not(record_matches(record, &object));
    object.mtime_ns = at - 1;
    cr_assert(record_matches(record, &object));
    record->flags |= RECORD_EXACT;
    cr_assert_not(record_matches(record, &object));
    object.mtime_ns = 0; /* the store did not say */
    cr_assert_not(record_matches(record, &object));
    object.mtime_ns = at;
    cr_assert(record_matches(record, &object));
    record->flags &= ~(uint32_t)RECORD_FULL;
    cr_assert_not(record_matches(record, &object));
    cr_assert_gt(record_bound(5 * NS_PER_S), 6 * NS_PER_S);
    cr_assert_eq(record_bound(5 * NS_PER_S + 1), 5 * NS_PER_S + 1);
    record_free(record);
}
