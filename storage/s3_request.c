#include "storage/s3_op.h"

#include "storage/s3_checksum.h"
#include "storage/s3_sign.h"
#include "storage/s3_xml.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#define XML_CAP             (16 * 1024 * 1024) /* 1,000 keys of 1 KiB, each byte as %XX, and room */
#define DEADLINE_MS         60000
#define SERVER_DEADLINE_MS  300000 /* of what the server does by itself: copies, commits */
#define SLOWEST_BYTES_PER_S (1024 * 1024)
#define STALL_MS            10000
#define SMALL_DEADLINE_MS   10000 /* below, the caller wants to know soon whether anyone is there */
#define REFUSED_MS          2000
#define WRITE_ID_BYTES      16

/* --- building blocks --- */

static void add_header(struct s3_op *op, const char *name, const char *value)
{
    g_ptr_array_add(op->headers, g_strconcat(name, ":", value, NULL));
}

static void add_metadata(struct s3_op *op)
{
    GHashTableIter iter;
    gpointer name, value;

    if (!op->call->metadata)
        return;
    g_hash_table_iter_init(&iter, op->call->metadata);
    while (g_hash_table_iter_next(&iter, &name, &value)) {
        g_autofree char *full = g_strconcat("x-amz-meta-", name, NULL);

        add_header(op, full, value);
    }
}

/* Straight from the kernel: processes that were forked share no sequence of numbers. */
static char *make_write_id(void)
{
    uint8_t bytes[WRITE_ID_BYTES];
    ssize_t count;

    do
        count = getrandom(bytes, sizeof(bytes), 0);
    while (count < 0 && errno == EINTR);
    g_assert(count == sizeof(bytes)); /* so few bytes are never cut short */
    return s3_hex(bytes, sizeof(bytes));
}

static void add_write_id(struct s3_op *op)
{
    if (!op->write_id)
        op->write_id = make_write_id();
    add_header(op, "x-amz-meta-" S3_WRITE_ID, op->write_id);
}

static void add_quoted(struct s3_op *op, const char *name, const char *etag)
{
    g_autofree char *quoted = g_strdup_printf("\"%s\"", etag);

    add_header(op, name, quoted);
}

static void add_source(struct s3_op *op)
{
    g_autofree char *key = uri_encode(op->call->source_key, true);
    g_autofree char *source = g_strdup_printf("/%s/%s", op->s3->bucket, key);

    add_header(op, "x-amz-copy-source", source);
}

static void add_number(GPtrArray *query, const char *name, unsigned number)
{
    g_autofree char *text = g_strdup_printf("%u", number);

    uri_query_add(query, name, text);
}

static void send_xml(struct s3_op *op, GString *xml)
{
    op->xml = xml;
    op->xml_iov = (struct iovec){xml->str, xml->len};
    op->http.has_body = true;
    op->http.send_iov = &op->xml_iov;
    op->http.send_count = 1;
    op->http.send_bytes = xml->len;
    op->payload = s3_sha256_hex(&op->xml_iov, 1);
}

static bool sends_checksums(const struct s3_op *op)
{
    return __atomic_load_n(&op->s3->store.caps.has_checksum, __ATOMIC_RELAXED);
}

static void add_checksum(struct s3_op *op)
{
    op->has_checksum = true;
    op->checksum = s3_crc32c_base64(op->call->iov, op->call->iov_count);
    add_header(op, "x-amz-checksum-crc32c", op->checksum);
}

/* The hash of a body is computed here, and kept for all tries. */
static void send_iov(struct s3_op *op)
{
    struct store_call *call = op->call;

    op->http.has_body = true;
    op->http.send_iov = call->iov;
    op->http.send_count = call->iov_count;
    op->http.send_bytes = store_call_body_bytes(call);
    op->payload = op->s3->signs_bodies ? s3_sha256_hex(call->iov, call->iov_count)
                                       : g_strdup(S3_UNSIGNED_PAYLOAD);
}

/* --- one function a verb --- */

static void make_head(struct s3_op *op, GPtrArray *query)
{
    op->http.method = "HEAD";
}

static void make_get(struct s3_op *op, GPtrArray *query)
{
    struct store_call *call = op->call;
    g_autofree char *range = NULL;

    /* No range means "nothing": then only the object's description is wanted. */
    op->http.method = call->length ? "GET" : "HEAD";
    if (call->if_match)
        add_quoted(op, "if-match", call->if_match);
    if (!call->length)
        return;
    range = g_strdup_printf("bytes=%" PRIu64 "-%" PRIu64, call->offset,
                            call->offset + call->length - 1);
    add_header(op, "range", range);
    op->http.receive_iov = call->iov;
    op->http.receive_count = call->iov_count;
}

static void make_put(struct s3_op *op, GPtrArray *query)
{
    op->http.method = "PUT";
    add_metadata(op);
    if (op->call->if_absent || op->call->if_match)
        add_write_id(op);
    if (op->call->if_absent)
        add_header(op, "if-none-match", "*");
    /* Without quotes: some stores compare the header with the bare ETag. */
    if (op->call->if_match)
        add_header(op, "if-match", op->call->if_match);
    if (sends_checksums(op))
        add_checksum(op);
    send_iov(op);
}

static void make_copy(struct s3_op *op, GPtrArray *query)
{
    op->http.method = "PUT";
    op->http.has_body = true;
    add_source(op);
    add_header(op, "x-amz-metadata-directive", op->call->metadata ? "REPLACE" : "COPY");
    add_metadata(op);
    if (op->call->if_match && op->call->metadata)
        add_write_id(op);
    if (op->call->if_match)
        add_quoted(op, "x-amz-copy-source-if-match", op->call->if_match);
}

static void make_delete(struct s3_op *op, GPtrArray *query)
{
    op->http.method = "DELETE";
}

static void make_delete_many(struct s3_op *op, GPtrArray *query)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new();
    g_autoptr(GChecksum) checksum = g_checksum_new(G_CHECKSUM_MD5);
    g_autofree char *md5 = NULL;
    guint8 digest[16];
    gsize size = sizeof(digest);

    for (guint i = 0; i < op->call->keys->len; i++)
        if (s3_xml_can_hold(op->call->keys->pdata[i]))
            g_ptr_array_add(keys, op->call->keys->pdata[i]);
    op->http.method = "POST";
    uri_query_add(query, "delete", "");
    send_xml(op, s3_xml_make_delete(keys));
    g_checksum_update(checksum, (const guchar *)op->xml->str, (gssize)op->xml->len);
    g_checksum_get_digest(checksum, digest, &size);
    md5 = g_base64_encode(digest, size);
    add_header(op, "content-md5", md5);
}

static void make_list(struct s3_op *op, GPtrArray *query)
{
    struct store_call *call = op->call;

    op->http.method = "GET";
    uri_query_add(query, "list-type", "2");
    uri_query_add(query, "encoding-type", "url");
    uri_query_add(query, "prefix", call->key ? call->key : "");
    if (call->delimiter)
        uri_query_add(query, "delimiter", "/");
    if (call->token)
        uri_query_add(query, "continuation-token", call->token);
    else if (call->start_after)
        uri_query_add(query, "start-after", call->start_after);
    if (call->limit)
        add_number(query, "max-keys", MIN(call->limit, op->s3->store.caps.max_list_entries));
}

static void make_begin(struct s3_op *op, GPtrArray *query)
{
    op->http.method = "POST";
    op->http.has_body = true;
    uri_query_add(query, "uploads", "");
    add_metadata(op);
    add_write_id(op);
    op->has_checksum = sends_checksums(op);
    if (op->has_checksum)
        add_header(op, "x-amz-checksum-algorithm", "CRC32C");
}

static void make_part(struct s3_op *op, GPtrArray *query)
{
    op->http.method = "PUT";
    add_number(query, "partNumber", op->call->part_number);
    uri_query_add(query, "uploadId", op->call->upload_id);
    if (sends_checksums(op) && s3_uploads_has_checksums(op->s3->uploads, op->call->upload_id))
        add_checksum(op);
    send_iov(op);
}

static void make_copy_part(struct s3_op *op, GPtrArray *query)
{
    struct store_call *call = op->call;
    g_autofree char *range = g_strdup_printf("bytes=%" PRIu64 "-%" PRIu64, call->offset,
                                             call->offset + call->length - 1);

    op->http.method = "PUT";
    op->http.has_body = true;
    add_number(query, "partNumber", call->part_number);
    uri_query_add(query, "uploadId", call->upload_id);
    add_source(op);
    add_header(op, "x-amz-copy-source-range", range);
    if (call->if_match)
        add_quoted(op, "x-amz-copy-source-if-match", call->if_match);
}

static void make_commit(struct s3_op *op, GPtrArray *query)
{
    g_autoptr(GPtrArray) checksums = g_ptr_array_new_with_free_func(g_free);
    GArray *parts = op->call->parts;

    op->http.method = "POST";
    if (!op->write_id)
        op->write_id = s3_uploads_write_id(op->s3->uploads, op->call->upload_id);
    uri_query_add(query, "uploadId", op->call->upload_id);
    for (guint i = 0; parts && i < parts->len; i++)
        g_ptr_array_add(checksums,
                        s3_uploads_checksum(op->s3->uploads, op->call->upload_id,
                                            g_array_index(parts, struct store_part, i).number));
    send_xml(op, s3_xml_make_commit(parts, checksums));
}

static void make_abort(struct s3_op *op, GPtrArray *query)
{
    op->http.method = "DELETE";
    uri_query_add(query, "uploadId", op->call->upload_id);
}

static void make_uploads(struct s3_op *op, GPtrArray *query)
{
    struct store_call *call = op->call;
    g_autofree char *key = NULL, *upload_id = NULL;

    op->http.method = "GET";
    uri_query_add(query, "uploads", "");
    uri_query_add(query, "encoding-type", "url");
    uri_query_add(query, "prefix", call->key ? call->key : "");
    if (call->limit)
        add_number(query, "max-uploads", MIN(call->limit, op->s3->store.caps.max_list_entries));
    /* A token that is not ours was refused by s3_request_check. */
    if (!call->token || !s3_xml_split_token(call->token, &key, &upload_id))
        return;
    uri_query_add(query, "key-marker", key);
    uri_query_add(query, "upload-id-marker", upload_id);
}

/* A list of its parts: is it there? */
static void make_check_upload(struct s3_op *op, GPtrArray *query)
{
    op->http.method = "GET";
    add_number(query, "max-parts", 1);
    uri_query_add(query, "uploadId", op->call->upload_id);
}

static const struct {
    void (*make)(struct s3_op *op, GPtrArray *query);
    bool is_servers; /* the server works without a byte on the wire */
} verbs[STORE_VERBS] = {
    [STORE_HEAD] = {make_head, false},       [STORE_GET] = {make_get, false},
    [STORE_PUT] = {make_put, false},         [STORE_COPY] = {make_copy, true},
    [STORE_DELETE] = {make_delete, false},   [STORE_DELETE_MANY] = {make_delete_many, true},
    [STORE_LIST] = {make_list, false},       [STORE_BEGIN] = {make_begin, false},
    [STORE_PART] = {make_part, false},       [STORE_COPY_PART] = {make_copy_part, true},
    [STORE_COMMIT] = {make_commit, true},    [STORE_ABORT] = {make_abort, false},
    [STORE_UPLOADS] = {make_uploads, false},
};

/* --- putting it together --- */

static const char *stage_key(const struct s3_op *op)
{
    if (op->stage == S3_CHECK_SOURCE)
        return op->call->source_key;
    if (op->stage == S3_DELETE_ODD)
        return op->odd_keys->pdata[op->odd_keys->len - 1];
    return s3_wants_key(op->call->verb) ? op->call->key : "";
}

static void make_address(struct s3_op *op, GPtrArray *query)
{
    struct s3_store *s3 = op->s3;
    g_autofree char *key = uri_encode(stage_key(op), true);

    if (s3->virtual_host)
        op->path = g_strconcat("/", key, NULL);
    else
        op->path = g_strdup_printf(*key ? "/%s/%s" : "/%s%s", s3->bucket, key);
    op->query = uri_query_join(query);
    op->http.url = g_strdup_printf("%s://%s%s%s%s", s3->endpoint.is_https ? "https" : "http",
                                   s3->endpoint.host, op->path, *op->query ? "?" : "", op->query);
}

static unsigned whole_deadline_ms(const struct s3_op *op)
{
    const struct store_call *call = op->call;
    uint64_t bytes = store_call_body_bytes(call);

    if (call->deadline_ms)
        return call->deadline_ms;
    if (op->s3->deadline_ms)
        return op->s3->deadline_ms;
    if (verbs[call->verb].is_servers)
        return SERVER_DEADLINE_MS;
    return DEADLINE_MS + (unsigned)(bytes * 1000 / SLOWEST_BYTES_PER_S);
}

static void set_limits(struct s3_op *op)
{
    bool is_servers = op->stage == S3_MAIN && verbs[op->call->verb].is_servers;
    int64_t now_us = g_get_monotonic_time();
    unsigned whole_ms = whole_deadline_ms(op);

    if (!op->deadline_us)
        op->deadline_us = now_us + (int64_t)whole_ms * 1000;
    op->http.deadline_ms = (unsigned)(MAX(op->deadline_us - now_us, 0) / 1000);
    op->http.stall_ms = is_servers ? 0 : op->s3->stall_ms ? op->s3->stall_ms : STALL_MS;
    op->http.is_urgent = whole_ms <= SMALL_DEADLINE_MS;
    op->http.once = op->call->once;
    op->http.refused_ms = op->http.is_urgent ? REFUSED_MS : 0;
    op->http.collect_cap = XML_CAP;
}

int64_t s3_now_s(const struct s3_store *s3)
{
    return g_get_real_time() / G_USEC_PER_SEC +
           __atomic_load_n(&s3->clock_offset_s, __ATOMIC_RELAXED);
}

static void sign_try(struct http_request *http, GPtrArray *headers)
{
    struct s3_op *op = (struct s3_op *)http;
    struct s3_signing signing = {.method = http->method,
                                 .path = op->path,
                                 .query = op->query,
                                 .payload = op->payload,
                                 .now_s = s3_now_s(op->s3)};

    g_ptr_array_add(headers, g_strconcat("host:", op->s3->endpoint.host, NULL));
    for (guint i = 0; i < op->headers->len; i++)
        g_ptr_array_add(headers, g_strdup(op->headers->pdata[i]));
    s3_credentials_sign(op, &signing, headers);
}

void s3_request_make(struct s3_op *op)
{
    g_autoptr(GPtrArray) query = g_ptr_array_new_with_free_func(g_free);

    s3_request_clear(op);
    op->headers = g_ptr_array_new_with_free_func(g_free);
    if (op->stage == S3_MAIN)
        verbs[op->call->verb].make(op, query);
    else if (op->stage == S3_CHECK_UPLOAD)
        make_check_upload(op, query);
    else
        op->http.method = op->stage == S3_DELETE_ODD ? "DELETE" : "HEAD";
    if (!op->payload)
        op->payload = s3_sha256_hex(NULL, 0);
    make_address(op, query);
    set_limits(op);
    op->http.prepare = sign_try;
}

void s3_request_clear(struct s3_op *op)
{
    http_request_clear(&op->http);
    op->http.send_iov = op->http.receive_iov = NULL;
    op->http.send_count = op->http.receive_count = 0;
    op->http.send_bytes = 0;
    op->http.has_body = false;
    g_clear_pointer(&op->path, g_free);
    g_clear_pointer(&op->query, g_free);
    g_clear_pointer(&op->payload, g_free);
    g_clear_pointer(&op->checksum, g_free);
    op->has_checksum = false;
    g_clear_pointer(&op->headers, g_ptr_array_unref);
    if (op->xml)
        g_string_free(op->xml, TRUE);
    op->xml = NULL;
}
