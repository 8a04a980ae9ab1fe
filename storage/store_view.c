/* A view: the same store with a prefix in front of every key. Calls are passed on as they are, with
 * their keys changed on the way in and changed back in the answer. */
#include "storage/store_driver.h"

#include <pthread.h>
#include <string.h>

struct view {
    struct store store;
    pthread_mutex_t lock; /* guards driver_data of calls under way: the inner call */
    struct store *inner;
    char *prefix;
    size_t length;
};

/* One call under way: the outer one, and the same with longer keys. */
struct passing {
    struct view *view;
    struct store_call *outer, *inner;
};

static char *longer(const struct view *view, const char *key)
{
    return key ? g_strconcat(view->prefix, key, NULL) : NULL;
}

/* In place: a key of the inner store becomes ours. */
static void shorten(const struct view *view, char *key)
{
    if (key && strncmp(key, view->prefix, view->length) == 0)
        memmove(key, key + view->length, strlen(key + view->length) + 1);
}

static void shorten_all(const struct view *view, GPtrArray *keys)
{
    for (guint i = 0; keys && i < keys->len; i++)
        shorten(view, keys->pdata[i]);
}

static struct store_call *make_inner(struct view *view, const struct store_call *outer)
{
    g_autofree char *key = longer(view, outer->key);
    struct store_call *inner = store_call_new(outer->verb, key);

    inner->source_key = longer(view, outer->source_key);
    inner->if_match = g_strdup(outer->if_match);
    inner->if_absent = outer->if_absent;
    inner->upload_id = g_strdup(outer->upload_id);
    inner->part_number = outer->part_number;
    inner->offset = outer->offset;
    if (outer->iov_count)
        store_call_set_iov(inner, outer->iov, outer->iov_count);
    inner->length = outer->length;
    inner->metadata = outer->metadata ? g_hash_table_ref(outer->metadata) : NULL;
    for (guint i = 0; outer->keys && i < outer->keys->len; i++)
        g_ptr_array_add(inner->keys, longer(view, outer->keys->pdata[i]));
    inner->parts = outer->parts ? g_array_ref(outer->parts) : NULL;
    inner->delimiter = outer->delimiter;
    inner->token = g_strdup(outer->token);
    inner->start_after = longer(view, outer->start_after);
    inner->limit = outer->limit;
    inner->deadline_ms = outer->deadline_ms;
    return inner;
}

#define SWAP(field)                                                                                \
    do {                                                                                           \
        __typeof__(outer->field) swapped = outer->field;                                           \
        outer->field = inner->field;                                                               \
        inner->field = swapped;                                                                    \
    } while (0)

/* Hands the answer over: what the inner call owned, the outer one owns now. */
static void take_answer(const struct view *view, struct store_call *outer, struct store_call *inner)
{
    SWAP(object);
    SWAP(part_etag);
    SWAP(failed_keys);
    SWAP(objects);
    SWAP(prefixes);
    SWAP(uploads);
    SWAP(next_token);
    outer->received_bytes = inner->received_bytes;
    outer->answered_ns = inner->answered_ns;
    outer->maybe_twice = inner->maybe_twice;
    if (outer->verb == STORE_BEGIN)
        SWAP(upload_id);
    shorten(view, outer->object.key);
    shorten_all(view, outer->failed_keys);
    shorten_all(view, outer->prefixes);
    for (guint i = 0; outer->objects && i < outer->objects->len; i++)
        shorten(view, ((struct store_object *)outer->objects->pdata[i])->key);
    for (guint i = 0; outer->uploads && i < outer->uploads->len; i++)
        shorten(view, ((struct store_upload *)outer->uploads->pdata[i])->key);
}

static void passed(struct store_call *inner, void *user)
{
    struct passing *passing = user;
    struct store_call *outer = passing->outer;
    GError *error = inner->error ? g_error_copy(inner->error) : NULL;

    take_answer(passing->view, outer, inner);
    pthread_mutex_lock(&passing->view->lock);
    outer->driver_data = NULL;
    pthread_mutex_unlock(&passing->view->lock);
    store_call_unref(inner);
    g_free(passing);
    store_complete(outer, error);
}

static void view_start(struct store *store, struct store_call *call)
{
    struct view *view = (struct view *)store;
    struct passing *passing = g_new0(struct passing, 1);
    struct store_call *inner = make_inner(view, call);

    *passing = (struct passing){view, call, inner};
    call->driver_data = inner;
    store_start(view->inner, inner, passed, passing);
}

static void view_cancel(struct store *store, struct store_call *call)
{
    struct view *view = (struct view *)store;

    struct store_call *inner;

    pthread_mutex_lock(&view->lock);
    inner = call->driver_data ? store_call_ref(call->driver_data) : NULL;
    pthread_mutex_unlock(&view->lock);
    if (inner)
        store_cancel(view->inner, inner);
    store_call_unref(inner);
}

static void view_free(struct store *store)
{
    struct view *view = (struct view *)store;

    store_unref(view->inner);
    pthread_mutex_destroy(&view->lock);
    g_free(view->prefix);
    g_free(view);
}

static const struct store_driver view_driver = {"view", view_start, view_cancel, view_free};

struct store *store_view(struct store *store, const char *prefix)
{
    struct view *view = g_new0(struct view, 1);
    g_autofree char *url = NULL;

    url = g_strconcat(store_url(store), g_str_has_suffix(store_url(store), "/") ? "" : "/", prefix,
                      NULL);
    store_init(&view->store, &view_driver, url);
    pthread_mutex_init(&view->lock, NULL);
    view->store.caps_of = store;
    view->inner = store_ref(store);
    view->prefix = g_strdup(prefix);
    view->length = strlen(prefix);
    view->store.prefix_bytes = (unsigned)view->length;
    return &view->store;
}
