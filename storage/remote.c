#include "storage/remote.h"

#include "config/error.h"
#include "config/paths.h"
#include "config/repo.h"
#include "storage/keys.h"

#include <jansson.h>
#include <string.h>

#define TAG_BYTES_MAX (1024 * 1024)

char *local_url(void)
{
    g_autofree char *home = dstack_home();

    return file_url(home);
}

struct store *local_open(GError **error)
{
    g_autofree char *home = dstack_home(), *url = local_url();

    if (g_mkdir_with_parents(home, 0700) != 0) {
        error_set(error, errno, "cannot make %s (%s): set DSTACK_HOME to a directory of yours",
                  home, g_strerror(errno));
        return NULL;
    }
    return store_open(url, NULL, error);
}

void remote_options(const struct remote *remote, struct store_options *options)
{
    memset(options, 0, sizeof(*options));
    options->endpoint = remote->endpoint;
    options->region = remote->region;
    options->profile = remote->profile;
    options->cacert = remote->cacert;
    options->virtual_host = remote->virtual_host;
}

/* Makes the directory of a file:///DIR URL; what is no such URL is for store_open to refuse. */
static bool make_directory(const char *url, GError **error)
{
    g_autofree char *path = NULL;

    if (g_str_has_prefix(url, "file:///"))
        path = g_uri_unescape_string(url + strlen("file://"), NULL);
    if (path && g_mkdir_with_parents(path, 0700) != 0)
        return error_set_errno(error, errno, "%s", path);
    return true;
}

/* What to look at when a remote does not answer as it should. */
static const char *advice(const GError *error, bool has_endpoint)
{
    switch (error_errno(error)) {
    case EACCES:
        return "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile";
    case ENXIO:
        return "make the bucket, or name another";
    default:
        return has_endpoint ? "check the endpoint and the network" : "check the network";
    }
}

struct store *remote_open(const struct remote *remote, GError **error)
{
    g_autoptr(Store) store = NULL;
    g_autoptr(GError) why = NULL;
    struct store_options options;

    remote_options(remote, &options);
    if (!make_directory(remote->storage, error))
        return NULL;
    store = store_open(remote->storage, &options, error);
    if (!store || store_check(store, &why))
        return g_steal_pointer(&store);
    error_set(error, error_errno(why), "remote %s%s%s: %s; %s", remote->name,
              remote->endpoint ? " at " : "", remote->endpoint ? remote->endpoint : "",
              why->message, advice(why, remote->endpoint != NULL));
    return NULL;
}

bool tag_load(struct store *root, const char *repo, const char *tag, char **run, GError **error)
{
    g_autofree char *key = keys_tag(repo, tag), *text = NULL;
    const char *name = NULL;
    json_t *document;
    size_t size;

    *run = NULL;
    if (!keys_name_is_valid(tag))
        return error_set(error, EINVAL,
                         "\"%s\" cannot be a tag's name: use letters, digits, '.', '_' and '-'",
                         tag);
    if (!store_read(root, key, TAG_BYTES_MAX, &text, &size, NULL, error))
        return false;
    document = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    if (document && json_unpack(document, "{s:s}", "run", &name) == 0 && keys_name_is_valid(name))
        *run = g_strdup(name);
    json_decref(document);
    return *run ? true : error_set(error, EINVAL, "%s: not a tag document", key);
}

static bool is_taken(const char *tag, const char *by, GError **error)
{
    return error_set(error, EEXIST,
                     "tag %s is run %s's: delete it with dstack tags delete %s, or move it with "
                     "dstack tags add RUN %s -y",
                     tag, by, tag, tag);
}

bool tag_check_free(struct store *root, const char *repo, const char *tag, GError **error)
{
    g_autoptr(GError) missing = NULL;
    g_autofree char *run = NULL;

    if (tag_load(root, repo, tag, &run, &missing))
        return is_taken(tag, run, error);
    if (error_is(missing, ENOENT))
        return true;
    g_propagate_error(error, g_steal_pointer(&missing));
    return false;
}

bool tag_save(struct store *root, const char *repo, const char *tag, const char *run, bool move,
              GError **error)
{
    g_autofree char *key = keys_tag(repo, tag), *old = NULL, *text = NULL;
    bool atomic = store_caps(root)->has_put_if_absent;
    g_autoptr(GError) why = NULL;
    json_t *document;

    if (tag_load(root, repo, tag, &old, &why) && g_strcmp0(old, run) == 0)
        return true;
    if (why && !error_is(why, ENOENT)) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    if (old && !move)
        return is_taken(tag, old, error);
    g_clear_error(&why);
    document = json_pack("{s:i, s:s, s:s, s:I}", "version", 1, "repo", repo, "run", run,
                         "created_ms", (json_int_t)(g_get_real_time() / 1000));
    text = json_dumps(document, JSON_COMPACT);
    json_decref(document);
    if (store_write(root, key, text, strlen(text), move || !atomic ? NULL : "", NULL, &why))
        return true;
    if (!error_is(why, EEXIST) || !tag_load(root, repo, tag, &old, NULL))
        g_propagate_error(error, g_steal_pointer(&why));
    else if (g_strcmp0(old, run) == 0) /* our own, sent twice */
        return true;
    else
        return is_taken(tag, old, error);
    return false;
}

/* Whether ROOT has artifacts of the run; *VIEW is the store on them. */
static bool open_in(struct store *root, const char *repo, const char *name, struct store **view,
                    GError **error)
{
    g_autofree char *run = NULL, *prefix = NULL;
    g_autoptr(StoreCall) list = NULL;
    g_autoptr(GError) why = NULL;

    if (*name == ':' && !tag_load(root, repo, name + 1, &run, &why)) {
        if (error_is(why, ENOENT))
            return true;
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    if (!run)
        run = g_strdup(name);
    prefix = keys_artifacts(repo, run);
    list = store_call_new(STORE_LIST, prefix);
    list->limit = 1;
    if (!store_run(root, list, error))
        return false;
    if (list->objects->len)
        *view = store_view(root, prefix);
    return true;
}

struct store *remote_open_artifacts(const char *run_or_tag, char **url, GError **error)
{
    struct settings settings = {0};
    struct repo repo = {0};
    struct store *view = NULL;
    bool ok, embedded;

    if (!keys_name_is_valid(*run_or_tag == ':' ? run_or_tag + 1 : run_or_tag)) {
        error_set(error, EINVAL, "\"%s\" is no store URL, run or :TAG", run_or_tag);
        return NULL;
    }
    ok = repo_find(".", &repo, error) && settings_load(&settings, error);
    if (ok) {
        g_autoptr(Store) local = local_open(error);

        ok = local && open_in(local, repo.id, run_or_tag, &view, error);
    }
    if (ok && !view) {
        const struct remote *remote = settings_remote(&settings, NULL, &embedded, error);
        g_autoptr(Store) root = remote ? remote_open(remote, error) : NULL;

        ok = root && open_in(root, repo.id, run_or_tag, &view, error);
    }
    if (ok && !view)
        error_set(error, ENOENT, "no artifacts of %s in repo %s, here or on the default remote",
                  run_or_tag, repo.id);
    if (view)
        *url = g_strdup(store_url(view));
    settings_clear(&settings);
    repo_clear(&repo);
    return view;
}
