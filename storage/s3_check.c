/* Which calls no request can be made of. */
#include "storage/s3_op.h"

#include "config/error.h"
#include "storage/s3_xml.h"

#include <inttypes.h>
#include <string.h>

bool s3_wants_key(enum store_verb verb)
{
    return verb != STORE_LIST && verb != STORE_UPLOADS && verb != STORE_DELETE_MANY;
}

static bool check_key(const char *key, const struct store_caps *caps, GError **error)
{
    if (!key || !*key)
        return error_set(error, EINVAL, "an object's key cannot be empty");
    if (strlen(key) > caps->max_key_bytes)
        return error_set(error, ENAMETOOLONG, "%s: the key is longer than %u bytes", key,
                         caps->max_key_bytes);
    if (!g_utf8_validate(key, -1, NULL))
        return error_set(error, EINVAL, "a key is not UTF-8");
    return true;
}

static bool is_header_name(const char *name)
{
    if (!*name)
        return false;
    for (; *name; name++)
        if (!g_ascii_islower(*name) && !g_ascii_isdigit(*name) && !strchr("-_.", *name))
            return false;
    return true;
}

const char *s3_metadata_fault(const char *name, const char *value)
{
    if (!is_header_name(name))
        return "no metadata can have such a name";
    if (g_str_equal(name, S3_WRITE_ID))
        return "the name is the store's own";
    for (; *value; value++)
        if (!g_ascii_isprint(*value))
            return "the value is not printable ASCII";
    return NULL;
}

static bool check_metadata(const struct store_call *call, GError **error)
{
    GHashTableIter iter;
    gpointer name, value;

    if (!call->metadata)
        return true;
    g_hash_table_iter_init(&iter, call->metadata);
    while (g_hash_table_iter_next(&iter, &name, &value)) {
        const char *fault = s3_metadata_fault(name, value);

        if (fault)
            return error_set(error, EINVAL, "%s: metadata %s: %s", call->key, (char *)name, fault);
    }
    return true;
}

static bool is_etag(const char *etag)
{
    for (; etag && *etag; etag++)
        if (!g_ascii_isgraph(*etag))
            return false;
    return true;
}

static bool check_upload(const struct store_call *call, const struct store_caps *caps,
                         GError **error)
{
    bool is_part = call->verb == STORE_PART || call->verb == STORE_COPY_PART;
    bool wants_id = is_part || call->verb == STORE_COMMIT || call->verb == STORE_ABORT;

    if (wants_id && (!call->upload_id || !*call->upload_id))
        return error_set(error, EINVAL, "%s: no upload is named", call->key);
    if (is_part && (call->part_number < 1 || call->part_number > caps->max_parts))
        return error_set(error, EINVAL, "%s: part %u is not between 1 and %u", call->key,
                         call->part_number, caps->max_parts);
    if (call->verb == STORE_COPY_PART && !call->length)
        return error_set(error, EINVAL, "%s: a copied part cannot be empty", call->key);
    if (call->verb == STORE_COMMIT && (call->if_absent || call->if_match))
        return error_set(error, ENOTSUP, "%s: not every S3 store can commit on a condition",
                         call->key);
    return true;
}

static bool check_sizes(const struct store_call *call, const struct store_caps *caps,
                        GError **error)
{
    uint64_t bytes = store_call_body_bytes(call);
    uint64_t max = call->verb == STORE_PUT    ? caps->max_put_bytes
                   : call->verb == STORE_PART ? caps->max_part_bytes
                                              : UINT64_MAX;

    if (bytes > max)
        return error_set(error, EFBIG, "%s: %" PRIu64 " bytes in one request, more than %" PRIu64,
                         call->key, bytes, max);
    if (call->verb == STORE_DELETE_MANY && call->keys->len > caps->max_delete_keys)
        return error_set(error, EINVAL, "%u keys in one request, more than %u", call->keys->len,
                         caps->max_delete_keys);
    return true;
}

static bool check_token(const struct store_call *call, GError **error)
{
    g_autofree char *key = NULL, *upload_id = NULL;

    if (call->verb == STORE_UPLOADS && call->token &&
        !s3_xml_split_token(call->token, &key, &upload_id))
        return error_set(error, EINVAL, "%s is no token of a list of uploads", call->token);
    return true;
}

bool s3_request_check(const struct store_call *call, const struct store_caps *caps, GError **error)
{
    bool wants_source = call->verb == STORE_COPY || call->verb == STORE_COPY_PART;

    if (s3_wants_key(call->verb) && !check_key(call->key, caps, error))
        return false;
    if (wants_source && !check_key(call->source_key, caps, error))
        return false;
    for (guint i = 0; call->verb == STORE_DELETE_MANY && i < call->keys->len; i++)
        if (!check_key(call->keys->pdata[i], caps, error))
            return false;
    if (!is_etag(call->if_match))
        return error_set(error, EINVAL, "%s: the condition is no ETag", call->key);
    return check_metadata(call, error) && check_upload(call, caps, error) &&
           check_sizes(call, caps, error) && check_token(call, error);
}
