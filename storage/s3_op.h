/* One call to an S3 store under way: the driver's own, shared by s3.c (the driver), s3_check.c,
 * s3_request.c (calls into requests) and s3_answer.c (answers into calls).
 *
 * shape: a call is one request; what may be needed besides is in its stages:
 *
 *   CHECK_SOURCE  before a copy with if_match: not every store compares the source's ETag itself.
 *   MAIN          the request itself.
 *   CHECK_LANDED  a try failed half-way, and the next one says that the condition does not hold or
 *                 the upload is gone: is what is there now ours, from the first try? It is when it
 *                 has our write id; equal bytes or ETags say nothing.
 *   FIND_ETAG     the answer to a commit did not name the new ETag, and it cannot be computed.
 *   DELETE_ODD    keys that no XML document can hold, and those that failed for a passing reason,
 *                 deleted one by one behind the others.
 */
#pragma once

#include "storage/credentials.h"
#include "storage/http.h"
#include "storage/s3_sign.h"
#include "storage/s3_uploads.h"
#include "storage/store_driver.h"
#include "storage/uri.h"
#include <pthread.h>

#include <pthread.h>

/* Metadata of our own: which conditional write, or which upload, made the object. Only CHECK_LANDED
 * looks at it; callers neither see it nor set it. */
#define S3_WRITE_ID "dstack-write"

struct s3_store {
    struct store store;
    struct http_engine *engine;
    char *profile;                    /* as asked for; NULL */
    pthread_mutex_t credentials_lock; /* guards the next three */
    struct credentials credentials;
    unsigned credentials_number; /* goes up when they are renewed */
    int64_t credentials_read_us;
    struct uri_endpoint endpoint; /* the host is what requests go to */
    struct s3_uploads *uploads;
    char *bucket;
    bool virtual_host;
    bool signs_bodies; /* with their SHA-256 */
    unsigned deadline_ms, stall_ms;
    int64_t clock_offset_s; /* atomic: what the server's clock is ahead of ours, as far as known */

    pthread_mutex_t hash_lock;
    struct pool *hash_pool; /* guarded by hash_lock; NULL until a large body is to be hashed */
};

enum s3_stage {
    S3_CHECK_SOURCE,
    S3_MAIN,
    S3_CHECK_UPLOAD,
    S3_CHECK_LANDED,
    S3_FIND_ETAG,
    S3_DELETE_ODD
};

struct s3_op {
    struct http_request http;
    struct s3_store *s3;
    struct store_call *call;
    enum s3_stage stage;
    char *path, *query; /* encoded */
    char *payload;      /* what is signed for the body */
    char *checksum;     /* of the body of a PUT or PART, when it is sent */
    bool has_checksum;  /* this request says something of checksums */
    bool is_checksum_refused;
    char *write_id;     /* of a conditional PUT or COPY, a BEGIN or a COMMIT; NULL: it has none.
                         * Of all tries and stages */
    GPtrArray *headers; /* "name:value", the same for each try */
    GString *xml;       /* a body of our own */
    struct iovec xml_iov;
    GPtrArray *odd_keys;     /* char *; of DELETE_ODD, the last one is next */
    GError *first_error;     /* what CHECK_LANDED is to clear up; the first one of DELETE_ODD */
    unsigned signed_with;    /* the number of the credentials of the last try */
    bool has_set_clock;      /* the clock's offset was taken over; once a call */
    bool has_checked_upload; /* CHECK_UPLOAD: once a call */
    bool maybe_landed;       /* as http.maybe_landed, of each MAIN so far */
    int64_t deadline_us;     /* of the call, all stages */
};

/* Refuses calls that no request can be made of. */
bool s3_request_check(const struct store_call *call, const struct store_caps *caps, GError **error);

/* Why an object cannot have this metadata; NULL: it can. */
const char *s3_metadata_fault(const char *name, const char *value);

/* Whether VERB is about one object; else about the bucket. */
bool s3_wants_key(enum store_verb verb);

/* Makes OP->http and what it needs for OP->stage. */
void s3_request_make(struct s3_op *op);
void s3_request_clear(struct s3_op *op);

/* s3_sign with the store's keys. */
void s3_credentials_sign(struct s3_op *op, struct s3_signing *signing, GPtrArray *headers);
/* Whether the store refused the keys of the last try (CODE may be NULL), and there are others now.
 */
bool s3_credentials_renewed(struct s3_op *op, const char *code);

/* Seconds since 1970, by the server's clock. */
int64_t s3_now_s(const struct s3_store *s3);

/* http_request's judge: answers that say the opposite of their status, and short ones. */
enum http_verdict s3_answer_judge(struct http_request *http, enum http_verdict verdict, char **why);

/* Puts the answer of stage MAIN into OP->call. *CODE (may stay NULL) is S3's code of a failure. */
bool s3_answer_take(struct s3_op *op, char **code, GError **error);

/* Whether a commit fails again and again in a way that some stores fail for ever when the upload is
 * gone: that is to be looked at. */
bool s3_answer_is_stuck(const struct s3_op *op);

/* What the HEAD answer of CHECK_LANDED says. Ours: the call's answer is taken from it. */
enum s3_landed { S3_OURS, S3_NOT_OURS, S3_UNKNOWN };
enum s3_landed s3_answer_landed(struct s3_op *op);

/* The failure an answer stands for: "put KEY: HTTP 503 SlowDown: … after 5 tries in 31.0 s". */
void s3_answer_error(struct s3_op *op, const char *code, const char *message, GError **error);
const char *s3_verb_name(enum store_verb verb);
/* What the call is about, printable; the caller's to free. */
char *s3_object_name(const struct s3_op *op);
