#include "storage/s3_xml.h"

#include "config/error.h"
#include "storage/uri.h"

#include <expat.h>
#include <string.h>

#define DEPTH_MAX 8
#define TEXT_MAX  (64 * 1024)
#define NS_PER_US 1000
#define NS_PER_S  INT64_C(1000000000)

/* Called at the end of each element, in document order. PARENT is "" for the root. */
typedef void on_element(const char *parent, const char *name, const char *text, void *user);

struct reader {
    XML_Parser parser;
    char *names[DEPTH_MAX];
    unsigned depth;
    GString *text;
    on_element *each;
    void *user;
    const char *root; /* the only one allowed; NULL: any */
    const char *why;  /* not NULL: refused */
};

static void refuse(struct reader *reader, const char *why)
{
    if (!reader->why)
        reader->why = why;
    XML_StopParser(reader->parser, XML_FALSE);
}

static void XMLCALL on_start(void *user, const XML_Char *name, const XML_Char **attributes)
{
    struct reader *reader = user;
    const char *colon = strchr(name, ':');

    name = colon ? colon + 1 : name;
    if (reader->depth == DEPTH_MAX)
        refuse(reader, "it is nested too deeply");
    else if (reader->depth == 0 && reader->root && !g_str_equal(name, reader->root))
        refuse(reader, "it is another document");
    if (reader->why)
        return;
    reader->names[reader->depth++] = g_strdup(name);
    g_string_truncate(reader->text, 0);
}

static void XMLCALL on_end(void *user, const XML_Char *name)
{
    struct reader *reader = user;
    char *ended;

    if (reader->why || reader->depth == 0)
        return;
    ended = reader->names[--reader->depth];
    reader->each(reader->depth ? reader->names[reader->depth - 1] : "", ended, reader->text->str,
                 reader->user);
    g_free(ended);
    g_string_truncate(reader->text, 0);
}

static void XMLCALL on_text(void *user, const XML_Char *text, int length)
{
    struct reader *reader = user;

    if (reader->why)
        return;
    if (reader->text->len + (size_t)length > TEXT_MAX)
        refuse(reader, "a text is too long");
    else
        g_string_append_len(reader->text, text, length);
}

static void XMLCALL on_doctype(void *user, const XML_Char *name, const XML_Char *system_id,
                               const XML_Char *public_id, int has_internal_subset)
{
    refuse(user, "it declares a document type");
}

static bool parse(struct reader *reader, const char *data, size_t size)
{
    bool ok;

    reader->parser = XML_ParserCreate(NULL);
    reader->text = g_string_new(NULL);
    XML_SetUserData(reader->parser, reader);
    XML_SetElementHandler(reader->parser, on_start, on_end);
    XML_SetCharacterDataHandler(reader->parser, on_text);
    XML_SetStartDoctypeDeclHandler(reader->parser, on_doctype);
    ok = size <= G_MAXINT &&
         XML_Parse(reader->parser, data, (int)size, XML_TRUE) == XML_STATUS_OK && !reader->why;
    if (!reader->why)
        reader->why = XML_ErrorString(XML_GetErrorCode(reader->parser));
    XML_ParserFree(reader->parser);
    while (reader->depth)
        g_free(reader->names[--reader->depth]);
    g_string_free(reader->text, TRUE);
    return ok;
}

/* Reads a document whose root is ROOT. */
static bool read_document(const char *data, size_t size, const char *root, on_element *each,
                          void *user, GError **error)
{
    struct reader reader = {.each = each, .user = user, .root = root};

    if (parse(&reader, data, size))
        return true;
    return error_set(error, EIO, "the store's answer is no %s: %s", root,
                     reader.why ? reader.why : "it is cut off");
}

static void on_any_element(const char *parent, const char *name, const char *text, void *user)
{
}

bool s3_xml_is_whole(const char *data, size_t size)
{
    struct reader reader = {.each = on_any_element};

    return parse(&reader, data, size);
}

static void set_text(char **to, const char *text)
{
    g_free(*to);
    *to = g_strdup(text);
}

/* --- errors --- */

static void on_error_element(const char *parent, const char *name, const char *text, void *user)
{
    struct s3_error *found = user;

    if (!g_str_equal(parent, "Error"))
        return;
    if (g_str_equal(name, "Code"))
        set_text(&found->code, text);
    else if (g_str_equal(name, "Message"))
        set_text(&found->message, text);
}

void s3_error_clear(struct s3_error *found)
{
    g_clear_pointer(&found->code, g_free);
    g_clear_pointer(&found->message, g_free);
}

bool s3_xml_error(const char *data, size_t size, struct s3_error *found)
{
    *found = (struct s3_error){0};
    if (read_document(data, size, "Error", on_error_element, found, NULL) && found->code)
        return true;
    s3_error_clear(found);
    return false;
}

/* --- single texts --- */

char *s3_unquote(const char *etag)
{
    size_t length = strlen(etag);

    if (length >= 2 && etag[0] == '"' && etag[length - 1] == '"')
        return g_strndup(etag + 1, length - 2);
    return g_strdup(etag);
}

int64_t s3_xml_time(const char *text)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_iso8601(text, NULL);
    int64_t seconds = time ? g_date_time_to_unix(time) : 0;

    if (!time || seconds <= INT64_MIN / NS_PER_S || seconds >= INT64_MAX / NS_PER_S)
        return 0;
    return seconds * NS_PER_S + g_date_time_get_microsecond(time) * (int64_t)NS_PER_US;
}

struct wanted {
    const char *root, *name;
    char *text;
};

static void on_wanted_element(const char *parent, const char *name, const char *text, void *user)
{
    struct wanted *wanted = user;

    if (!wanted->text && g_str_equal(parent, wanted->root) && g_str_equal(name, wanted->name))
        wanted->text = s3_unquote(text);
}

char *s3_xml_text(const char *data, size_t size, const char *root, const char *name, GError **error)
{
    struct wanted wanted = {root, name, NULL};

    if (!read_document(data, size, root, on_wanted_element, &wanted, error))
        g_clear_pointer(&wanted.text, g_free);
    else if (!wanted.text)
        error_set(error, EIO, "the store's %s has no %s", root, name);
    return wanted.text;
}

/* --- listings --- */

struct listing {
    struct store_call *call;
    struct store_object *object; /* being read */
    struct store_upload *upload; /* being read */
    bool is_url_encoded, is_truncated;
    bool is_bad; /* a key or a number is malformed */
    char *token, *next_key, *next_id;
};

static void take_size(struct listing *listing, struct store_object *object, const char *text)
{
    guint64 size;

    if (g_ascii_string_to_unsigned(text, 10, 0, G_MAXINT64, &size, NULL))
        object->size_bytes = size;
    else
        listing->is_bad = true;
}

static void on_object_field(struct listing *listing, const char *name, const char *text)
{
    struct store_object *object = listing->object;

    if (!object)
        object = listing->object = g_new0(struct store_object, 1);
    if (g_str_equal(name, "Key"))
        set_text(&object->key, text);
    else if (g_str_equal(name, "ETag")) {
        g_free(object->etag);
        object->etag = s3_unquote(text);
    } else if (g_str_equal(name, "Size"))
        take_size(listing, object, text);
    else if (g_str_equal(name, "LastModified"))
        object->mtime_ns = s3_xml_time(text);
}

static void on_upload_field(struct listing *listing, const char *name, const char *text)
{
    struct store_upload *upload = listing->upload;

    if (!upload)
        upload = listing->upload = g_new0(struct store_upload, 1);
    if (g_str_equal(name, "Key"))
        set_text(&upload->key, text);
    else if (g_str_equal(name, "UploadId"))
        set_text(&upload->upload_id, text);
    else if (g_str_equal(name, "Initiated"))
        upload->started_ns = s3_xml_time(text);
}

static void on_page_field(struct listing *listing, const char *name, const char *text)
{
    if (g_str_equal(name, "EncodingType"))
        listing->is_url_encoded = g_str_equal(text, "url");
    else if (g_str_equal(name, "IsTruncated"))
        listing->is_truncated = g_str_equal(text, "true");
    else if (g_str_equal(name, "NextContinuationToken"))
        set_text(&listing->token, text);
    else if (g_str_equal(name, "NextKeyMarker"))
        set_text(&listing->next_key, text);
    else if (g_str_equal(name, "NextUploadIdMarker"))
        set_text(&listing->next_id, text);
    else if (g_str_equal(name, "Contents") && listing->object)
        g_ptr_array_add(listing->call->objects, g_steal_pointer(&listing->object));
    else if (g_str_equal(name, "Upload") && listing->upload)
        g_ptr_array_add(listing->call->uploads, g_steal_pointer(&listing->upload));
}

static void on_list_element(const char *parent, const char *name, const char *text, void *user)
{
    struct listing *listing = user;

    if (g_str_equal(parent,
                    listing->call->objects ? "ListBucketResult" : "ListMultipartUploadsResult"))
        on_page_field(listing, name, text);
    else if (listing->call->objects && g_str_equal(parent, "Contents"))
        on_object_field(listing, name, text);
    else if (listing->call->prefixes && g_str_equal(parent, "CommonPrefixes") &&
             g_str_equal(name, "Prefix"))
        g_ptr_array_add(listing->call->prefixes, g_strdup(text));
    else if (listing->call->uploads && g_str_equal(parent, "Upload"))
        on_upload_field(listing, name, text);
}

/* In place. The encoding is announced anywhere in the document, so it is undone at its end. */
static void decode(struct listing *listing, char **key)
{
    char *decoded = *key && listing->is_url_encoded ? uri_decode(*key) : g_strdup(*key);

    listing->is_bad |= *key && (!decoded || !g_utf8_validate(decoded, -1, NULL));
    g_free(*key);
    *key = decoded;
}

/* Callers strip the prefix that they asked for, so it must be there. */
static bool is_wanted(const struct listing *listing, const char *key)
{
    const char *prefix = listing->call->key ? listing->call->key : "";

    return key && *key && g_str_has_prefix(key, prefix);
}

static void check_keys(struct listing *listing)
{
    const struct store_call *call = listing->call;

    for (guint i = 0; call->objects && i < call->objects->len; i++)
        listing->is_bad |=
            !is_wanted(listing, ((struct store_object *)call->objects->pdata[i])->key);
    for (guint i = 0; call->prefixes && i < call->prefixes->len; i++)
        listing->is_bad |= !is_wanted(listing, call->prefixes->pdata[i]) ||
                           !g_str_has_suffix(call->prefixes->pdata[i], "/");
    for (guint i = 0; call->uploads && i < call->uploads->len; i++) {
        const struct store_upload *upload = call->uploads->pdata[i];

        listing->is_bad |= !is_wanted(listing, upload->key) || !upload->upload_id;
    }
}

static void decode_all(struct listing *listing)
{
    struct store_call *call = listing->call;

    for (guint i = 0; call->objects && i < call->objects->len; i++)
        decode(listing, &((struct store_object *)call->objects->pdata[i])->key);
    for (guint i = 0; call->prefixes && i < call->prefixes->len; i++)
        decode(listing, (char **)&call->prefixes->pdata[i]);
    for (guint i = 0; call->uploads && i < call->uploads->len; i++)
        decode(listing, &((struct store_upload *)call->uploads->pdata[i])->key);
    decode(listing, &listing->next_key);
}

static bool read_listing(struct listing *listing, const char *root, const char *data, size_t size,
                         GError **error)
{
    if (!read_document(data, size, root, on_list_element, listing, error))
        return false;
    decode_all(listing);
    check_keys(listing);
    if (listing->is_bad)
        return error_set(error, EIO, "the store's %s has a malformed entry", root);
    return true;
}

static void listing_clear(struct listing *listing)
{
    store_object_free(listing->object);
    if (listing->upload) {
        g_free(listing->upload->key);
        g_free(listing->upload->upload_id);
        g_free(listing->upload);
    }
    g_free(listing->token);
    g_free(listing->next_key);
    g_free(listing->next_id);
}

bool s3_xml_list(const char *data, size_t size, struct store_call *call, GError **error)
{
    struct listing listing = {.call = call};
    bool ok = read_listing(&listing, "ListBucketResult", data, size, error);

    if (ok && listing.is_truncated && !listing.token)
        ok = error_set(error, EIO, "the store's listing is cut off without a token to go on with");
    if (ok && listing.is_truncated)
        call->next_token = g_steal_pointer(&listing.token);
    listing_clear(&listing);
    return ok;
}

bool s3_xml_uploads(const char *data, size_t size, struct store_call *call, GError **error)
{
    struct listing listing = {.call = call};
    bool ok = read_listing(&listing, "ListMultipartUploadsResult", data, size, error);

    if (ok && listing.is_truncated && !listing.next_key)
        ok = error_set(error, EIO, "the store's list of uploads is cut off without a marker");
    if (ok && listing.is_truncated) {
        g_autofree char *key = uri_encode(listing.next_key, false);
        g_autofree char *id = uri_encode(listing.next_id ? listing.next_id : "", false);

        call->next_token = g_strdup_printf("%s/%s", key, id);
    }
    listing_clear(&listing);
    return ok;
}

bool s3_xml_split_token(const char *token, char **key, char **upload_id)
{
    const char *slash = strchr(token, '/');
    g_autofree char *first = slash ? g_strndup(token, (size_t)(slash - token)) : NULL;

    *key = first ? uri_decode(first) : NULL;
    *upload_id = slash ? uri_decode(slash + 1) : NULL;
    if (*key && *upload_id)
        return true;
    g_clear_pointer(key, g_free);
    g_clear_pointer(upload_id, g_free);
    return false;
}

/* --- DeleteObjects --- */

struct deleted {
    GPtrArray *failed;
    char *key, *code, *first_code;
};

static void on_deleted_element(const char *parent, const char *name, const char *text, void *user)
{
    struct deleted *deleted = user;

    if (g_str_equal(parent, "Error") && g_str_equal(name, "Key"))
        set_text(&deleted->key, text);
    else if (g_str_equal(parent, "Error") && g_str_equal(name, "Code"))
        set_text(&deleted->code, text);
    if (!g_str_equal(parent, "DeleteResult") || !g_str_equal(name, "Error"))
        return;
    /* A key that is not there is as good as deleted. */
    if (deleted->key && g_strcmp0(deleted->code, "NoSuchKey") != 0) {
        g_ptr_array_add(deleted->failed, g_steal_pointer(&deleted->key));
        if (!deleted->first_code)
            deleted->first_code = g_steal_pointer(&deleted->code);
    }
    g_clear_pointer(&deleted->key, g_free);
    g_clear_pointer(&deleted->code, g_free);
}

bool s3_xml_deleted(const char *data, size_t size, GPtrArray *failed, char **code, GError **error)
{
    struct deleted deleted = {.failed = failed};
    bool ok = read_document(data, size, "DeleteResult", on_deleted_element, &deleted, error);

    g_free(deleted.key);
    g_free(deleted.code);
    *code = deleted.first_code;
    return ok;
}
