#include "storage/remote.h"

#include "config/error.h"
#include "config/paths.h"
#include "config/repo.h"
#include "storage/keys.h"
#include "storage/tags.h"

#include <string.h>

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
    options->unsigned_payload = remote->unsigned_payload;
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

/* Whether ROOT has artifacts of the run; *VIEW is the store on them. */
static bool open_in(struct store *root, const char *repo, const char *name, struct store **view,
                    GError **error)
{
    g_autofree char *prefix = NULL;
    g_autoptr(StoreCall) list = NULL;
    g_autoptr(GError) why = NULL;
    g_autoptr(Tag) tag = *name == ':' ? tag_load(root, repo, name + 1, &why) : NULL;

    if (why && error_is(why, ENOENT))
        return true;
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    prefix = keys_artifacts(repo, tag ? tag->run : name);
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
