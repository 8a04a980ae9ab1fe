#include "storage/tags.h"

#include "config/artifact_path.h"
#include "config/error.h"
#include "config/log.h"
#include "storage/keys.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    TAG_VERSION = 1,
    TAG_BYTES_MAX = 1024 * 1024,
    ARTIFACTS_MAX = 4096,
    GROWN = 4096 /* since it was listed */
};

struct tag *tag_new(const char *name, const char *run)
{
    struct tag *tag = g_new0(struct tag, 1);

    tag->name = g_strdup(name);
    tag->run = g_strdup(run);
    return tag;
}

void tag_free(struct tag *tag)
{
    if (!tag)
        return;
    g_free(tag->name);
    g_free(tag->run);
    g_free(tag->owner);
    g_strfreev(tag->artifacts);
    g_free(tag);
}

/* --- the document --- */

/* NULL when one of them is no artifact's path: then it is not known which there are. */
static char **parse_artifacts(const json_t *list)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);
    json_t *value;
    size_t i;

    if (!json_is_array(list) || json_array_size(list) > ARTIFACTS_MAX)
        return NULL;
    json_array_foreach(list, i, value)
    {
        char *path =
            json_is_string(value) ? artifact_path_normalise(json_string_value(value)) : NULL;

        if (!path)
            return NULL;
        g_ptr_array_add(paths, path);
    }
    g_ptr_array_add(paths, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&paths), FALSE);
}

struct tag *tag_parse(const char *name, const char *text, size_t size, GError **error)
{
    json_t *document = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    const char *run = NULL, *owner = NULL;
    json_int_t created_ms = 0, version = TAG_VERSION;
    struct tag *tag = NULL;
    int is_folder = 0;

    if (json_unpack(document, "{s?I}", "version", &version) == 0 && version > TAG_VERSION) {
        error_set(error, ENOTSUP,
                  "tag %s was written by a newer dstack (version %" JSON_INTEGER_FORMAT
                  "): update this one",
                  name, version);
    } else if (json_unpack(document, "{s?I, s:s, s?s, s?I, s?b}", "version", &version, "run", &run,
                           "owner", &owner, "created_ms", &created_ms, "folder", &is_folder) == 0 &&
               keys_name_is_valid(run)) {
        tag = tag_new(name, run);
        tag->owner = g_strdup(owner);
        tag->created_ms = MAX(created_ms, 0);
        tag->is_folder = is_folder;
        tag->artifacts = parse_artifacts(json_object_get(document, "artifacts"));
    } else {
        error_set(error, EINVAL, "tag %s: not a tag document", name);
    }
    json_decref(document);
    return tag;
}

static char *format(const char *repo, const struct tag *tag)
{
    json_t *document = json_pack("{s:i, s:s, s:s, s:s, s:I}", "version", TAG_VERSION, "repo", repo,
                                 "run", tag->run, "owner", g_get_user_name(), "created_ms",
                                 (json_int_t)(g_get_real_time() / 1000));
    json_t *paths = json_array();
    char *text;

    for (char **path = tag->artifacts; path && *path; path++)
        json_array_append_new(paths, json_string(*path));
    if (tag->artifacts)
        json_object_set(document, "artifacts", paths);
    if (tag->is_folder)
        json_object_set_new(document, "folder", json_true());
    text = json_dumps(document, JSON_COMPACT);
    json_decref(paths);
    json_decref(document);
    return text;
}

/* --- one tag --- */

struct tag *tag_load(struct store *root, const char *repo, const char *name, GError **error)
{
    g_autofree char *key = keys_tag(repo, name), *text = NULL;
    size_t size;

    if (!keys_name_is_valid(name)) {
        error_set(error, EINVAL,
                  "\"%s\" cannot be a tag's name: use letters, digits, '.', '_' and '-'", name);
        return NULL;
    }
    if (!store_read(root, key, TAG_BYTES_MAX, &text, &size, NULL, error))
        return NULL;
    return tag_parse(name, text, size, error);
}

static bool is_taken(const struct tag *by, GError **error)
{
    return error_set(error, EEXIST,
                     "tag %s is run %s's: delete it with dstack tags delete %s, or move it with "
                     "dstack tags add RUN %s -y",
                     by->name, by->run, by->name, by->name);
}

bool tag_check_free(struct store *root, const char *repo, const char *name, GError **error)
{
    g_autoptr(GError) missing = NULL;
    g_autoptr(Tag) tag = tag_load(root, repo, name, &missing);

    if (tag)
        return is_taken(tag, error);
    if (error_is(missing, ENOENT))
        return true;
    g_propagate_error(error, g_steal_pointer(&missing));
    return false;
}

/* Somebody had the tag first: it may have been this very tag, sent twice. */
static bool claimed(struct store *root, const char *repo, const struct tag *tag, GError *why,
                    GError **error)
{
    g_autoptr(GError) exists = why;
    g_autoptr(Tag) theirs = tag_load(root, repo, tag->name, NULL);

    if (theirs)
        return strcmp(theirs->run, tag->run) == 0 || is_taken(theirs, error);
    g_propagate_error(error, g_steal_pointer(&exists));
    return false;
}

bool tag_save(struct store *root, const char *repo, const struct tag *tag, bool move,
              GError **error)
{
    g_autofree char *key = keys_tag(repo, tag->name), *text = NULL;
    bool atomic = store_caps(root)->has_put_if_absent;
    g_autoptr(GError) why = NULL;
    g_autoptr(Tag) old = tag_load(root, repo, tag->name, &why);

    if (old && strcmp(old->run, tag->run) == 0)
        return true;
    if (!old && !error_is(why, ENOENT) &&
        !(move && error_is(why, EINVAL) && keys_name_is_valid(tag->name))) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    if (old && !move)
        return is_taken(old, error);
    g_clear_error(&why);
    text = format(repo, tag);
    if (store_write(root, key, text, strlen(text), move || !atomic ? NULL : "", NULL, &why))
        return true;
    if (error_is(why, EEXIST))
        return claimed(root, repo, tag, g_steal_pointer(&why), error);
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

/* --- all of them --- */

struct listing {
    GPtrArray *calls; /* struct store_call*: GETs, not started */
};

static bool note_tag(const struct store_object *object, void *user, GError **error)
{
    struct listing *listing = user;
    size_t size = MIN(object->size_bytes + GROWN, (uint64_t)TAG_BYTES_MAX);

    if (g_str_has_suffix(object->key, ".json"))
        g_ptr_array_add(listing->calls, store_call_get(object->key, 0, g_malloc(size), size));
    return true;
}

static void call_free(gpointer data)
{
    struct store_call *call = data;

    g_free(call->iov[0].iov_base);
    store_call_unref(call);
}

static void add_unread(GPtrArray *unread, const char *key, const GError *why)
{
    g_autofree char *text = g_strdup_printf("%s: %s", key, why ? why->message : "no name of a tag");

    if (unread)
        g_ptr_array_add(unread, g_steal_pointer(&text));
    else
        log_warning("%s", text);
}

/* Hidden names are nobody's; a tag that was deleted meanwhile is left out. */
static bool add_tag(GPtrArray *tags, GPtrArray *unread, const struct store_call *call, size_t skip,
                    GError **error)
{
    g_autofree char *name = g_strndup(call->key + skip, strlen(call->key) - skip - strlen(".json"));
    g_autoptr(GError) why = NULL;
    struct tag *tag = NULL;

    if (call->error && !error_is(call->error, ENOENT)) {
        if (error && !*error)
            *error = g_error_copy(call->error);
        return false;
    }
    if (call->error || *name == '.')
        return true;
    if (keys_name_is_valid(name))
        tag = tag_parse(name, call->iov[0].iov_base, call->received_bytes, &why);
    if (tag)
        g_ptr_array_add(tags, tag);
    else
        add_unread(unread, call->key, why);
    return true;
}

GPtrArray *tags_load(struct store *root, const char *repo, GPtrArray *unread, GError **error)
{
    g_autoptr(GPtrArray) tags = g_ptr_array_new_with_free_func((GDestroyNotify)tag_free);
    g_autoptr(GPtrArray) calls = g_ptr_array_new_with_free_func(call_free);
    g_autofree char *prefix = keys_tags(repo);
    struct listing listing = {calls};
    guint parallel = MAX(store_caps(root)->parallel, 1), started = 0;
    bool ok = store_list(root, prefix, false, note_tag, &listing, error);

    for (guint i = 0; ok && i < calls->len; i++) {
        while (started < calls->len && started < i + parallel)
            store_start(root, calls->pdata[started++], NULL, NULL);
        store_wait(calls->pdata[i]);
        ok = add_tag(tags, unread, calls->pdata[i], strlen(prefix), error);
    }
    for (guint i = 0; i < started; i++) /* their buffers are freed next */
        store_wait(calls->pdata[i]);
    return ok ? g_steal_pointer(&tags) : NULL;
}
