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
        error_set_errno(error, errno, "%s", home);
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

struct store *remote_open(const struct remote *remote, GError **error)
{
    struct store_options options;

    remote_options(remote, &options);
    if (!make_directory(remote->storage, error))
        return NULL;
    return store_open(remote->storage, &options, error);
}

bool tag_load(struct store *root, const char *repo, const char *tag, char **run, GError **error)
{
    g_autofree char *key = keys_tag(repo, tag), *text = NULL;
    const char *name = NULL;
    json_t *document;
    size_t size;

    *run = NULL;
    if (!keys_name_is_valid(tag))
        return error_set(error, EINVAL, "\"%s\" cannot be a tag's name", tag);
    if (!store_read(root, key, TAG_BYTES_MAX, &text, &size, NULL, error))
        return false;
    document = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    if (document && json_unpack(document, "{s:s}", "run", &name) == 0 && keys_name_is_valid(name))
        *run = g_strdup(name);
    json_decref(document);
    return *run ? true : error_set(error, EINVAL, "%s: not a tag document", key);
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
