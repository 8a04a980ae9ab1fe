#include "storage/store_driver.h"

#include "config/error.h"
#include "storage/file_attrs.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* What the interface keeps of a store: references, and how many calls are in flight, so that the
 * last unref can wait for them. */
struct store_base {
    atomic_uint refs;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    unsigned in_flight; /* guarded by lock */
};

struct store_call_private {
    atomic_uint refs;
    atomic_bool cancelled;
    struct store *store; /* where it was started */
    store_done *done;
    void *user;
    pthread_mutex_t lock;
    pthread_cond_t finished_cond;
    bool finished; /* guarded by lock */
};

/* --- objects --- */

void store_object_clear(struct store_object *object)
{
    g_clear_pointer(&object->key, g_free);
    g_clear_pointer(&object->etag, g_free);
    g_clear_pointer(&object->metadata, g_hash_table_unref);
    memset(object, 0, sizeof(*object));
}

void store_object_free(struct store_object *object)
{
    if (!object)
        return;
    store_object_clear(object);
    g_free(object);
}

void store_object_copy(struct store_object *to, const struct store_object *from)
{
    *to = *from;
    to->key = g_strdup(from->key);
    to->etag = g_strdup(from->etag);
    to->metadata = from->metadata ? metadata_copy(from->metadata) : NULL;
}

/* --- calls --- */

static void part_clear(void *data)
{
    g_free(((struct store_part *)data)->etag);
}

static void upload_free(void *data)
{
    struct store_upload *upload = data;

    g_free(upload->key);
    g_free(upload->upload_id);
    g_free(upload);
}

struct store_call *store_call_new(enum store_verb verb, const char *key)
{
    struct store_call *call = g_new0(struct store_call, 1);

    call->verb = verb;
    call->key = g_strdup(key);
    call->private = g_new0(struct store_call_private, 1);
    atomic_store(&call->private->refs, 1);
    pthread_mutex_init(&call->private->lock, NULL);
    pthread_cond_init(&call->private->finished_cond, NULL);
    if (verb == STORE_LIST) {
        call->objects = g_ptr_array_new_with_free_func((GDestroyNotify)store_object_free);
        call->prefixes = g_ptr_array_new_with_free_func(g_free);
    }
    if (verb == STORE_UPLOADS)
        call->uploads = g_ptr_array_new_with_free_func(upload_free);
    if (verb == STORE_DELETE_MANY) {
        call->keys = g_ptr_array_new_with_free_func(g_free);
        call->failed_keys = g_ptr_array_new_with_free_func(g_free);
    }
    return call;
}

static void set_body(struct store_call *call, const void *body, size_t size)
{
    struct iovec iov = {(void *)body, size};

    if (size)
        store_call_set_iov(call, &iov, 1);
}

struct store_call *store_call_get(const char *key, uint64_t offset, void *buffer, size_t size)
{
    struct store_call *call = store_call_new(STORE_GET, key);

    call->offset = offset;
    set_body(call, buffer, size);
    return call;
}

struct store_call *store_call_put(const char *key, const void *body, size_t size)
{
    struct store_call *call = store_call_new(STORE_PUT, key);

    set_body(call, body, size);
    return call;
}

struct store_call *store_call_part(const char *key, const char *upload_id, unsigned number,
                                   const void *body, size_t size)
{
    struct store_call *call = store_call_new(STORE_PART, key);

    call->upload_id = g_strdup(upload_id);
    call->part_number = number;
    set_body(call, body, size);
    return call;
}

struct store_call *store_call_commit(const char *key, const char *upload_id)
{
    struct store_call *call = store_call_new(STORE_COMMIT, key);

    call->upload_id = g_strdup(upload_id);
    return call;
}

void store_call_set_iov(struct store_call *call, const struct iovec *iov, unsigned count)
{
    g_free(call->iov);
    call->iov = g_memdup2(iov, count * sizeof(*iov));
    call->iov_count = count;
    if (call->verb == STORE_GET)
        call->length = store_call_body_bytes(call);
}

void store_call_set_metadata(struct store_call *call, const char *name, const char *value)
{
    if (!call->metadata)
        call->metadata = metadata_new();
    g_hash_table_replace(call->metadata, g_strdup(name), g_strdup(value));
}

void store_call_add_part(struct store_call *call, unsigned number, const char *etag)
{
    struct store_part part = {number, g_strdup(etag)};

    if (!call->parts) {
        call->parts = g_array_new(FALSE, FALSE, sizeof(struct store_part));
        g_array_set_clear_func(call->parts, part_clear);
    }
    g_array_append_val(call->parts, part);
}

uint64_t store_call_body_bytes(const struct store_call *call)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < call->iov_count; i++)
        bytes += call->iov[i].iov_len;
    return bytes;
}

struct store_call *store_call_ref(struct store_call *call)
{
    atomic_fetch_add(&call->private->refs, 1);
    return call;
}

static void call_free(struct store_call *call)
{
    g_free(call->key);
    g_free(call->source_key);
    g_free(call->if_match);
    g_free(call->upload_id);
    g_free(call->iov);
    g_free(call->token);
    g_free(call->start_after);
    g_clear_pointer(&call->metadata, g_hash_table_unref);
    g_clear_pointer(&call->keys, g_ptr_array_unref);
    g_clear_pointer(&call->parts, g_array_unref);
    g_clear_error(&call->error);
    store_object_clear(&call->object);
    g_free(call->part_etag);
    g_clear_pointer(&call->failed_keys, g_ptr_array_unref);
    g_clear_pointer(&call->objects, g_ptr_array_unref);
    g_clear_pointer(&call->prefixes, g_ptr_array_unref);
    g_clear_pointer(&call->uploads, g_ptr_array_unref);
    g_free(call->next_token);
    pthread_cond_destroy(&call->private->finished_cond);
    pthread_mutex_destroy(&call->private->lock);
    g_free(call->private);
    g_free(call);
}

void store_call_unref(struct store_call *call)
{
    if (call && atomic_fetch_sub(&call->private->refs, 1) == 1)
        call_free(call);
}

/* --- running --- */

void store_start(struct store *store, struct store_call *call, store_done *done, void *user)
{
    g_assert(!call->private->store);
    call->private->store = store;
    call->private->done = done;
    call->private->user = user;
    pthread_mutex_lock(&store->base->lock);
    store->base->in_flight++;
    pthread_mutex_unlock(&store->base->lock);
    store->driver->start(store, store_call_ref(call));
}

void store_complete(struct store_call *call, GError *error)
{
    struct store_call_private *private = call->private;
    struct store_base *base = private->store->base;

    if (error) {
        g_clear_error(&call->error);
        call->error = error;
    }
    if (private->done)
    private->done(call, private->user);
    pthread_mutex_lock(&private->lock);
    private->finished = true;
    pthread_cond_broadcast(&private->finished_cond);
    pthread_mutex_unlock(&private->lock);
    store_call_unref(call);
    pthread_mutex_lock(&base->lock);
    if (--base->in_flight == 0)
        pthread_cond_broadcast(&base->idle);
    pthread_mutex_unlock(&base->lock);
}

void store_refuse(struct store_call *call, int code, const char *format, ...)
{
    g_autofree char *message = NULL;
    GError *error = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    error_set(&error, code, "%s", message);
    store_complete(call, error);
}

bool store_call_is_cancelled(const struct store_call *call)
{
    return atomic_load(&call->private->cancelled);
}

void store_wait(struct store_call *call)
{
    pthread_mutex_lock(&call->private->lock);
    while (!call->private->finished)
        pthread_cond_wait(&call->private->finished_cond, &call->private->lock);
    pthread_mutex_unlock(&call->private->lock);
}

void store_cancel(struct store *store, struct store_call *call)
{
    atomic_store(&call->private->cancelled, true);
    store->driver->cancel(store, call);
}

bool store_run(struct store *store, struct store_call *call, GError **error)
{
    store_start(store, call, NULL, NULL);
    store_wait(call);
    if (call->error && error)
        *error = g_error_copy(call->error);
    return !call->error;
}

/* --- stores --- */

void store_init(struct store *store, const struct store_driver *driver, const char *url)
{
    store->driver = driver;
    store->url = g_strdup(url);
    store->base = g_new0(struct store_base, 1);
    atomic_store(&store->base->refs, 1);
    pthread_mutex_init(&store->base->lock, NULL);
    pthread_cond_init(&store->base->idle, NULL);
}

struct store *store_ref(struct store *store)
{
    atomic_fetch_add(&store->base->refs, 1);
    return store;
}

void store_wait_idle(struct store *store)
{
    struct store_base *base = store->base;

    pthread_mutex_lock(&base->lock);
    while (base->in_flight)
        pthread_cond_wait(&base->idle, &base->lock);
    pthread_mutex_unlock(&base->lock);
}

void store_unref(struct store *store)
{
    struct store_base *base;

    if (!store || atomic_fetch_sub(&store->base->refs, 1) != 1)
        return;
    base = store->base;
    store_wait_idle(store);
    g_free(store->url);
    store->driver->free(store);
    pthread_cond_destroy(&base->idle);
    pthread_mutex_destroy(&base->lock);
    g_free(base);
}

unsigned store_max_key_bytes(const struct store *store)
{
    unsigned most =
        store->caps_of ? store_max_key_bytes(store->caps_of) : store->caps.max_key_bytes;

    return most > store->prefix_bytes ? most - store->prefix_bytes : 0;
}

const struct store_caps *store_caps(const struct store *store)
{
    return store->caps_of ? store_caps(store->caps_of) : &store->caps;
}

const char *store_url(const struct store *store)
{
    return store->url;
}
