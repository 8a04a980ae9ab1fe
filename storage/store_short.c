/* The blocking short forms of store.h: each is a call or a loop of calls. */
#include "storage/store.h"

#include "config/error.h"

#include <string.h>

#define CHECK_DEADLINE_MS 8000

bool store_head(struct store *store, const char *key, struct store_object *object, GError **error)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_HEAD, key);

    if (!store_run(store, call, error))
        return false;
    store_object_copy(object, &call->object);
    return true;
}

bool store_has(struct store *store, const char *key, bool *has, GError **error)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_HEAD, key);
    g_autoptr(GError) why = NULL;

    *has = store_run(store, call, &why);
    if (*has || error_is(why, ENOENT) || error_is(why, ENOTDIR))
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

bool store_age(struct store *store, const char *key, int64_t *age_ms, GError **error)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_HEAD, key);
    int64_t now_ns;

    if (!store_run(store, call, error))
        return false;
    now_ns = call->answered_ns ? call->answered_ns : g_get_real_time() * 1000;
    *age_ms = call->object.mtime_ns ? MAX(now_ns - call->object.mtime_ns, 0) / 1000000 : 0;
    return true;
}

static bool read_size(struct store *store, const char *key, size_t limit,
                      struct store_object *object, GError **error)
{
    if (!store_head(store, key, object, error))
        return false;
    if (object->size_bytes > limit)
        return error_set(error, EFBIG, "read %s: %" G_GUINT64_FORMAT " bytes, more than %zu", key,
                         object->size_bytes, limit);
    return true;
}

bool store_read(struct store *store, const char *key, size_t limit, char **data, size_t *size,
                char **etag, GError **error)
{
    g_autofree char *bytes = NULL;

    for (int tries = 0; tries < 5; tries++) {
        struct store_object object = {0};
        g_autoptr(StoreCall) call = NULL;
        g_autoptr(GError) why = NULL;
        bool whole;

        if (!read_size(store, key, limit, &object, error)) {
            store_object_clear(&object);
            return false;
        }
        g_free(bytes);
        bytes = g_malloc(object.size_bytes + 1);
        call = store_call_get(key, 0, bytes, object.size_bytes);
        call->if_match = g_strdup(object.etag);
        whole = object.size_bytes == 0 || store_run(store, call, &why);
        if (whole && call->received_bytes == object.size_bytes) {
            bytes[object.size_bytes] = '\0';
            *size = object.size_bytes;
            *data = g_steal_pointer(&bytes);
            if (etag)
                *etag = g_strdup(object.etag);
            store_object_clear(&object);
            return true;
        }
        store_object_clear(&object);
        if (why && !error_is(why, ESTALE)) { /* replaced meanwhile: once more */
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
    }
    return error_set(error, ESTALE, "read %s: it kept changing", key);
}

bool store_write(struct store *store, const char *key, const void *data, size_t size,
                 const char *condition, char **new_etag, GError **error)
{
    g_autoptr(StoreCall) call = store_call_put(key, data, size);

    call->if_absent = condition && !*condition;
    call->if_match = condition && *condition ? g_strdup(condition) : NULL;
    if (!store_run(store, call, error))
        return false;
    if (new_etag)
        *new_etag = g_strdup(call->object.etag);
    return true;
}

bool store_delete(struct store *store, const char *key, GError **error)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_DELETE, key);

    return store_run(store, call, error);
}

/* Objects and prefixes of one page in key order. False: EACH had enough. */
static bool each_of_page(struct store_call *page, store_each *each, void *user, GError **error)
{
    guint i = 0, j = 0;

    while (i < page->objects->len || j < page->prefixes->len) {
        struct store_object *object = i < page->objects->len ? page->objects->pdata[i] : NULL;
        char *prefix = j < page->prefixes->len ? page->prefixes->pdata[j] : NULL;
        struct store_object directory = {.key = prefix};

        if (object && (!prefix || strcmp(object->key, prefix) <= 0)) {
            i++;
            if (!each(object, user, error))
                return false;
        } else {
            j++;
            if (!each(&directory, user, error))
                return false;
        }
    }
    return true;
}

bool store_list(struct store *store, const char *prefix, bool delimiter, store_each *each,
                void *user, GError **error)
{
    g_autofree char *token = NULL;

    do {
        g_autoptr(StoreCall) page = store_call_new(STORE_LIST, prefix);
        GError *why = NULL;

        page->delimiter = delimiter;
        page->token = g_steal_pointer(&token);
        if (!store_run(store, page, error))
            return false;
        if (!each_of_page(page, each, user, &why)) {
            if (why)
                g_propagate_error(error, why);
            return why == NULL;
        }
        token = g_strdup(page->next_token);
    } while (token);
    return true;
}

bool store_delete_prefix(struct store *store, const char *prefix, uint64_t *count, GError **error)
{
    uint64_t deleted = 0;
    unsigned batch = MAX(store_caps(store)->max_delete_keys, 1);

    for (;;) {
        g_autoptr(StoreCall) page = store_call_new(STORE_LIST, prefix);
        g_autoptr(StoreCall) call = store_call_new(STORE_DELETE_MANY, "");

        page->limit = MIN(batch, store_caps(store)->max_list_entries);
        if (!store_run(store, page, error))
            return false;
        if (page->objects->len == 0)
            break;
        for (guint i = 0; i < page->objects->len; i++)
            g_ptr_array_add(call->keys,
                            g_strdup(((struct store_object *)page->objects->pdata[i])->key));
        if (!store_run(store, call, error))
            return false;
        deleted += page->objects->len;
    }
    if (count)
        *count = deleted;
    return true;
}

bool store_abort_uploads(struct store *store, const char *prefix, GError **error)
{
    g_autofree char *token = NULL;

    do {
        g_autoptr(StoreCall) page = store_call_new(STORE_UPLOADS, prefix);

        page->token = g_steal_pointer(&token);
        if (!store_run(store, page, error))
            return false;
        for (guint i = 0; i < page->uploads->len; i++) {
            const struct store_upload *upload = page->uploads->pdata[i];
            g_autoptr(StoreCall) call = store_call_new(STORE_ABORT, upload->key);

            call->upload_id = g_strdup(upload->upload_id);
            if (!store_run(store, call, error))
                return false;
        }
        token = g_strdup(page->next_token);
    } while (token);
    return true;
}

bool store_check(struct store *store, GError **error)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_LIST, "");

    call->limit = 1;
    call->deadline_ms = CHECK_DEADLINE_MS;
    if (store_run(store, call, error))
        return true;
    g_prefix_error(error, "%s: ", store_url(store));
    return false;
}
