/* The S3 driver: any store that speaks S3, over the HTTP engine.
 *
 * threads: start makes and signs nothing on the network's time; the rest runs on the engine's
 *          threads, one step of a call after the other (s3_op.h: stages). Large bodies are hashed
 * on threads of their own: who starts a call may be a program that writes on, or an engine's thread
 * with other transfers under way.
 */
#include "storage/s3_op.h"

#include "config/error.h"
#include "storage/pool.h"
#include "storage/s3_xml.h"

#include <string.h>

#define MIB (UINT64_C(1024) * 1024)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

#define HASH_THREADS 2
#define HASH_APART   (256 * 1024) /* bytes that take longer to hash than to hand over */

static const struct store_caps s3_caps = {
    .min_part_bytes = 5 * MIB,
    .max_part_bytes = 5 * GIB,
    .max_put_bytes = 5 * GIB,
    .max_copy_bytes = 5 * GIB,
    .max_object_bytes = 5 * TIB,
    .max_parts = 10000,
    .max_key_bytes = 1024,
    .max_delete_keys = 1000,
    .max_list_entries = 1000,
    .max_metadata_bytes = 2048 - sizeof("x-amz-meta-" S3_WRITE_ID) - 32,
    .parallel = 16,
    .has_put_if_absent = true,
    .has_put_if_match = true,
    .has_current_list = true,
    .has_commit_if_match = false,
    .has_copy_part = true,
    .has_prefix_and_key = true,
};

/* --- a call's stages --- */

static void enter_stage(struct s3_op *op, enum s3_stage stage)
{
    op->stage = stage;
    s3_request_make(op);
    http_engine_start(op->s3->engine, &op->http);
}

static void complete(struct s3_op *op, GError *error)
{
    struct store_call *call = op->call;

    if (!error && (call->verb == STORE_COMMIT || call->verb == STORE_ABORT))
        s3_uploads_remove(op->s3->uploads, call->upload_id);
    call->maybe_twice = call->verb == STORE_BEGIN && (op->maybe_landed || error);
    s3_request_clear(op);
    g_clear_error(&op->first_error);
    g_clear_pointer(&op->odd_keys, g_ptr_array_unref);
    g_free(op->write_id);
    g_free(op);
    store_complete(call, error);
}

static bool is_success(const struct s3_op *op)
{
    return !op->http.error && op->http.status >= 200 && op->http.status < 300;
}

/* The failure of a stage other than MAIN. */
static GError *take_failure(struct s3_op *op)
{
    GError *error = NULL;

    if (op->http.error)
        error = g_steal_pointer(&op->http.error);
    else
        s3_answer_error(op, NULL, NULL, &error);
    return error;
}

static void complete_failed(struct s3_op *op)
{
    complete(op, take_failure(op));
}

static void after_source(struct s3_op *op)
{
    const char *header = is_success(op) ? http_header(&op->http, "etag") : NULL;
    g_autofree char *etag = header ? s3_unquote(header) : NULL;
    GError *error = NULL;

    if (!is_success(op)) {
        complete_failed(op);
    } else if (g_strcmp0(etag, op->call->if_match) != 0) {
        error_set(&error, ESTALE, "copy %s: the object has changed", op->call->source_key);
        complete(op, error);
    } else {
        enter_stage(op, S3_MAIN);
    }
}

/* Whether a failure may be the echo of an earlier try that was carried out. */
static bool may_be_ours(const struct s3_op *op, const char *code)
{
    if (!op->maybe_landed)
        return false;
    switch (op->call->verb) {
    case STORE_PUT:
        return op->write_id && (op->http.status == 412 || op->http.status == 409);
    case STORE_COPY: /* onto its source, whose ETag may have become another one by it */
        return op->write_id && op->http.status == 412;
    case STORE_COMMIT:
        return g_strcmp0(code, "NoSuchUpload") == 0;
    default:
        return false;
    }
}

static void after_main(struct s3_op *op)
{
    g_autofree char *code = NULL;
    GError *error = NULL;

    op->maybe_landed |= op->http.maybe_landed;
    if (op->http.error) {
        g_autofree char *name = s3_object_name(op);

        error = g_steal_pointer(&op->http.error);
        g_prefix_error(&error, "%s %s: ", s3_verb_name(op->call->verb), name);
    } else if (s3_answer_is_stuck(op)) {
        op->has_checked_upload = true;
        enter_stage(op, S3_CHECK_UPLOAD);
        return;
    } else if (!s3_answer_take(op, &code, &error) && op->is_checksum_refused) {
        g_error_free(error);
        op->is_checksum_refused = false;
        __atomic_store_n(&op->s3->store.caps.has_checksum, false, __ATOMIC_RELAXED);
        enter_stage(op, S3_MAIN); /* this time without one */
        return;
    } else if (error && may_be_ours(op, code)) {
        op->first_error = error;
        enter_stage(op, S3_CHECK_LANDED);
        return;
    }
    if (!error && op->odd_keys && op->odd_keys->len)
        enter_stage(op, S3_DELETE_ODD);
    else if (!error && op->call->verb == STORE_COMMIT && !op->call->object.etag)
        enter_stage(op, S3_FIND_ETAG);
    else
        complete(op, error);
}

/* The upload is gone: aborted, or committed by a try that failed only in its answer. */
static void after_upload(struct s3_op *op)
{
    g_autofree char *name = s3_object_name(op);

    if (op->http.error || op->http.status != 404) {
        enter_stage(op, S3_MAIN);
        return;
    }
    error_set(&op->first_error, ENOENT, "commit %s: the store has its upload no more", name);
    enter_stage(op, S3_CHECK_LANDED);
}

static void after_landed(struct s3_op *op)
{
    GError *error = NULL;

    switch (s3_answer_landed(op)) {
    case S3_OURS:
        complete(op, NULL);
        return;
    case S3_NOT_OURS:
        complete(op, g_steal_pointer(&op->first_error));
        return;
    case S3_UNKNOWN:
        error_set(&error, EIO, "%s; an earlier try may have been carried out, and it is not known",
                  op->first_error->message);
        complete(op, error);
        return;
    }
}

static void after_find(struct s3_op *op)
{
    const char *etag = is_success(op) ? http_header(&op->http, "etag") : NULL;

    if (!etag) {
        complete_failed(op);
        return;
    }
    op->call->object.etag = s3_unquote(etag);
    complete(op, NULL);
}

/* A key that fails stops none of the others: whoever asked relies on failed_keys being complete. */
static void after_odd(struct s3_op *op)
{
    guint last = op->odd_keys->len - 1;

    if (!is_success(op) && (op->http.error || op->http.status != 404)) {
        g_ptr_array_add(op->call->failed_keys, g_strdup(op->odd_keys->pdata[last]));
        if (!op->first_error)
            op->first_error = take_failure(op);
    }
    g_ptr_array_set_size(op->odd_keys, (int)last);
    if (last)
        enter_stage(op, S3_DELETE_ODD);
    else
        complete(op, g_steal_pointer(&op->first_error));
}

/* OpenStack Swift names its transactions so in every answer, refuses conditional PUTs, and updates
 * its listings after it has answered. The first answer says it, so after store_check the
 * capabilities are right. */
static void learn_capabilities(struct s3_op *op)
{
    struct store_caps *caps = &op->s3->store.caps;

    if (!caps->has_put_if_match || !http_header(&op->http, "x-trans-id"))
        return;
    __atomic_store_n(&caps->has_put_if_match, false, __ATOMIC_RELAXED);
    __atomic_store_n(&caps->has_put_if_absent, false, __ATOMIC_RELAXED);
    __atomic_store_n(&caps->has_current_list, false, __ATOMIC_RELAXED);
}

static void on_done(struct http_request *http)
{
    static void (*const after[])(struct s3_op * op) = {
        [S3_CHECK_SOURCE] = after_source, [S3_MAIN] = after_main,
        [S3_CHECK_UPLOAD] = after_upload, [S3_CHECK_LANDED] = after_landed,
        [S3_FIND_ETAG] = after_find,      [S3_DELETE_ODD] = after_odd,
    };
    struct s3_op *op = (struct s3_op *)http;

    learn_capabilities(op);
    after[op->stage](op);
}

static bool is_cancelled(struct http_request *http)
{
    return store_call_is_cancelled(((struct s3_op *)http)->call);
}

/* --- the driver --- */

static void find_odd_keys(struct s3_op *op)
{
    GPtrArray *keys = op->call->keys;

    op->odd_keys = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < keys->len; i++)
        if (!s3_xml_can_hold(keys->pdata[i]))
            g_ptr_array_add(op->odd_keys, g_strdup(keys->pdata[i]));
}

static enum s3_stage first_stage(struct s3_op *op)
{
    const struct store_call *call = op->call;

    if ((call->verb == STORE_COPY || call->verb == STORE_COPY_PART) && call->if_match)
        return S3_CHECK_SOURCE;
    if (call->verb != STORE_DELETE_MANY)
        return S3_MAIN;
    find_odd_keys(op);
    return op->odd_keys->len == call->keys->len ? S3_DELETE_ODD : S3_MAIN;
}

/* Nobody waits for the answer any more: nothing is hashed, and the engine ends it on a thread of
 * its own. */
static void end_cancelled(struct s3_op *op)
{
    op->stage = S3_MAIN;
    http_engine_start(op->s3->engine, &op->http);
}

static void run_first_stage(void *data)
{
    struct s3_op *op = data;

    if (store_call_is_cancelled(op->call))
        end_cancelled(op);
    else
        enter_stage(op, first_stage(op));
}

/* NULL: there is no thread; then the caller's does. */
static struct pool *hash_pool(struct s3_store *s3)
{
    struct pool *pool;

    pthread_mutex_lock(&s3->hash_lock);
    if (!s3->hash_pool)
        s3->hash_pool = pool_new(HASH_THREADS, NULL);
    pool = s3->hash_pool;
    pthread_mutex_unlock(&s3->hash_lock);
    return pool;
}

static bool is_hashed_apart(const struct s3_store *s3, const struct store_call *call)
{
    return (call->verb == STORE_PUT || call->verb == STORE_PART) && s3->signs_bodies &&
           store_call_body_bytes(call) >= HASH_APART;
}

static void s3_start(struct store *store, struct store_call *call)
{
    GError *error = NULL;
    struct pool *pool;
    struct s3_op *op;

    if (!s3_request_check(call, &store->caps, &error)) {
        store_complete(call, error);
        return;
    }
    if (call->verb == STORE_DELETE_MANY && !call->keys->len) {
        store_complete(call, NULL);
        return;
    }
    op = g_new0(struct s3_op, 1);
    op->s3 = (struct s3_store *)store;
    op->call = call;
    op->http.judge = s3_answer_judge;
    op->http.is_cancelled = is_cancelled;
    op->http.done = on_done;
    pool = is_hashed_apart(op->s3, call) ? hash_pool(op->s3) : NULL;
    if (pool)
        pool_add(pool, run_first_stage, op);
    else
        run_first_stage(op);
}

static bool is_of_call(const void *op, const void *call)
{
    return ((const struct s3_op *)op)->call == call;
}

static void s3_cancel(struct store *store, struct store_call *call)
{
    struct s3_store *s3 = (struct s3_store *)store;
    struct s3_op *waiting = NULL;

    pthread_mutex_lock(&s3->hash_lock);
    if (s3->hash_pool)
        waiting = pool_remove(s3->hash_pool, is_of_call, call);
    pthread_mutex_unlock(&s3->hash_lock);
    if (waiting)
        end_cancelled(waiting);
    else
        http_engine_wake(s3->engine);
}

static void s3_free(struct store *store)
{
    struct s3_store *s3 = (struct s3_store *)store;

    pool_free(s3->hash_pool);
    pthread_mutex_destroy(&s3->hash_lock);
    http_engine_free(s3->engine);
    s3_uploads_free(s3->uploads);
    credentials_clear(&s3->credentials);
    pthread_mutex_destroy(&s3->credentials_lock);
    g_free(s3->profile);
    uri_endpoint_clear(&s3->endpoint);
    g_free(s3->bucket);
    g_free(s3);
}

static const struct store_driver s3_driver = {"s3", s3_start, s3_cancel, s3_free};

/* --- opening --- */

static bool set_endpoint(struct s3_store *s3, const struct store_options *options, GError **error)
{
    g_autofree char *aws = g_strdup_printf("https://s3.%s.amazonaws.com", s3->credentials.region);
    const char *url = options->endpoint ? options->endpoint : aws;

    if (!uri_parse_endpoint(url, &s3->endpoint, error))
        return false;
    /* A certificate for *.HOST covers no bucket with a dot in its name. */
    s3->virtual_host = (options->virtual_host || !options->endpoint) &&
                       !(s3->endpoint.is_https && strchr(s3->bucket, '.'));
    if (s3->virtual_host) {
        char *host = g_strconcat(s3->bucket, ".", s3->endpoint.host, NULL);

        g_free(s3->endpoint.host);
        s3->endpoint.host = host;
    }
    return true;
}

static struct s3_store *open_bucket(char *bucket, const struct store_options *options,
                                    GError **error)
{
    const char *bundle = g_getenv("AWS_CA_BUNDLE");
    const struct http_options http = {
        .cacert = options->cacert     ? options->cacert
                  : bundle && *bundle ? bundle
                                      : NULL,
        .threads = options->threads,
        .connect_ms = options->connect_ms,
    };
    struct s3_store *s3 = g_new0(struct s3_store, 1);
    g_autofree char *url = g_strconcat("s3://", bucket, NULL);

    pthread_mutex_init(&s3->hash_lock, NULL);
    s3->bucket = bucket;
    s3->profile = g_strdup(options->profile);
    pthread_mutex_init(&s3->credentials_lock, NULL);
    s3->deadline_ms = options->deadline_ms;
    s3->stall_ms = options->stall_ms;
    s3->store.caps = s3_caps;
    if (!credentials_load(options->profile, options->region, &s3->credentials, error) ||
        !set_endpoint(s3, options, error)) {
        s3_free(&s3->store);
        return NULL;
    }
    s3->signs_bodies = !s3->endpoint.is_https && !options->unsigned_payload;
    s3->store.caps.has_checksum = !s3->signs_bodies; /* one check of a body is enough */
    s3->engine = http_engine_new(&http);
    s3->uploads = s3_uploads_new();
    store_init(&s3->store, &s3_driver, url);
    return s3;
}

struct store *store_s3_open(const char *url, const struct store_options *options, GError **error)
{
    g_autofree char *prefix = NULL;
    char *bucket = NULL;
    struct s3_store *s3;
    struct store *view;

    if (!uri_parse_bucket(url, &bucket, &prefix, error))
        return NULL;
    s3 = open_bucket(bucket, options, error);
    if (!s3 || !*prefix)
        return s3 ? &s3->store : NULL;
    view = store_view(&s3->store, prefix);
    store_unref(&s3->store);
    return view;
}
