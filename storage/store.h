/* The store: one prefix of one object store, behind one interface.
 *
 * A request is a `struct store_call`: made by one of the store_call_* functions, filled with what
 * differs from the defaults, and given to store_start (asynchronous) or store_run (blocking). The
 * answer stands in the same struct. One shape for every request is what lets a layer (a fault
 * injector, a delay, a counter) be one function, and a caller keep many requests in flight.
 *
 * shape:   keys are UTF-8, relative to the store's prefix, never with a leading slash of their own
 *          meaning: "a//b" and "/a" are keys like any other. ETags are unquoted and opaque: equal
 *          ETags mean equal bytes under one key. Metadata are S3's x-amz-meta-NAME, lower-case
 *          NAME without that prefix, printable ASCII values.
 * units:   bytes, nanoseconds since 1970 (UTC), milliseconds for limits.
 * errors:  call->error, an errno value in DSTACK_ERROR (the table below).
 * owns:    a call owns its strings and tables; body and destination memory stay the caller's and
 *          must stay in place until the call is done.
 * threads: a store may be used from any thread. `done` runs once for each started call, on a thread
 *          of the store (or on the caller's, before store_start returns, when the call is refused
 *          outright); it must not block, and may start other calls.
 *
 *   ENOENT        no such key                    EACCES       refused (403, bad credentials)
 *   ENXIO         no such bucket or root         EEXIST       if_absent, and the key exists
 *   ESTALE        if_match, and the ETag differs ENOTSUP      see caps
 *   EINVAL        the store calls it malformed   ENAMETOOLONG the key is too long
 *   EDQUOT/ENOSPC quota, full                    EFBIG        larger than the store takes
 *   ETIMEDOUT     the deadline has passed        ECANCELED    store_cancel
 *   EHOSTUNREACH  cannot be reached at all       EIO          anything else
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct store;

/* What a driver can do, as data. Callers ask this, never which driver it is. */
struct store_caps {
    uint64_t min_part_bytes; /* every part of an upload but the last */
    uint64_t max_part_bytes; /* a part's bytes, and a copied part's range */
    uint64_t max_put_bytes;  /* STORE_PUT's body */
    uint64_t max_copy_bytes; /* STORE_COPY's source */
    uint64_t max_object_bytes;
    unsigned max_parts;
    unsigned max_key_bytes;      /* of the whole key: see store_max_key_bytes */
    unsigned max_delete_keys;    /* keys in one STORE_DELETE_MANY */
    unsigned max_list_entries;   /* entries in one page */
    unsigned max_metadata_bytes; /* names and values, summed */
    unsigned parallel;           /* calls in flight that still add throughput */
    /* A conditional call that is sent again because an answer was lost is recognised as carried out
     * by a random id that each conditional PUT, each conditional COPY with metadata and each upload
     * carries in the object's metadata (dstack-write; callers neither see nor set it). So EEXIST
     * and ESTALE mean: what is there now was written by somebody else. A COPY without metadata can
     * carry none. Other errors of a conditional call leave open whether it was carried out. On many
     * stores the same bytes have the same ETag: a write of what is there already is not seen by
     * if_match, so a lock's content must differ each time. */
    bool has_put_if_absent;   /* if_absent on STORE_PUT is atomic */
    bool has_put_if_match;    /* if_match on STORE_PUT is atomic */
    bool has_commit_if_match; /* the same two on STORE_COMMIT */
    bool has_current_list; /* a listing knows of every change that was answered before it began */
    bool has_copy_part;
    bool has_prefix_and_key; /* "a" and "a/b" can both be objects */
    bool has_checksum;       /* bodies carry their CRC-32C; false once the store has refused it */
};

struct store_object {
    char *key;
    char *etag;
    uint64_t size_bytes;
    int64_t mtime_ns;     /* when the store last changed it; 0 unknown */
    GHashTable *metadata; /* char* -> char*; NULL where the answer does not carry it (listings) */
};

void store_object_clear(struct store_object *object);
void store_object_free(struct store_object *object); /* takes NULL */
void store_object_copy(struct store_object *to, const struct store_object *from);

enum store_verb {
    STORE_HEAD,        /* key -> object */
    STORE_GET,         /* key, offset, iov [if_match] -> received_bytes, object */
    STORE_PUT,         /* key, iov, metadata [if_absent, if_match] -> object.etag */
    STORE_COPY,        /* source_key -> key [if_match: the source's ETag; metadata: replaces] */
    STORE_DELETE,      /* key; a key that is not there is a success */
    STORE_DELETE_MANY, /* keys -> failed_keys; the call fails when one of them failed */
    STORE_LIST,        /* key: prefix; delimiter, token, start_after, limit -> page */
    STORE_BEGIN,       /* key, metadata -> upload_id */
    STORE_PART,        /* key, upload_id, part_number, iov -> part_etag */
    STORE_COPY_PART,   /* key, upload_id, part_number, source_key, offset, length -> part_etag */
    STORE_COMMIT,      /* key, upload_id, parts [if_absent, if_match] -> object.etag */
    STORE_ABORT,       /* key, upload_id; one that is gone is a success */
    STORE_UPLOADS,     /* key: prefix; token, limit -> uploads: those in progress */
    STORE_VERBS
};

struct store_part {
    unsigned number; /* from 1 */
    char *etag;
};

struct store_upload {
    char *key, *upload_id;
    int64_t started_ns;
};

struct store_call;
typedef void store_done(struct store_call *call, void *user);

struct store_call {
    enum store_verb verb;

    /* The request. Strings and tables are owned by the call; iov[].iov_base is the caller's. */
    char *key, *source_key;
    char *if_match;
    bool if_absent;
    char *upload_id;
    unsigned part_number;
    uint64_t offset, length; /* STORE_GET: length is iov's sum; STORE_COPY_PART: the range */
    struct iovec *iov;
    unsigned iov_count;
    GHashTable *metadata;      /* NULL: none (STORE_COPY: keep the source's) */
    GPtrArray *keys;           /* char* */
    GArray *parts;             /* struct store_part, ascending numbers */
    bool delimiter;            /* fold keys at the next '/' into page prefixes */
    char *token, *start_after; /* continue a listing; or begin behind this key */
    unsigned limit;            /* 0: as many as a page takes */
    unsigned deadline_ms;      /* 0: the store's default; retries included */
    bool once;                 /* what may have been carried out is not sent again */

    /* The answer, valid once done. */
    GError *error; /* NULL: success */
    struct store_object object;
    int64_t answered_ns; /* the store's own time when it answered, on S3 to the second; 0 unknown */
    uint64_t received_bytes; /* STORE_GET: less than asked for only at the object's end */
    char *part_etag;
    bool maybe_twice;       /* STORE_BEGIN, failed ones too: there may be another upload of the key,
                             * of a try whose answer was lost */
    GPtrArray *failed_keys; /* char* */
    GPtrArray *objects;     /* struct store_object*, in key order */
    GPtrArray *prefixes;    /* char*, each ending in '/', in key order */
    GPtrArray *uploads;     /* struct store_upload* */
    char *next_token;       /* NULL: the last page */

    struct store_call_private *private; /* the interface's own: references, waiting, cancellation */
    void *driver_data;                  /* the driver's, between start and completion */
};

/* --- making calls; each returns one reference, released with store_call_unref (takes NULL) --- */
struct store_call *store_call_new(enum store_verb verb, const char *key);
struct store_call *store_call_get(const char *key, uint64_t offset, void *buffer, size_t size);
struct store_call *store_call_put(const char *key, const void *body, size_t size);
struct store_call *store_call_part(const char *key, const char *upload_id, unsigned number,
                                   const void *body, size_t size);
struct store_call *store_call_commit(const char *key, const char *upload_id);
void store_call_set_iov(struct store_call *call, const struct iovec *iov, unsigned count);
void store_call_set_metadata(struct store_call *call, const char *name, const char *value);
void store_call_add_part(struct store_call *call, unsigned number, const char *etag);
uint64_t store_call_body_bytes(const struct store_call *call);
struct store_call *store_call_ref(struct store_call *call);
void store_call_unref(struct store_call *call);
typedef struct store_call StoreCall;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StoreCall, store_call_unref)

/* --- running calls --- */

/* Starts CALL; DONE (may be NULL) is called once. Holds a reference until then. A call is started
 * once in its life. */
void store_start(struct store *store, struct store_call *call, store_done *done, void *user);

/* Waits until CALL is done. Bounded by the call's deadline. */
void store_wait(struct store_call *call);

/* Asks for an early end: the call is done soon, with ECANCELED unless it was done before. */
void store_cancel(struct store *store, struct store_call *call);

/* store_start and store_wait; false and *ERROR (a copy; call->error stays) when it failed. */
bool store_run(struct store *store, struct store_call *call, GError **error);

/* --- blocking short forms --- */
bool store_head(struct store *store, const char *key, struct store_object *object, GError **error);

/* Whether KEY is there; that it is not is no error. */
bool store_has(struct store *store, const char *key, bool *has, GError **error);

/* How long ago KEY was written, by the store's own clock: that of this machine may be wrong. */
bool store_age(struct store *store, const char *key, int64_t *age_ms, GError **error);

/* The whole object as bytes, with a zero byte behind them. EFBIG above LIMIT. ETAG may be NULL. */
bool store_read(struct store *store, const char *key, size_t limit, char **data, size_t *size,
                char **etag, GError **error);

/* CONDITION: NULL none; "" only when the key is absent (EEXIST); else only over this ETag (ESTALE).
 * NEW_ETAG may be NULL. */
bool store_write(struct store *store, const char *key, const void *data, size_t size,
                 const char *condition, char **new_etag, GError **error);
bool store_delete(struct store *store, const char *key, GError **error);

/* Every object whose key begins with PREFIX, a page at a time; stops when EACH returns false (which
 * is a success unless EACH set *ERROR). Directories are reported, with DELIMITER, as objects with
 * etag NULL and a key that ends in '/'. */
typedef bool store_each(const struct store_object *object, void *user, GError **error);
bool store_list(struct store *store, const char *prefix, bool delimiter, store_each *each,
                void *user, GError **error);

/* Deletes every object below PREFIX, in batches. COUNT (may be NULL) is how many. */
bool store_delete_prefix(struct store *store, const char *prefix, uint64_t *count, GError **error);

/* Aborts every upload to a key below PREFIX: nobody writes there any more. */
bool store_abort_uploads(struct store *store, const char *prefix, GError **error);

/* --- stores --- */
struct store_options {
    const char *endpoint;  /* S3: http[s]://host[:port]; NULL: AWS */
    const char *region;    /* NULL: from the environment or profile, else us-east-1 */
    const char *profile;   /* NULL: AWS_PROFILE or "default" */
    const char *cacert;    /* a PEM file instead of the system's; NULL: AWS_CA_BUNDLE names one */
    bool virtual_host;     /* bucket.host instead of host/bucket; AWS's default is set by itself */
    bool unsigned_payload; /* over http, as over https: bodies are not signed with their SHA-256 */
    unsigned threads;      /* of the HTTP engine; 0: default */
    unsigned deadline_ms;  /* of a call, 0: default (60 s; longer for large bodies) */
    unsigned stall_ms;     /* without a byte; 0: default (10 s) */
    unsigned connect_ms;   /* 0: default (5 s) */
};

/* URL: file:///dir, s3://bucket[/prefix]. Reads credentials, makes no request. NULL and *ERROR when
 * the URL or the credentials are no good. */
struct store *store_open(const char *url, const struct store_options *options, GError **error);

/* One LIST of one entry: is the store there, and do the credentials open it? Fails at once on a
 * refused connection: fewer retries than other calls. */
bool store_check(struct store *store, GError **error);

/* The same store, with PREFIX in front of every key. Holds a reference to STORE. */
struct store *store_view(struct store *store, const char *prefix);

/* Waits until no call is in flight, also of other holders of a reference: each has its deadline. */
void store_wait_idle(struct store *store);

struct store *store_ref(struct store *store);
void store_unref(struct store *store); /* the last one waits for calls in flight; takes NULL */
typedef struct store Store;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Store, store_unref)

const struct store_caps *store_caps(const struct store *store);
/* Of keys given to STORE: caps.max_key_bytes less what its prefix takes. */
unsigned store_max_key_bytes(const struct store *store);
const char *store_url(const struct store *store); /* for messages; without credentials */
