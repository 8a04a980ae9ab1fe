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

char *repo_id_of_name(const char *name)
{
    g_auto(GStrv) parts = g_strsplit(name, "/", 3);
    guint count = g_strv_length(parts);
    g_autofree char *owner = NULL, *repo = NULL, *id = NULL;

    if (count == 0 || count > 2)
        return NULL;
    owner = safe_segment(parts[0]);
    repo = safe_segment(parts[count - 1]);
    if (!*owner || !*repo)
        return NULL;
    id = count == 2 ? g_strconcat(owner, ".", repo, NULL) : g_strdup(repo);
    return limit_id(id);
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

enum { GIT_NONE = -1 };

/* Its first line of output, NULL without one. STATUS is GIT_NONE when there is no git. */
static char *git(const char *directory, const char *const *arguments, int *status, char **complaint)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_auto(GStrv) env = g_environ_setenv(g_get_environ(), "LC_ALL", "C", TRUE);
    g_autofree char *output = NULL;

    g_ptr_array_add(argv, (char *)"git");
    g_ptr_array_add(argv, (char *)"-C");
    g_ptr_array_add(argv, (char *)directory);
    for (; *arguments; arguments++)
        g_ptr_array_add(argv, (char *)*arguments);
    g_ptr_array_add(argv, NULL);
    *complaint = NULL;
    if (!g_spawn_sync(NULL, (char **)argv->pdata, env, G_SPAWN_SEARCH_PATH, NULL, NULL, &output,
                      complaint, status, NULL))
        *status = GIT_NONE;
    if (*status != 0)
        return NULL;
    g_strchomp(output);
    return *output ? g_steal_pointer(&output) : NULL;
}

static bool is_below_git(const char *directory)
{
    g_autofree char *marker = g_build_filename(directory, ".git", NULL);
    g_autofree char *parent = g_path_get_dirname(directory);

    return g_file_test(marker, G_FILE_TEST_EXISTS) ||
           (strcmp(parent, directory) != 0 && is_below_git(parent));
}

/* *TOP stays NULL where there is no repository. One that git cannot answer for is an error: as a
 * plain directory it would have another id, and what git ignores would be code. */
static bool git_top(const char *directory, char **top, GError **error)
{
    static const char *const arguments[] = {"rev-parse", "--show-toplevel", NULL};
    g_autofree char *complaint = NULL;
    int status;

    *top = git(directory, arguments, &status, &complaint);
    if (*top || !is_below_git(directory))
        return true;
    if (status == GIT_NONE)
        return error_set(error, ENOENT, "%s is in a git repository: install git", directory);
    if (status == 0 || strstr(complaint, "not a git repository"))
        return true;
    g_strdelimit(g_strstrip(complaint), "\n\t", ' ');
    return error_set(error, EACCES, "git in %s: %s", directory, complaint);
}

static char *git_origin(const char *top)
{
    static const char *const arguments[] = {"config", "--get", "remote.origin.url", NULL};
    g_autofree char *complaint = NULL;
    int status;

    return git(top, arguments, &status, &complaint);
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

static char *id_file(const char *top)
{
    return g_build_filename(top, ".dstack", "repo", NULL);
}

/* NULL: none was written, or it is none. */
static char *written_id(const char *top)
{
    g_autofree char *path = id_file(top), *text = NULL, *safe = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    g_strchomp(text);
    safe = safe_segment(text);
    return *text && strcmp(safe, text) == 0 && strlen(text) <= ID_MAX ? g_steal_pointer(&text)
                                                                      : NULL;
}

bool repo_find(const char *directory, struct repo *repo, GError **error)
{
    g_autofree char *here = realpath(directory, NULL);
    g_autofree char *url = NULL;

    memset(repo, 0, sizeof(*repo));
    if (!here)
        return error_set_errno(error, errno, "%s", directory);
    if (!git_top(here, &repo->top, error))
        return false;
    repo->is_git = repo->top != NULL;
    if (!repo->top)
        repo->top = plain_top(here);
    if (repo->is_git)
        url = git_origin(repo->top);
    repo->id = url ? repo_id_of_url(url) : NULL;
    if (!repo->id)
        repo->id = written_id(repo->top);
    if (!repo->id)
        repo->id = plain_id(repo->top);
    return true;
}

bool repo_init(const char *directory, struct repo *repo, GError **error)
{
    g_autofree char *path = NULL, *folder = NULL, *line = NULL;
    g_autofree char *here = realpath(directory, NULL);
    g_autoptr(GError) why = NULL;

    if (!repo_find(directory, repo, error))
        return false;
    if (repo->is_git)
        return true;
    if (strcmp(repo->top, here) != 0) { /* below another one: a repo of its own from now on */
        g_free(repo->top);
        g_free(repo->id);
        repo->top = g_steal_pointer(&here);
        repo->id = plain_id(repo->top);
    }
    path = id_file(repo->top);
    folder = g_path_get_dirname(path);
    line = g_strconcat(repo->id, "\n", NULL);
    if (g_mkdir_with_parents(folder, 0777) != 0)
        return error_set_errno(error, errno, "make %s", folder);
    return g_file_set_contents(path, line, -1, &why) || error_set(error, EIO, "%s", why->message);
}

void repo_clear(struct repo *repo)
{
    g_clear_pointer(&repo->top, g_free);
    g_clear_pointer(&repo->id, g_free);
}
