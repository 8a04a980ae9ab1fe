#include "tests/support/memory_store.h"

#include "config/error.h"
#include "storage/file_attrs.h"
#include "storage/pool.h"
#include "storage/store_driver.h"

#include <pthread.h>
#include <string.h>

struct memory_object {
    GBytes *body;
    char *etag;
    int64_t mtime_ns;
    GHashTable *metadata;
};

struct memory_upload {
    char *key;
    int64_t started_ns;
    GHashTable *metadata;
    GHashTable *parts; /* number -> memory_object */
};

struct memory_store {
    struct store base;
    struct pool *pool;

    pthread_mutex_t lock;
    /* Guarded by lock: */
    GTree *objects; /* key -> memory_object */
    GTree *uploads; /* id -> memory_upload */
    unsigned long last_etag, last_upload;
    int64_t ahead_ns; /* of this machine's clock */
    int64_t late_ns;
    bool is_like_s3; /* not guarded: set before the first call */
};

struct memory_job {
    struct memory_store *store;
    struct store_call *call;
};

static void object_free(void *data)
{
    struct memory_object *object = data;

    g_bytes_unref(object->body);
    g_free(object->etag);
    g_hash_table_unref(object->metadata);
    g_free(object);
}

static void upload_free(void *data)
{
    struct memory_upload *upload = data;

    g_free(upload->key);
    g_hash_table_unref(upload->metadata);
    g_hash_table_unref(upload->parts);
    g_free(upload);
}

static int compare_keys(const void *a, const void *b, void *user)
{
    return strcmp(a, b);
}

/* lock held */
static int64_t clock_ns(const struct memory_store *store)
{
    return g_get_real_time() * 1000 + store->ahead_ns;
}

static int64_t to_second(const struct memory_store *store, int64_t time_ns)
{
    return store->is_like_s3 ? time_ns - time_ns % 1000000000 : time_ns;
}

/* ETAG NULL: one of its own. */
static struct memory_object *object_new(struct memory_store *store, GBytes *body,
                                        GHashTable *metadata, const char *etag)
{
    struct memory_object *object = g_new0(struct memory_object, 1);

    object->body = body;
    object->etag = etag ? g_strdup(etag) : g_strdup_printf("m%lu", ++store->last_etag);
    object->mtime_ns = clock_ns(store);
    object->metadata = metadata_copy(metadata);
    return object;
}

static GBytes *gather(const struct store_call *call)
{
    GByteArray *bytes = g_byte_array_new();

    for (unsigned i = 0; i < call->iov_count; i++)
        g_byte_array_append(bytes, call->iov[i].iov_base, (guint)call->iov[i].iov_len);
    return g_byte_array_free_to_bytes(bytes);
}

static void describe(struct store_object *to, const char *key, const struct memory_object *from,
                     bool with_metadata)
{
    store_object_clear(to);
    to->key = g_strdup(key);
    to->etag = g_strdup(from->etag);
    to->size_bytes = g_bytes_get_size(from->body);
    to->mtime_ns = from->mtime_ns;
    to->metadata = with_metadata ? metadata_copy(from->metadata) : NULL;
}

static struct memory_object *find(struct memory_store *store, const char *key, const char *if_match,
                                  GError **error)
{
    struct memory_object *object = g_tree_lookup(store->objects, key);

    if (!object)
        error_set(error, ENOENT, "%s: no such key", key);
    else if (if_match && strcmp(if_match, object->etag) != 0)
        error_set(error, ESTALE, "%s: the object has changed", key);
    else
        return object;
    return NULL;
}

static bool may_write(struct memory_store *store, const struct store_call *call, GError **error)
{
    if (call->if_absent && g_tree_lookup(store->objects, call->key))
        return error_set(error, EEXIST, "%s: the key exists", call->key);
    if (!call->if_match || find(store, call->key, call->if_match, error))
        return true;
    return false;
}

static void insert(struct memory_store *store, struct store_call *call, GBytes *body,
                   GHashTable *metadata, const char *etag)
{
    struct memory_object *object = object_new(store, body, metadata, etag);

    describe(&call->object, call->key, object, true);
    g_tree_replace(store->objects, g_strdup(call->key), object);
}

static void do_get(struct memory_store *store, struct store_call *call, GError **error)
{
    struct memory_object *object = find(store, call->key, call->if_match, error);
    const uint8_t *data;
    size_t size, at;

    if (!object)
        return;
    describe(&call->object, call->key, object, true);
    call->object.mtime_ns = to_second(store, object->mtime_ns);
    if (call->verb == STORE_HEAD)
        return;
    data = g_bytes_get_data(object->body, &size);
    at = MIN(call->offset, size);
    for (unsigned i = 0; i < call->iov_count && at < size; i++) {
        size_t count = MIN(call->iov[i].iov_len, size - at);

        memcpy(call->iov[i].iov_base, data + at, count);
        at += count;
        call->received_bytes += count;
    }
}

static void do_put(struct memory_store *store, struct store_call *call, GError **error)
{
    if (may_write(store, call, error))
        insert(store, call, gather(call), call->metadata, NULL);
}

static void do_copy(struct memory_store *store, struct store_call *call, GError **error)
{
    struct memory_object *source = find(store, call->source_key, call->if_match, error);
    g_autoptr(GHashTable) metadata = NULL;

    if (!source)
        return;
    metadata = metadata_copy(call->metadata ? call->metadata : source->metadata);
    insert(store, call, g_bytes_ref(source->body), metadata,
           store->is_like_s3 ? source->etag : NULL);
}

static void do_delete(struct memory_store *store, struct store_call *call, GError **error)
{
    if (call->verb == STORE_DELETE)
        g_tree_remove(store->objects, call->key);
    for (unsigned i = 0; call->keys && i < call->keys->len; i++)
        g_tree_remove(store->objects, call->keys->pdata[i]);
}

/* KEY folded at the first '/' behind the prefix; NULL when there is none or no delimiter. */
static char *fold(const struct store_call *call, const char *key)
{
    const char *slash = call->delimiter ? strchr(key + strlen(call->key), '/') : NULL;

    return slash ? g_strndup(key, (size_t)(slash - key) + 1) : NULL;
}

/* Tokens are the last key of a page, or the last folded prefix, which ends in '/'. */
static bool is_listed_before(const struct store_call *call, const char *key)
{
    const char *after = call->token ? call->token + 1 : call->start_after;

    if (!after || !*after)
        return false;
    if (call->token && call->token[0] == 'p' && g_str_has_prefix(key, after))
        return true;
    return strcmp(key, after) <= 0;
}

static void do_list(struct memory_store *store, struct store_call *call, GError **error)
{
    unsigned limit = call->limit ? MIN(call->limit, store->base.caps.max_list_entries)
                                 : store->base.caps.max_list_entries;
    g_autofree char *last = NULL;

    for (GTreeNode *node = g_tree_lower_bound(store->objects, call->key); node;
         node = g_tree_node_next(node)) {
        const char *key = g_tree_node_key(node);
        g_autofree char *folded = NULL;

        if (!g_str_has_prefix(key, call->key))
            break;
        if (is_listed_before(call, key))
            continue;
        folded = fold(call, key);
        if (folded && call->prefixes->len &&
            g_str_equal(folded, call->prefixes->pdata[call->prefixes->len - 1]))
            continue;
        if (call->objects->len + call->prefixes->len == limit) {
            call->next_token = g_steal_pointer(&last);
            return;
        }
        g_free(last);
        last = g_strconcat(folded ? "p" : "k", folded ? folded : key, NULL);
        if (folded) {
            g_ptr_array_add(call->prefixes, g_steal_pointer(&folded));
        } else {
            struct store_object *object = g_new0(struct store_object, 1);

            describe(object, key, g_tree_node_value(node), false);
            g_ptr_array_add(call->objects, object);
        }
    }
}

static void do_begin(struct memory_store *store, struct store_call *call, GError **error)
{
    struct memory_upload *upload = g_new0(struct memory_upload, 1);

    upload->key = g_strdup(call->key);
    upload->started_ns = clock_ns(store);
    upload->metadata = metadata_copy(call->metadata);
    upload->parts = g_hash_table_new_full(NULL, NULL, NULL, object_free);
    call->upload_id = g_strdup_printf("u%08lu", ++store->last_upload);
    g_tree_replace(store->uploads, g_strdup(call->upload_id), upload);
}

static struct memory_upload *find_upload(struct memory_store *store, const struct store_call *call,
                                         GError **error)
{
    struct memory_upload *upload = g_tree_lookup(store->uploads, call->upload_id);

    if (upload && g_str_equal(upload->key, call->key))
        return upload;
    error_set(error, ENOENT, "%s: no such upload", call->key);
    return NULL;
}

static void do_part(struct memory_store *store, struct store_call *call, GError **error)
{
    struct memory_upload *upload = find_upload(store, call, error);
    struct memory_object *part, *source;
    GBytes *body;

    if (!upload)
        return;
    if (call->verb == STORE_COPY_PART) {
        source = find(store, call->source_key, call->if_match, error);
        if (!source)
            return;
        if (call->offset + call->length > g_bytes_get_size(source->body)) {
            error_set(error, EINVAL, "%s: the range is outside the object", call->source_key);
            return;
        }
        body = g_bytes_new_from_bytes(source->body, call->offset, call->length);
    } else {
        body = gather(call);
    }
    part = object_new(store, body, NULL, NULL);
    call->part_etag = g_strdup(part->etag);
    g_hash_table_replace(upload->parts, GUINT_TO_POINTER(call->part_number), part);
}

static GBytes *join_parts(struct memory_store *store, const struct store_call *call,
                          const struct memory_upload *upload, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    for (unsigned i = 0; i < call->parts->len; i++) {
        const struct store_part *named = &g_array_index(call->parts, struct store_part, i);
        const struct memory_object *part =
            g_hash_table_lookup(upload->parts, GUINT_TO_POINTER(named->number));
        const void *data;
        size_t size;

        if (!part || g_strcmp0(part->etag, named->etag) != 0) {
            error_set(error, EINVAL, "%s: part %u is not there", call->key, named->number);
            return NULL;
        }
        data = g_bytes_get_data(part->body, &size);
        if (i + 1 < call->parts->len && size < store->base.caps.min_part_bytes) {
            error_set(error, EINVAL, "%s: part %u is too small", call->key, named->number);
            return NULL;
        }
        g_byte_array_append(bytes, data, (guint)size);
    }
    return g_byte_array_free_to_bytes(g_steal_pointer(&bytes));
}

static void do_commit(struct memory_store *store, struct store_call *call, GError **error)
{
    struct memory_upload *upload = find_upload(store, call, error);
    GBytes *body;

    if (!upload || !may_write(store, call, error))
        return;
    if (!call->parts || !call->parts->len) {
        error_set(error, EINVAL, "%s: an upload without parts", call->key);
        return;
    }
    body = join_parts(store, call, upload, error);
    if (!body)
        return;
    insert(store, call, body, upload->metadata, NULL);
    g_tree_remove(store->uploads, call->upload_id);
}

static void do_abort(struct memory_store *store, struct store_call *call, GError **error)
{
    g_tree_remove(store->uploads, call->upload_id);
}

/* The uploads of one key may be split over two pages: the token is the place in the whole list. */
static void do_uploads(struct memory_store *store, struct store_call *call, GError **error)
{
    unsigned limit = call->limit ? call->limit : store->base.caps.max_list_entries;
    uint64_t skip = call->token ? g_ascii_strtoull(call->token, NULL, 10) : 0, at = 0;

    for (GTreeNode *node = g_tree_node_first(store->uploads); node; node = g_tree_node_next(node)) {
        const struct memory_upload *upload = g_tree_node_value(node);
        struct store_upload *found;

        if (!g_str_has_prefix(upload->key, call->key) || at++ < skip)
            continue;
        if (call->uploads->len == limit) {
            call->next_token = g_strdup_printf("%" G_GUINT64_FORMAT, skip + limit);
            return;
        }
        found = g_new0(struct store_upload, 1);
        found->key = g_strdup(upload->key);
        found->upload_id = g_strdup(g_tree_node_key(node));
        found->started_ns = upload->started_ns;
        g_ptr_array_add(call->uploads, found);
    }
}

typedef void memory_verb(struct memory_store *store, struct store_call *call, GError **error);

static memory_verb *const verbs[STORE_VERBS] = {
    [STORE_HEAD] = do_get,        [STORE_GET] = do_get,       [STORE_PUT] = do_put,
    [STORE_COPY] = do_copy,       [STORE_DELETE] = do_delete, [STORE_DELETE_MANY] = do_delete,
    [STORE_LIST] = do_list,       [STORE_BEGIN] = do_begin,   [STORE_PART] = do_part,
    [STORE_COPY_PART] = do_part,  [STORE_COMMIT] = do_commit, [STORE_ABORT] = do_abort,
    [STORE_UPLOADS] = do_uploads,
};

static void run_call(void *data)
{
    g_autofree struct memory_job *job = data;
    GError *error = NULL;

    if (store_call_is_cancelled(job->call)) {
        error_set(&error, ECANCELED, "%s: cancelled", job->call->key);
    } else {
        pthread_mutex_lock(&job->store->lock);
        verbs[job->call->verb](job->store, job->call, &error);
        job->call->answered_ns =
            to_second(job->store, clock_ns(job->store) +
                                      (job->call->verb == STORE_HEAD ? job->store->late_ns : 0));
        pthread_mutex_unlock(&job->store->lock);
    }
    store_complete(job->call, error);
}

static void memory_start(struct store *base, struct store_call *call)
{
    struct memory_job *job = g_new(struct memory_job, 1);

    *job = (struct memory_job){.store = (struct memory_store *)base, .call = call};
    pool_add(job->store->pool, run_call, job);
}

/* Calls take no time: one that has begun is as good as done. */
static void memory_cancel(struct store *base, struct store_call *call)
{
}

static void memory_free(struct store *base)
{
    struct memory_store *store = (struct memory_store *)base;

    pool_free(store->pool);
    g_tree_unref(store->objects);
    g_tree_unref(store->uploads);
    pthread_mutex_destroy(&store->lock);
    g_free(store);
}

static const struct store_driver memory_driver = {
    .name = "memory",
    .start = memory_start,
    .cancel = memory_cancel,
    .free = memory_free,
};

static const struct store_caps memory_caps = {
    .min_part_bytes = 1,
    .max_part_bytes = 1 << 30,
    .max_put_bytes = 1 << 30,
    .max_copy_bytes = 1 << 30,
    .max_object_bytes = UINT32_MAX,
    .max_parts = 10000,
    .max_key_bytes = 1024,
    .max_delete_keys = 1000,
    .max_list_entries = 1000,
    .max_metadata_bytes = 2048,
    .parallel = 8,
    .has_put_if_absent = true,
    .has_put_if_match = true,
    .has_current_list = true,
    .has_commit_if_match = true,
    .has_copy_part = true,
    .has_prefix_and_key = true,
};

struct store *memory_store_new(void)
{
    struct memory_store *store = g_new0(struct memory_store, 1);

    store->pool = pool_new(4, NULL);
    g_assert(store->pool);
    pthread_mutex_init(&store->lock, NULL);
    store->objects = g_tree_new_full(compare_keys, NULL, g_free, object_free);
    store->uploads = g_tree_new_full(compare_keys, NULL, g_free, upload_free);
    store->base.caps = memory_caps;
    store_init(&store->base, &memory_driver, "memory://");
    return &store->base;
}

unsigned memory_store_uploads(struct store *base)
{
    struct memory_store *store = (struct memory_store *)base;
    unsigned count;

    pthread_mutex_lock(&store->lock);
    count = (unsigned)g_tree_nnodes(store->uploads);
    pthread_mutex_unlock(&store->lock);
    return count;
}

void memory_store_imitate_s3(struct store *base)
{
    ((struct memory_store *)base)->is_like_s3 = true;
}

void memory_store_answer_late(struct store *base, int64_t late_ms)
{
    struct memory_store *store = (struct memory_store *)base;

    pthread_mutex_lock(&store->lock);
    store->late_ns = late_ms * 1000000;
    pthread_mutex_unlock(&store->lock);
}

void memory_store_set_clock(struct store *base, int64_t ahead_ms)
{
    struct memory_store *store = (struct memory_store *)base;

    pthread_mutex_lock(&store->lock);
    store->ahead_ns = ahead_ms * 1000000;
    pthread_mutex_unlock(&store->lock);
}
