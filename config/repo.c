#include "config/repo.h"

#include "config/error.h"

#include <stdlib.h>
#include <string.h>

#define ID_MAX     100 /* keys_name_is_valid's limit */
#define DIGEST_LEN 8

/* [A-Za-z0-9._-], no leading dot: safe in every key and file name. */
static char *safe_segment(const char *text)
{
    GString *safe = g_string_new(NULL);

    for (; *text; text++)
        g_string_append_c(safe, g_ascii_isalnum(*text) || strchr("._-", *text) ? *text : '-');
    while (safe->len && safe->str[0] == '.')
        g_string_erase(safe, 0, 1);
    return g_string_free(safe, FALSE);
}

/* ID if it is short enough, else its beginning and a digest of all of it. */
static char *limit_id(const char *id)
{
    g_autofree char *digest = NULL;

    if (strlen(id) <= ID_MAX)
        return g_strdup(id);
    digest = g_compute_checksum_for_string(G_CHECKSUM_SHA256, id, -1);
    return g_strdup_printf("%.*s-%.*s", ID_MAX - DIGEST_LEN - 1, id, DIGEST_LEN, digest);
}

char *repo_id_of_url(const char *url)
{
    g_autofree char *path = NULL, *owner = NULL, *name = NULL, *id = NULL;
    const char *start = strstr(url, "://");
    char *slash;

    if (start)
        start = strchr(start + 3, '/');
    else
        start = strchr(url, ':') ? strchr(url, ':') + 1 : url;
    if (!start)
        return NULL;
    path = g_strdup(start);
    while (g_str_has_suffix(path, "/"))
        path[strlen(path) - 1] = '\0';
    if (g_str_has_suffix(path, ".git"))
        path[strlen(path) - 4] = '\0';
    slash = strrchr(path, '/');
    name = safe_segment(slash ? slash + 1 : path);
    if (!*name)
        return NULL;
    if (slash) {
        *slash = '\0';
        slash = strrchr(path, '/');
        owner = safe_segment(slash ? slash + 1 : path);
    }
    id = owner && *owner ? g_strconcat(owner, ".", name, NULL) : g_strdup(name);
    return limit_id(id);
}

static char *git(const char *directory, const char *const *arguments)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *output = NULL;
    int status = -1;

    g_ptr_array_add(argv, (char *)"git");
    g_ptr_array_add(argv, (char *)"-C");
    g_ptr_array_add(argv, (char *)directory);
    for (; *arguments; arguments++)
        g_ptr_array_add(argv, (char *)*arguments);
    g_ptr_array_add(argv, NULL);
    if (!g_spawn_sync(NULL, (char **)argv->pdata, NULL,
                      G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &output, NULL,
                      &status, NULL) ||
        status != 0)
        return NULL;
    g_strchomp(output);
    return *output ? g_steal_pointer(&output) : NULL;
}

static char *plain_top(const char *directory)
{
    g_autofree char *at = g_strdup(directory);
    g_autofree char *home = realpath(g_get_home_dir(), NULL);

    while (strcmp(at, "/") != 0) {
        g_autofree char *marker = g_build_filename(at, ".dstack", NULL);
        char *parent;

        /* ~/.dstack is where runs are kept, not a sign of a repo */
        if (g_file_test(marker, G_FILE_TEST_IS_DIR) && g_strcmp0(at, home) != 0)
            return g_steal_pointer(&at);
        parent = g_path_get_dirname(at);
        g_free(at);
        at = parent;
    }
    return g_strdup(directory);
}

static char *plain_id(const char *top)
{
    g_autofree char *digest = g_compute_checksum_for_string(G_CHECKSUM_SHA256, top, -1);
    g_autofree char *base = g_path_get_basename(top);
    g_autofree char *name = safe_segment(base);

    return g_strdup_printf("%.80s-%.*s", *name ? name : "root", DIGEST_LEN, digest);
}

bool repo_find(const char *directory, struct repo *repo, GError **error)
{
    static const char *const top_of[] = {"rev-parse", "--show-toplevel", NULL};
    static const char *const origin_of[] = {"config", "--get", "remote.origin.url", NULL};
    g_autofree char *here = realpath(directory, NULL);
    g_autofree char *url = NULL;

    memset(repo, 0, sizeof(*repo));
    if (!here)
        return error_set_errno(error, errno, "%s", directory);
    repo->top = git(here, top_of);
    repo->is_git = repo->top != NULL;
    if (!repo->top)
        repo->top = plain_top(here);
    if (repo->is_git)
        url = git(repo->top, origin_of);
    repo->id = url ? repo_id_of_url(url) : NULL;
    if (!repo->id)
        repo->id = plain_id(repo->top);
    return true;
}

void repo_clear(struct repo *repo)
{
    g_clear_pointer(&repo->top, g_free);
    g_clear_pointer(&repo->id, g_free);
}
