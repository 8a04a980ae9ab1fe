#include "storage/s3_op.h"

#include "config/error.h"
#include "storage/file_attrs.h"
#include "storage/http_retry.h"
#include "storage/s3_sign.h"
#include "storage/s3_xml.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_S        INT64_C(1000000000)
#define METADATA_PREFIX "x-amz-meta-"
#define MD5_BYTES       16
#define MESSAGE_MAX     300
#define CLOCK_SLACK_S   300 /* stores refuse 900 */
#define YEAR_10000_S    INT64_C(253402300800)
#define BROKEN_TRIES    8 /* a quarter of all answers broken: one call in 65,000 */
#define STUCK_TRIES     5

static bool is_success(const struct http_request *http)
{
    return http->status >= 200 && http->status < 300;
}

const char *s3_verb_name(enum store_verb verb)
{
    static const char *const names[STORE_VERBS] = {
        "look up",         "read",         "write",  "copy",
        "delete",          "delete keys",  "list",   "begin upload of",
        "upload part of",  "copy part of", "commit", "abort upload of",
        "list uploads of",
    };

    return names[verb];
}

/* --- failures --- */

static const struct {
    const char *code;
    int error;
} codes[] = {
    {"NoSuchBucket", ENXIO},        {"NoSuchKey", ENOENT},
    {"NoSuchUpload", ENOENT},       {"EntityTooLarge", EFBIG},
    {"EntityTooSmall", EINVAL},     {"KeyTooLongError", ENAMETOOLONG},
    {"QuotaExceeded", EDQUOT},      {"AuthorizationHeaderMalformed", EACCES},
    {"ExpiredToken", EACCES},       {"InvalidToken", EACCES},
    {"NotImplemented", ENOTSUP},    {"AccessDenied", EACCES},
    {"InvalidAccessKeyId", EACCES}, {"SignatureDoesNotMatch", EACCES},
};

static const struct {
    unsigned status;
    int error;
} statuses[] = {
    {400, EINVAL}, {401, EACCES}, {403, EACCES},       {404, ENOENT},  {405, ENOTSUP},
    {411, EFBIG},  {413, EFBIG},  {414, ENAMETOOLONG}, {501, ENOTSUP}, {507, ENOSPC},
};

static int error_code(const struct s3_op *op, const char *code)
{
    unsigned status = op->http.status;

    if (op->http.out_of_time)
        return ETIMEDOUT;
    /* 409: another conditional write of the key is under way. */
    if (status == 412 || (status == 409 && (op->call->if_absent || op->call->if_match)))
        return op->call->if_absent ? EEXIST : ESTALE;
    for (unsigned i = 0; code && i < G_N_ELEMENTS(codes); i++)
        if (g_str_equal(code, codes[i].code))
            return codes[i].error;
    for (unsigned i = 0; i < G_N_ELEMENTS(statuses); i++)
        if (status == statuses[i].status)
            return statuses[i].error;
    return status >= 300 && status < 500 ? EINVAL : EIO;
}

/* Foreign text becomes a printable line of at most LIMIT bytes. */
static char *tidy(const char *text, size_t limit)
{
    g_autofree char *valid = g_utf8_make_valid(text, (gssize)MIN(strlen(text), limit));
    GString *line = g_string_new(NULL);

    for (const char *c = valid; *c; c = g_utf8_next_char(c)) {
        gunichar character = g_utf8_get_char(c);

        g_string_append_unichar(line, g_unichar_isprint(character) ? character : ' ');
    }
    return g_string_free(line, FALSE);
}

char *s3_object_name(const struct s3_op *op)
{
    const char *key = op->call->key;

    return tidy(key && *key ? key : op->s3->bucket, SIZE_MAX);
}

void s3_answer_error(struct s3_op *op, const char *code, const char *message, GError **error)
{
    const struct http_request *http = &op->http;
    const char *region = http_header(http, "x-amz-bucket-region");
    g_autofree char *name = s3_object_name(op);
    g_autofree char *tidy_code = tidy(code ? code : "", MESSAGE_MAX);
    g_autofree char *tidy_message = tidy(message ? message : "", MESSAGE_MAX);
    g_autofree char *hint = NULL, *tidy_region = tidy(region ? region : "", MESSAGE_MAX);

    if (http->status >= 300 && http->status < 400 && region)
        hint = g_strdup_printf(" (the bucket is in region %s: name it)", tidy_region);
    error_set(error, error_code(op, code), "%s %s: HTTP %u%s%s%s%s%s after %u %s in %.1f s",
              s3_verb_name(op->call->verb), name, http->status, *tidy_code ? " " : "", tidy_code,
              *tidy_message ? ": " : "", tidy_message, hint ? hint : "", http->tries,
              http->tries == 1 ? "try" : "tries", http->seconds);
}

/* --- judging a try --- */

/* "bytes FIRST-LAST/TOTAL" */
static bool parse_range(const char *text, uint64_t *first, uint64_t *last, uint64_t *total)
{
    return text &&
           sscanf(text, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64, first, last, total) == 3 &&
           *last >= *first && *last < *total && *total <= INT64_MAX;
}

static uint64_t object_size(const struct http_request *http)
{
    const char *length = http_header(http, "content-length");
    uint64_t first, last, total;
    guint64 size = 0;

    if (parse_range(http_header(http, "content-range"), &first, &last, &total))
        return total;
    if (length)
        g_ascii_string_to_unsigned(length, 10, 0, G_MAXINT64, &size, NULL);
    return size;
}

static enum http_verdict judge_get(const struct s3_op *op, char **why)
{
    const struct http_request *http = &op->http;
    uint64_t first, last, total, expected;

    if (http->status == 206 &&
        parse_range(http_header(http, "content-range"), &first, &last, &total)) {
        expected = MIN(op->call->length, total - MIN(op->call->offset, total));
        if (first == op->call->offset && http->received_bytes == expected)
            return HTTP_ACCEPT;
    } else if (http->status == 200 && op->call->offset == 0 &&
               http_header(http, "content-length") && http->received_bytes == object_size(http)) {
        return HTTP_ACCEPT; /* the object at once; had it been longer, it would not have fitted */
    }
    *why = g_strdup_printf("read %s: the store sent another range than the one asked for",
                           op->call->key);
    return HTTP_RETRY;
}

/* Whether the store refused our signature's time (CODE may be NULL: a HEAD does not say); then its
 * own time is taken over. */
static bool set_clock(struct s3_op *op, const char *code)
{
    const char *date = http_header(&op->http, "date");
    time_t theirs = date ? http_date(date) : -1;
    int64_t ahead_s = (int64_t)theirs - s3_now_s(op->s3);

    if (op->http.status != 403 || theirs < 0 || theirs >= YEAR_10000_S || op->has_set_clock)
        return false;
    if (code ? !g_str_equal(code, "RequestTimeTooSkewed")
             : ahead_s < CLOCK_SLACK_S && ahead_s > -CLOCK_SLACK_S)
        return false;
    op->has_set_clock = true;
    __atomic_store_n(&op->s3->clock_offset_s, theirs - g_get_real_time() / G_USEC_PER_SEC,
                     __ATOMIC_RELAXED);
    return true;
}

/* An answer that was cut short or changed on its way: another try may bring it whole. */
static bool is_broken(const struct s3_op *op)
{
    const GString *body = op->http.body;

    switch (op->call->verb) {
    case STORE_COPY:
    case STORE_COPY_PART:
    case STORE_COMMIT:
    case STORE_BEGIN:
    case STORE_LIST:
    case STORE_UPLOADS:
        return op->http.tries < BROKEN_TRIES && !s3_xml_is_whole(body->str, body->len);
    default:
        return false;
    }
}

bool s3_answer_is_stuck(const struct s3_op *op)
{
    return op->call->verb == STORE_COMMIT && op->stage == S3_MAIN && !op->has_checked_upload &&
           !op->http.error && op->http.status == 500 && op->http.tries >= STUCK_TRIES;
}

enum http_verdict s3_answer_judge(struct http_request *http, enum http_verdict verdict, char **why)
{
    struct s3_op *op = (struct s3_op *)http;
    struct s3_error found = {0};

    if (is_success(http) && http->receive_iov)
        return judge_get(op, why);
    /* Long work is begun with status 200, and its failure is told in the body. */
    if (verdict == HTTP_ACCEPT && http->body->len)
        s3_xml_error(http->body->str, http->body->len, &found);
    if (http_retry_s3_code(found.code) || set_clock(op, found.code) ||
        s3_credentials_renewed(op, found.code) ||
        (is_success(http) && op->stage == S3_MAIN && is_broken(op)))
        verdict = HTTP_RETRY;
    s3_error_clear(&found);
    return s3_answer_is_stuck(op) ? HTTP_ACCEPT : verdict;
}

/* --- answers --- */

/* What could not be sent again is left out: it would make the object's next save fail. */
static void take_metadata(const struct http_request *http, struct store_object *object)
{
    GHashTableIter iter;
    gpointer name, value;

    object->metadata = metadata_new();
    g_hash_table_iter_init(&iter, http->headers);
    while (g_hash_table_iter_next(&iter, &name, &value)) {
        const char *own_name = (const char *)name + strlen(METADATA_PREFIX);

        if (g_str_has_prefix(name, METADATA_PREFIX) && !s3_metadata_fault(own_name, value))
            g_hash_table_replace(object->metadata, g_strdup(own_name), g_strdup(value));
    }
}

/* 0: there is no such header, or none that nanoseconds can tell. */
static int64_t header_ns(const struct http_request *http, const char *name)
{
    const char *text = http_header(http, name);
    time_t time = text ? http_date(text) : -1;

    return time > 0 && time < INT64_MAX / NS_PER_S ? (int64_t)time * NS_PER_S : 0;
}

static void take_object(struct s3_op *op)
{
    struct store_object *object = &op->call->object;
    const struct http_request *http = &op->http;
    const char *etag = http_header(http, "etag");

    store_object_clear(object);
    object->key = g_strdup(op->call->key);
    object->etag = etag ? s3_unquote(etag) : NULL;
    object->size_bytes = object_size(http);
    object->mtime_ns = header_ns(http, "last-modified");
    take_metadata(http, object);
}

static bool take_etag(struct s3_op *op, char **to, GError **error)
{
    const char *etag = http_header(&op->http, "etag");
    g_autofree char *name = s3_object_name(op);

    if (!etag)
        return error_set(error, EIO, "%s %s: the store's answer has no ETag",
                         s3_verb_name(op->call->verb), name);
    g_free(*to);
    *to = s3_unquote(etag);
    return true;
}

static bool take_text(struct s3_op *op, const char *root, const char *name, char **to,
                      GError **error)
{
    char *text = s3_xml_text(op->http.body->str, op->http.body->len, root, name, error);

    if (!text)
        return false;
    g_free(*to);
    *to = text;
    return true;
}

/* The ETag of an upload whose parts' ETags are their MD5s; NULL when they are something else. */
static char *upload_etag(GArray *parts)
{
    g_autoptr(GChecksum) checksum = g_checksum_new(G_CHECKSUM_MD5);

    for (guint i = 0; parts && i < parts->len; i++) {
        const char *etag = g_array_index(parts, struct store_part, i).etag;
        uint8_t digest[MD5_BYTES];

        if (strlen(etag) != 2 * MD5_BYTES || strspn(etag, "0123456789abcdef") != 2 * MD5_BYTES)
            return NULL;
        for (unsigned b = 0; b < MD5_BYTES; b++)
            digest[b] = (uint8_t)(g_ascii_xdigit_value(etag[2 * b]) * 16 +
                                  g_ascii_xdigit_value(etag[2 * b + 1]));
        g_checksum_update(checksum, digest, sizeof(digest));
    }
    return parts ? g_strdup_printf("%s-%u", g_checksum_get_string(checksum), parts->len) : NULL;
}

/* Some stores leave the new ETag out; then it is what it must be, and NULL when that is unknown. */
static bool take_commit(struct s3_op *op, GError **error)
{
    struct store_object *object = &op->call->object;

    if (!take_text(op, "CompleteMultipartUploadResult", "ETag", &object->etag, error))
        return false;
    if (!*object->etag) {
        g_free(object->etag);
        object->etag = upload_etag(op->call->parts);
    }
    return true;
}

/* Only a store that names the algorithm in its answer keeps checksums of parts; some of the others
 * refuse a commit that mentions them. */
static bool take_begin(struct s3_op *op, GError **error)
{
    bool has_checksums = http_header(&op->http, "x-amz-checksum-algorithm") != NULL;
    char **id = &op->call->upload_id;

    if (!take_text(op, "InitiateMultipartUploadResult", "UploadId", id, error))
        return false;
    s3_uploads_add(op->s3->uploads, *id, op->write_id, has_checksums && op->has_checksum);
    return true;
}

static bool take_part(struct s3_op *op, GError **error)
{
    struct store_call *call = op->call;

    if (!take_etag(op, &call->part_etag, error))
        return false;
    s3_uploads_set_checksum(op->s3->uploads, call->upload_id, call->part_number, op->checksum);
    return true;
}

/* The store computes a copied part's checksum itself, when it knows of checksums at all. */
static bool take_copied_part(struct s3_op *op, GError **error)
{
    struct store_call *call = op->call;
    const GString *body = op->http.body;
    g_autofree char *checksum =
        s3_xml_text(body->str, body->len, "CopyPartResult", "ChecksumCRC32C", NULL);

    if (!take_text(op, "CopyPartResult", "ETag", &call->part_etag, error))
        return false;
    s3_uploads_set_checksum(op->s3->uploads, call->upload_id, call->part_number, checksum);
    return true;
}

/* What a second try, a key at a time, may mend. */
static bool is_passing(const char *code)
{
    return !code || http_retry_s3_code(code) || g_str_equal(code, "UnknownError");
}

static bool take_deleted(struct s3_op *op, GError **error)
{
    struct store_call *call = op->call;
    g_autofree char *code = NULL, *tidy_code = NULL;

    if (!op->http.body->len)
        return true;
    if (!s3_xml_deleted(op->http.body->str, op->http.body->len, call->failed_keys, &code, error))
        return false;
    if (!call->failed_keys->len)
        return true;
    if (is_passing(code)) {
        for (guint i = 0; i < call->failed_keys->len; i++)
            g_ptr_array_add(op->odd_keys, g_strdup(call->failed_keys->pdata[i]));
        g_ptr_array_set_size(call->failed_keys, 0);
        return true;
    }
    tidy_code = tidy(code, MESSAGE_MAX);
    return error_set(error, error_code(op, code), "%u of %u keys were not deleted: %s",
                     call->failed_keys->len, call->keys->len, tidy_code);
}

static bool take(struct s3_op *op, GError **error)
{
    struct store_call *call = op->call;
    const GString *body = op->http.body;

    switch (call->verb) {
    case STORE_GET:
        call->received_bytes = op->http.received_bytes;
        take_object(op);
        return true;
    case STORE_HEAD:
        take_object(op);
        return true;
    case STORE_PUT:
        return take_etag(op, &call->object.etag, error);
    case STORE_PART:
        return take_part(op, error);
    case STORE_COPY:
        return take_text(op, "CopyObjectResult", "ETag", &call->object.etag, error);
    case STORE_COPY_PART:
        return take_copied_part(op, error);
    case STORE_COMMIT:
        return take_commit(op, error);
    case STORE_BEGIN:
        return take_begin(op, error);
    case STORE_LIST:
        return s3_xml_list(body->str, body->len, call, error);
    case STORE_UPLOADS:
        return s3_xml_uploads(body->str, body->len, call, error);
    case STORE_DELETE_MANY:
        return take_deleted(op, error);
    default:
        return true;
    }
}

/* What S3 calls a failure, but a call does not. */
static bool is_failure_a_success(const struct s3_op *op, const char *code)
{
    enum store_verb verb = op->call->verb;

    if (op->http.status == 416)
        return verb == STORE_GET; /* it begins at or behind the end: no bytes */
    return op->http.status == 404 && (verb == STORE_DELETE || verb == STORE_ABORT) &&
           g_strcmp0(code, "NoSuchBucket") != 0;
}

/* Stores that do not know checksums ignore them, or say 501, or name the header in a 400. */
static bool is_about_checksums(const struct s3_op *op, const struct s3_error *found)
{
    g_autofree char *message = g_ascii_strdown(found->message ? found->message : "", -1);

    return op->has_checksum && (op->http.status == 501 ||
                                (op->http.status == 400 && strstr(message, "x-amz-checksum-")));
}

bool s3_answer_take(struct s3_op *op, char **code, GError **error)
{
    const GString *body = op->http.body;
    struct s3_error found = {0};
    bool ok;

    if (body->len && (!is_success(&op->http) || op->call->verb == STORE_COPY ||
                      op->call->verb == STORE_COPY_PART || op->call->verb == STORE_COMMIT))
        s3_xml_error(body->str, body->len, &found);
    if (is_success(&op->http) && !found.code) {
        ok = take(op, error);
        op->call->answered_ns = header_ns(&op->http, "date");
    } else {
        ok = is_failure_a_success(op, found.code);
        op->is_checksum_refused = is_about_checksums(op, &found);
        if (!ok)
            s3_answer_error(op, found.code, found.message, error);
        *code = g_steal_pointer(&found.code);
    }
    s3_error_clear(&found);
    return ok;
}

/* --- is it ours? --- */

enum s3_landed s3_answer_landed(struct s3_op *op)
{
    const struct http_request *http = &op->http;
    const char *etag = http_header(http, "etag");
    const char *write_id = http_header(http, METADATA_PREFIX S3_WRITE_ID);

    if (!http->error && http->status == 404)
        return S3_NOT_OURS;
    if (http->error || !is_success(http) || !etag)
        return S3_UNKNOWN;
    if (!op->write_id || g_strcmp0(write_id, op->write_id) != 0)
        return S3_NOT_OURS;
    g_free(op->call->object.etag);
    op->call->object.etag = s3_unquote(etag);
    op->call->answered_ns = header_ns(&op->http, "date");
    return S3_OURS;
}
