#include "tests/support/conformance.h"

#include "config/error.h"
#include "storage/file_attrs.h"

#include <stdio.h>
#include <string.h>

struct suite {
    struct store *store; /* a view of the prefix */
    const struct store_caps *caps;
    GError **error;
};

typedef bool conformance_case(struct suite *suite);

/* Ends the case when CONDITION does not hold. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return (*suite->error)                                                                 \
                       ? (g_prefix_error(suite->error, "%s:%d: ", __func__, __LINE__), false)      \
                       : error_set(suite->error, EPROTO, "%s:%d: %s", __func__, __LINE__,          \
                                   #condition);                                                    \
    } while (0)

/* The call fails with this code; the error itself is expected and dropped. */
static bool fails_with(struct suite *suite, struct store_call *call, int code)
{
    g_autoptr(GError) why = NULL;

    if (!store_run(suite->store, call, &why) && error_is(why, code))
        return true;
    return error_set(suite->error, EPROTO, "%s was expected, not: %s", g_strerror(code),
                     why ? why->message : "success");
}

static bool put(struct suite *suite, const char *key, const char *text)
{
    return store_write(suite->store, key, text, strlen(text), NULL, NULL, suite->error);
}

static bool holds(struct suite *suite, const char *key, const char *text)
{
    g_autofree char *data = NULL;
    size_t size;

    if (!store_read(suite->store, key, 1 << 20, &data, &size, NULL, suite->error))
        return false;
    if (size == strlen(text) && !memcmp(data, text, size))
        return true;
    return error_set(suite->error, EPROTO, "%s holds other bytes", key);
}

static bool case_put_get(struct suite *suite)
{
    g_autoptr(StoreCall) call = store_call_put("a file", "hello world", 11);
    struct store_object object = {0};
    char buffer[32] = {0};
    g_autoptr(StoreCall) get = store_call_get("a file", 6, buffer, sizeof buffer);
    g_autoptr(StoreCall) beyond = store_call_get("a file", 11, buffer, sizeof buffer);
    g_autoptr(StoreCall) none = store_call_new(STORE_HEAD, "not there");

    store_call_set_metadata(call, "mode", "33188");
    store_call_set_metadata(call, "note", "100% = a+b");
    CHECK(store_run(suite->store, call, suite->error) && call->object.etag);
    CHECK(store_head(suite->store, "a file", &object, suite->error));
    CHECK(object.size_bytes == 11 && object.mtime_ns && g_str_equal(object.key, "a file"));
    CHECK(g_str_equal(object.etag, call->object.etag));
    /* An answer's time is cut to a second, and Swift rounds an object's up to one. */
    CHECK(!call->answered_ns || object.mtime_ns < call->answered_ns + 2000000000);
    CHECK(!g_strcmp0(g_hash_table_lookup(object.metadata, "mode"), "33188"));
    CHECK(!g_strcmp0(g_hash_table_lookup(object.metadata, "note"), "100% = a+b"));
    store_object_clear(&object);
    CHECK(store_run(suite->store, get, suite->error));
    CHECK(get->received_bytes == 5 && !memcmp(buffer, "world", 5));
    CHECK(!g_strcmp0(g_hash_table_lookup(get->object.metadata, "mode"), "33188"));
    CHECK(store_run(suite->store, beyond, suite->error) && beyond->received_bytes == 0);
    CHECK(fails_with(suite, none, ENOENT));
    CHECK(put(suite, "empty", "") && holds(suite, "empty", ""));
    return true;
}

static const char *const hard_keys[] = {
    "s p a c e", "a=b",         "a+b",         "a*b",
    "100%",      "%41",         "%",           "\xc3\xbc\xe6\x97\xa5",
    "a&b?c#d",   "~'(",         "a//b",        "x/",
    "q\"<>",     "back\\slash", ".hidden",     "d/e/f/g",
    "-x",        "a:b",         ".dstack-odd",
};

static bool case_keys(struct suite *suite)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(hard_keys); i++)
        CHECK(put(suite, hard_keys[i], hard_keys[i]));
    for (unsigned i = 0; i < G_N_ELEMENTS(hard_keys); i++)
        CHECK(holds(suite, hard_keys[i], hard_keys[i]));
    for (unsigned i = 0; i < G_N_ELEMENTS(hard_keys); i++) {
        g_autoptr(StoreCall) list = store_call_new(STORE_LIST, hard_keys[i]);

        CHECK(store_run(suite->store, list, suite->error) && list->objects->len);
        CHECK(g_str_equal(((struct store_object *)list->objects->pdata[0])->key, hard_keys[i]));
    }
    return true;
}

static bool case_conditions(struct suite *suite)
{
    g_autoptr(StoreCall) absent = store_call_put("k", "2", 1);
    g_autoptr(StoreCall) wrong = store_call_put("k", "3", 1);
    g_autoptr(StoreCall) gone = store_call_get("k", 0, NULL, 0);
    g_autofree char *first = NULL, *second = NULL;
    char byte;

    CHECK(store_write(suite->store, "k", "1", 1, NULL, &first, suite->error));
    absent->if_absent = true;
    if (suite->caps->has_put_if_absent) {
        CHECK(fails_with(suite, absent, EEXIST));
        CHECK(store_write(suite->store, "k2", "1", 1, "", NULL, suite->error));
    }
    CHECK(store_write(suite->store, "k", "9", 1, suite->caps->has_put_if_match ? first : NULL,
                      &second, suite->error));
    CHECK(!g_str_equal(first, second));
    wrong->if_match = g_strdup(first);
    if (suite->caps->has_put_if_match)
        CHECK(fails_with(suite, wrong, ESTALE));
    store_call_set_iov(gone, &(struct iovec){&byte, 1}, 1);
    gone->if_match = g_strdup(first);
    CHECK(fails_with(suite, gone, ESTALE));
    CHECK(holds(suite, "k", "9"));
    return true;
}

static bool case_copy_delete(struct suite *suite)
{
    g_autoptr(StoreCall) source = store_call_put("from", "body", 4);
    g_autoptr(StoreCall) copy = store_call_new(STORE_COPY, "to/here");
    g_autoptr(StoreCall) replace = store_call_new(STORE_COPY, "to/there");
    g_autoptr(StoreCall) missing = store_call_new(STORE_COPY, "to/none");
    g_autoptr(StoreCall) many = store_call_new(STORE_DELETE_MANY, "");
    g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, "to/here");
    struct store_object object = {0};

    store_call_set_metadata(source, "a", "1");
    CHECK(store_run(suite->store, source, suite->error));
    copy->source_key = g_strdup("from");
    CHECK(store_run(suite->store, copy, suite->error) && holds(suite, "to/here", "body"));
    CHECK(store_head(suite->store, "to/here", &object, suite->error));
    CHECK(!g_strcmp0(g_hash_table_lookup(object.metadata, "a"), "1"));
    store_object_clear(&object);
    replace->source_key = g_strdup("from");
    store_call_set_metadata(replace, "b", "2");
    CHECK(store_run(suite->store, replace, suite->error));
    CHECK(store_head(suite->store, "to/there", &object, suite->error));
    CHECK(!g_hash_table_contains(object.metadata, "a"));
    CHECK(!g_strcmp0(g_hash_table_lookup(object.metadata, "b"), "2"));
    store_object_clear(&object);
    missing->source_key = g_strdup("nothing");
    CHECK(fails_with(suite, missing, ENOENT));
    CHECK(store_delete(suite->store, "nothing", suite->error));
    g_ptr_array_add(many->keys, g_strdup("to/here"));
    g_ptr_array_add(many->keys, g_strdup("to/there"));
    CHECK(store_run(suite->store, many, suite->error) && many->failed_keys->len == 0);
    CHECK(fails_with(suite, head, ENOENT));
    return true;
}

static const char *const listed[] = {"a", "b-c", "b/1", "b/2", "b/c/3", "b0", "c d", "z/"};

/* Every key once, in byte order, in pages of LIMIT; and the same from behind each key. */
static bool list_from(struct suite *suite, unsigned from, unsigned limit)
{
    g_autofree char *token = NULL;
    unsigned at = from;

    do {
        g_autoptr(StoreCall) page = store_call_new(STORE_LIST, "");

        page->limit = limit;
        page->token = g_steal_pointer(&token);
        if (from && !page->token)
            page->start_after = g_strdup(listed[from - 1]);
        CHECK(store_run(suite->store, page, suite->error) && page->objects->len <= limit);
        for (unsigned i = 0; i < page->objects->len; i++, at++) {
            const struct store_object *object = page->objects->pdata[i];

            CHECK(at < G_N_ELEMENTS(listed) && g_str_equal(object->key, listed[at]));
            CHECK(object->etag && object->size_bytes == strlen(listed[at]) && object->mtime_ns);
        }
        token = g_strdup(page->next_token);
    } while (token);
    CHECK(at == G_N_ELEMENTS(listed));
    return true;
}

static bool collect(const struct store_object *object, void *user, GError **error)
{
    g_string_append_printf(user, "%s|", object->key);
    return true;
}

static bool list_is(struct suite *suite, const char *prefix, bool delimiter, const char *expected)
{
    g_autoptr(GString) found = g_string_new(NULL);

    if (!store_list(suite->store, prefix, delimiter, collect, found, suite->error))
        return false;
    if (g_str_equal(found->str, expected))
        return true;
    return error_set(suite->error, EPROTO, "listing '%s' gave %s, not %s", prefix, found->str,
                     expected);
}

static bool folded_pages(struct suite *suite)
{
    g_autoptr(GString) found = g_string_new(NULL);
    g_autofree char *token = NULL;

    do {
        g_autoptr(StoreCall) page = store_call_new(STORE_LIST, "");

        page->limit = 1;
        page->delimiter = true;
        page->token = g_steal_pointer(&token);
        CHECK(store_run(suite->store, page, suite->error));
        for (unsigned i = 0; i < page->objects->len; i++)
            collect(page->objects->pdata[i], found, NULL);
        for (unsigned i = 0; i < page->prefixes->len; i++)
            g_string_append_printf(found, "%s|", (char *)page->prefixes->pdata[i]);
        token = g_strdup(page->next_token);
    } while (token);
    CHECK(g_str_equal(found->str, "a|b-c|b/|b0|c d|z/|"));
    return true;
}

static bool case_list(struct suite *suite)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(listed); i++)
        CHECK(put(suite, listed[i], listed[i]));
    for (unsigned from = 0; from < G_N_ELEMENTS(listed); from++)
        for (unsigned limit = 1; limit < 10; limit += 4)
            CHECK(list_from(suite, from, limit));
    CHECK(list_is(suite, "b/", false, "b/1|b/2|b/c/3|"));
    CHECK(list_is(suite, "b/", true, "b/1|b/2|b/c/|"));
    CHECK(list_is(suite, "b", true, "b-c|b/|b0|"));
    CHECK(list_is(suite, "b/c", false, "b/c/3|"));
    CHECK(list_is(suite, "z/", true, "z/|"));
    CHECK(list_is(suite, "none/", false, ""));
    CHECK(folded_pages(suite));
    return true;
}

static char *begin(struct suite *suite, const char *key)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_BEGIN, key);

    store_call_set_metadata(call, "mode", "33261");
    return store_run(suite->store, call, suite->error) ? g_strdup(call->upload_id) : NULL;
}

static bool upload_in_two(struct suite *suite, const char *id, const char *large, size_t size)
{
    g_autoptr(StoreCall) one = store_call_part("up", id, 1, large, size);
    g_autoptr(StoreCall) two = store_call_part("up", id, 2, "tail", 4);
    g_autoptr(StoreCall) before = store_call_new(STORE_HEAD, "up");
    g_autoptr(StoreCall) commit = store_call_commit("up", id);
    struct store_object object = {0};
    char tail[8];
    g_autoptr(StoreCall) get = store_call_get("up", size, tail, sizeof tail);

    CHECK(store_run(suite->store, two, suite->error) && two->part_etag);
    CHECK(store_run(suite->store, one, suite->error) && one->part_etag);
    CHECK(fails_with(suite, before, ENOENT));
    store_call_add_part(commit, 1, one->part_etag);
    store_call_add_part(commit, 2, two->part_etag);
    CHECK(store_run(suite->store, commit, suite->error));
    CHECK(store_head(suite->store, "up", &object, suite->error));
    CHECK(object.size_bytes == size + 4);
    CHECK(!g_strcmp0(g_hash_table_lookup(object.metadata, "mode"), "33261"));
    store_object_clear(&object);
    CHECK(store_run(suite->store, get, suite->error));
    CHECK(get->received_bytes == 4 && !memcmp(tail, "tail", 4));
    return true;
}

static bool append_by_copy(struct suite *suite, size_t size)
{
    g_autofree char *id = begin(suite, "up2");
    g_autoptr(StoreCall) one = store_call_new(STORE_COPY_PART, "up2");
    g_autoptr(StoreCall) two = store_call_part("up2", id, 2, "!", 1);
    g_autoptr(StoreCall) commit = store_call_commit("up2", id);
    struct store_object object = {0};

    CHECK(id);
    one->upload_id = g_strdup(id);
    one->part_number = 1;
    one->source_key = g_strdup("up");
    one->length = size;
    CHECK(store_run(suite->store, one, suite->error) && one->part_etag);
    CHECK(store_run(suite->store, two, suite->error));
    store_call_add_part(commit, 1, one->part_etag);
    store_call_add_part(commit, 2, two->part_etag);
    CHECK(store_run(suite->store, commit, suite->error));
    CHECK(store_head(suite->store, "up2", &object, suite->error));
    CHECK(object.size_bytes == size + 1);
    store_object_clear(&object);
    return true;
}

static bool has_upload(const struct store_call *call, const char *key, const char *id)
{
    for (unsigned i = 0; i < call->uploads->len; i++) {
        const struct store_upload *upload = call->uploads->pdata[i];

        if (g_str_equal(upload->key, key) && g_str_equal(upload->upload_id, id))
            return true;
    }
    return false;
}

static bool case_uploads(struct suite *suite)
{
    size_t size = (size_t)MAX(suite->caps->min_part_bytes, 100000);
    g_autofree char *large = g_malloc0(size);
    g_autofree char *id = begin(suite, "up");
    g_autofree char *dropped = begin(suite, "dropped");
    g_autoptr(StoreCall) uploads = store_call_new(STORE_UPLOADS, "");
    g_autoptr(StoreCall) left = store_call_new(STORE_UPLOADS, "");
    g_autoptr(StoreCall) abort = store_call_new(STORE_ABORT, "dropped");
    g_autoptr(StoreCall) again = store_call_new(STORE_ABORT, "dropped");

    CHECK(id && dropped);
    CHECK(store_run(suite->store, uploads, suite->error) && uploads->uploads->len == 2);
    CHECK(has_upload(uploads, "dropped", dropped) && has_upload(uploads, "up", id));
    abort->upload_id = g_strdup(dropped);
    again->upload_id = g_strdup(dropped);
    CHECK(store_run(suite->store, abort, suite->error));
    CHECK(store_run(suite->store, again, suite->error));
    CHECK(upload_in_two(suite, id, large, size));
    if (suite->caps->has_copy_part)
        CHECK(append_by_copy(suite, size));
    CHECK(store_run(suite->store, left, suite->error) && left->uploads->len == 0);
    return true;
}

static bool case_prefix_and_key(struct suite *suite)
{
    g_autoptr(StoreCall) below = store_call_put("p/q", "2", 1);

    CHECK(put(suite, "p", "1"));
    if (suite->caps->has_prefix_and_key) {
        CHECK(store_run(suite->store, below, suite->error));
        CHECK(holds(suite, "p", "1") && holds(suite, "p/q", "2"));
    } else {
        CHECK(fails_with(suite, below, ENOTDIR) && holds(suite, "p", "1"));
    }
    return true;
}

static conformance_case *const cases[] = {
    case_put_get, case_keys,    case_conditions,     case_copy_delete,
    case_list,    case_uploads, case_prefix_and_key,
};

bool conformance_run(struct store *store, const char *prefix, unsigned *checks, GError **error)
{
    g_autoptr(Store) view = store_view(store, prefix);
    GError *failure = NULL;
    struct suite suite = {.store = view, .caps = store_caps(store), .error = &failure};

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        if (!store_delete_prefix(view, "", NULL, &failure) || !cases[i](&suite)) {
            g_propagate_error(error, failure);
            return false;
        }
        if (checks)
            *checks = i + 1;
    }
    return store_delete_prefix(view, "", NULL, error);
}
