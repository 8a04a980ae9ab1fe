#include "fusefs/record.h"

#include <string.h>

#define NS_PER_S    INT64_C(1000000000)
#define TABLE_BYTES 40 /* of an entry, and of the allocation */

struct record *record_new(const char *name, const char *etag, const char *target)
{
    size_t name_size = strlen(name) + 1, etag_size = strlen(etag ? etag : "") + 1,
           target_size = strlen(target ? target : "") + 1;
    struct record *record =
        g_malloc0(offsetof(struct record, name) + name_size + etag_size + target_size);

    memcpy(record->name, name, name_size);
    memcpy(record->name + name_size, etag ? etag : "", etag_size);
    memcpy(record->name + name_size + etag_size, target ? target : "", target_size);
    return record;
}

struct record *record_new_plain(const char *name, mode_t type)
{
    struct record *record = record_new(name, NULL, NULL);

    record->mode = type;
    return record;
}

void record_free(struct record *record)
{
    g_free(record);
}

struct record *record_moved(const struct record *record, const char *etag, int64_t changed_ns)
{
    struct record *moved = record_new(record->name, etag, record_target(record));

    memcpy(moved, record, offsetof(struct record, name));
    moved->flags &= ~(uint32_t)(RECORD_EXACT | RECORD_INDEXED);
    moved->changed_ns = changed_ns;
    return moved;
}

static const char *behind(const char *text)
{
    return text + strlen(text) + 1;
}

const char *record_etag(const struct record *record)
{
    const char *etag = behind(record->name);

    return *etag ? etag : NULL;
}

const char *record_target(const struct record *record)
{
    const char *target = behind(behind(record->name));

    return *target ? target : NULL;
}

size_t record_bytes(const struct record *record)
{
    const char *target = behind(behind(record->name));

    return (size_t)(behind(target) - (const char *)record) + TABLE_BYTES;
}

int64_t record_bound(int64_t told_ns)
{
    return told_ns % NS_PER_S ? told_ns : told_ns + RECORD_BOUND_MS * (NS_PER_S / 1000) - 1;
}

bool record_matches(const struct record *record, const struct store_object *object)
{
    const char *etag = record_etag(record);

    if (!(record->flags & RECORD_FULL) || !etag || g_strcmp0(etag, object->etag) != 0 ||
        record->size != object->size_bytes || !record->changed_ns || !object->mtime_ns)
        return false;
    return record->flags & RECORD_EXACT ? object->mtime_ns == record->changed_ns
                                        : object->mtime_ns <= record->changed_ns;
}

struct record *record_of(const char *name)
{
    return (struct record *)(void *)((char *)(uintptr_t)name - offsetof(struct record, name));
}

static void free_by_name(void *name)
{
    record_free(record_of(name));
}

GHashTable *records_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, free_by_name, NULL);
}

struct record *records_find(GHashTable *records, const char *name)
{
    gpointer found;

    return g_hash_table_lookup_extended(records, name, &found, NULL) ? record_of(found) : NULL;
}
