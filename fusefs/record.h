/* What is known of a name that has no inode: its type, or all that stat and readlink tell.
 *
 * shape: one allocation, found by its name: a table of records is a set of their names.
 * units: bytes, nanoseconds since 1970.
 */
#pragma once

#include "storage/store.h"
#include <stddef.h>
#include <sys/stat.h>

enum record_flag {
    RECORD_FULL = 1,   /* the fields below the flags are known; else of the mode the type at most */
    RECORD_EXACT = 2,  /* a listing told changed_ns; else it is a bound */
    RECORD_XATTRS = 4, /* the object has extended attributes */
    RECORD_INDEXED = 8, /* the directory's index says the same */
};

struct record {
    uint32_t mode; /* 0: unknown */
    uint32_t flags;
    uint32_t uid, gid;
    int64_t mtime_ns, ctime_ns, atime_ns;
    uint64_t size;
    int64_t changed_ns; /* when the store last changed the object, or a time that was not before;
                         * 0: unknown */
    char name[];        /* and behind it, each with its zero: the ETag, a symlink's target */
};

/* ETAG and TARGET may be NULL. Everything else is 0. */
struct record *record_new(const char *name, const char *etag, const char *target);
struct record *record_new_plain(const char *name, mode_t type);
void record_free(struct record *record);

/* The same with another ETag, changed at CHANGED_NS at the latest. */
struct record *record_moved(const struct record *record, const char *etag, int64_t changed_ns);

const char *record_etag(const struct record *record);   /* NULL: none */
const char *record_target(const struct record *record); /* NULL: unknown */
size_t record_bytes(const struct record *record);       /* with its place in a table */

/* What RECORD says is true of OBJECT, which a listing told. */
bool record_matches(const struct record *record, const struct store_object *object);

/* Until when the second may last that a store means with a time told to the second: the clock that
 * it tells is time(2), which may be some milliseconds behind the one that it stamps objects with.
 */
#define RECORD_BOUND_MS 1050
int64_t record_bound(int64_t told_ns);

/* Tables: names that are those of records, which the table owns. */
GHashTable *records_new(void);
struct record *record_of(const char *name); /* NAME is a record's own */
struct record *records_find(GHashTable *records, const char *name);
