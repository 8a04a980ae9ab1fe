/* What a lease's object says: whose it is, and what of theirs is under way in the store.
 *
 * shape:  JSON, {"version": 1, "owner": ID, "host", "machine", "pid", "start_ticks", "since",
 *         "beats", "ttl_ms", "unsettled_ns", "uploads": [{"key", "id"}…], "renames": [{"from",
 *         "to"}…]}. OWNER names the mount's own objects (staged.c). safety: the bytes are foreign
 * until parsed; limits: 1 MiB, 10,000 uploads, 1,000 renames, a ttl of 1 s to 10 min.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct lease_upload {
    char *key, *id; /* id "": one that nobody knows the id of, if there is any */
};

struct lease_rename {
    char *from, *to; /* directories' keys, each ending in '/' */
};

struct lease_record {
    char *owner, *host, *machine;
    char *since; /* ISO 8601, UTC */
    int pid;
    uint64_t start_ticks;
    uint64_t beats; /* goes up with every writing, so that no two bodies are equal */
    unsigned ttl_ms;
    int64_t written_ns; /* of one taken over, by the store's clock; 0: unknown. Not in the JSON. */
    /* When the first of the mounts before it that nobody has cleared up behind last wrote; 0: there
     * is none. */
    int64_t unsettled_ns;
    GPtrArray *uploads; /* struct lease_upload* */
    GPtrArray *renames; /* struct lease_rename* */
};

#define LEASE_RECORD_MAX (1024 * 1024)

/* This process's, with nothing under way. */
struct lease_record *lease_record_new(unsigned ttl_ms);
struct lease_record *lease_record_parse(const char *text, size_t size, GError **error);
char *lease_record_format(const struct lease_record *record); /* the caller's; NULL: no memory */
void lease_record_free(struct lease_record *record);          /* takes NULL */
typedef struct lease_record LeaseRecord;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LeaseRecord, lease_record_free)

/* What was under way in BEFORE (NULL: nothing) is RECORD's to clear up now. */
void lease_record_inherit(struct lease_record *record, const struct lease_record *before);
/* Whether something is left for the next mount. */
bool lease_record_is_settled(const struct lease_record *record);

struct lease_upload *lease_upload_new(const char *key, const char *id);
struct lease_rename *lease_rename_new(const char *from, const char *to);

/* Whether its process is of this machine and has ended. */
bool lease_record_is_dead(const struct lease_record *record);

/* "node1 (pid 77), since 2026-01-02T03:04:05Z"; the caller's. */
char *lease_record_describe(const struct lease_record *record);
