#include "runner/cli/cli.h"

#include "config/error.h"
#include "config/units.h"
#include "runner/run/kept.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_HELD 1000 /* what column widths are taken from; more rows are printed as they come */

struct listing {
    gboolean recursive, totals, json;
    const char *path;     /* the artifact's path, shown once */
    size_t prefix_length; /* of the artifact's keys */
    char *directory;      /* -t: the one whose sizes are being added */
    uint64_t directory_bytes;
    bool path_shown, any;
    /* the table so far */
    GPtrArray *held; /* PATH, FILE, SIZE of up to ROWS_HELD rows */
    unsigned path_width, file_width;
    bool flushed;
};

static void print_row(struct listing *l, const char *path, const char *file, const char *size)
{
    int path_pad = (int)l->path_width - (int)cli_width(path);
    int file_pad = (int)l->file_width - (int)cli_width(file);

    printf("%s%*s  %s%*s  %s\n", path, MAX(path_pad, 0), "", file, MAX(file_pad, 0), "", size);
}

static void flush_rows(struct listing *l)
{
    for (guint i = 0; i + 2 < l->held->len; i += 3)
        print_row(l, l->held->pdata[i], l->held->pdata[i + 1], l->held->pdata[i + 2]);
    g_ptr_array_set_size(l->held, 0);
    l->flushed = true;
}

static void add_json(struct listing *l, const char *file, uint64_t bytes)
{
    g_autofree char *path = g_utf8_make_valid(l->path, -1), *name = g_utf8_make_valid(file, -1);
    json_t *row =
        json_pack("{s:s, s:s, s:I}", "path", path, "file", name, "size", (json_int_t)bytes);
    char *text = json_dumps(row, JSON_COMPACT);

    printf("%s\n  %s", l->any ? "," : "", text);
    free(text);
    json_decref(row);
}

static void add_row(struct listing *l, const char *file, uint64_t bytes, bool has_size)
{
    g_autofree char *size = has_size ? size_format(bytes) : g_strdup("");
    char *name = cli_printable(file), *path = cli_printable(l->path_shown ? "" : l->path);

    if (l->json) {
        add_json(l, file, bytes);
        g_free(name);
        g_free(path);
    } else if (l->flushed) {
        print_row(l, path, name, size);
        g_free(name);
        g_free(path);
    } else {
        l->path_width = MAX(l->path_width, cli_width(path));
        l->file_width = MAX(l->file_width, cli_width(name));
        g_ptr_array_add(l->held, path);
        g_ptr_array_add(l->held, name);
        g_ptr_array_add(l->held, g_steal_pointer(&size));
        if (l->held->len >= 3 * ROWS_HELD)
            flush_rows(l);
    }
    l->path_shown = l->any = true;
}

static void end_directory(struct listing *l)
{
    if (l->directory)
        add_row(l, l->directory, l->directory_bytes, true);
    g_clear_pointer(&l->directory, g_free);
    l->directory_bytes = 0;
}

static bool add_object(const struct store_object *object, void *user, GError **error)
{
    struct listing *l = user;
    const char *file = object->key + l->prefix_length;
    const char *slash = strchr(file, '/');

    if (!*file || g_str_has_prefix(file, ".dstack-"))
        return true;
    if (!object->etag) { /* a directory, folded by the store */
        add_row(l, file, 0, false);
    } else if (l->totals && !l->recursive && slash) {
        g_autofree char *directory = g_strndup(file, slash + 1 - file);

        if (g_strcmp0(directory, l->directory) != 0) {
            end_directory(l);
            l->directory = g_steal_pointer(&directory);
        }
        l->directory_bytes += object->size_bytes;
    } else if (!g_str_has_suffix(file, "/")) {
        end_directory(l);
        add_row(l, file, object->size_bytes, true);
    }
    return true;
}

static bool list_artifact(struct listing *l, struct store *root, const char *artifact_prefix,
                          const char *path, const char *search, GError **error)
{
    g_autofree char *prefix = g_strconcat(artifact_prefix, search, NULL);
    bool ok;

    l->path = path;
    l->path_shown = false;
    l->prefix_length = strlen(artifact_prefix);
    ok = store_list(root, prefix, !l->recursive && !l->totals, add_object, l, error);
    end_directory(l);
    return ok;
}

/* SEARCH is the beginning of PATH/FILE, as it is shown, or of FILE alone. */
static const char *search_in(const char *path, const char *search)
{
    size_t length = strlen(path);

    if (g_str_has_prefix(search, "./"))
        search += 2;
    if (g_str_has_prefix(search, path) && search[length] == '/')
        return search + length + 1;
    return g_str_has_prefix(path, search) ? "" : search;
}

static bool list_run(struct listing *l, struct store *root, const char *repo, const char *name,
                     const struct tag *tag, const char *search, GError **error)
{
    g_auto(GStrv) paths = kept_artifacts(root, repo, name, tag, error);

    for (char **path = paths; path && *path; path++) {
        g_autofree char *prefix = run_artifact_prefix(repo, name, *path);

        if (!list_artifact(l, root, prefix, *path, search_in(*path, search), error))
            return false;
    }
    return paths != NULL;
}

static int run_ls(const struct command *command, int argc, char **argv)
{
    struct listing l = {.path_width = 4, .file_width = 4};
    const GOptionEntry entries[] = {
        {"recursive", 'r', 0, G_OPTION_ARG_NONE, &l.recursive, "All files, not only the top", NULL},
        {"total", 't', 0, G_OPTION_ARG_NONE, &l.totals, "The total size of each directory", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &l.json, "Print JSON", NULL},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autofree char *name = NULL;
    g_autoptr(Tag) tag = NULL;
    struct cli_roots roots;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, entries, &argc, &argv, 1, 2, &status))
        return status;
    ok = cli_roots_open(&roots, &error);
    if (ok) {
        struct store *root = cli_resolve(&roots, argv[1], &name, &tag, &error);

        l.held = g_ptr_array_new_with_free_func(g_free);
        if (l.json) {
            printf("[");
        } else if (root) {
            g_ptr_array_add(l.held, g_strdup("PATH"));
            g_ptr_array_add(l.held, g_strdup("FILE"));
            g_ptr_array_add(l.held, g_strdup("SIZE"));
        }
        ok = root && list_run(&l, root, roots.repo.id, name, tag, argc > 2 ? argv[2] : "", &error);
        if (ok && !l.flushed)
            flush_rows(&l);
        if (l.json)
            printf("%s]\n", l.any ? "\n" : "");
        g_ptr_array_unref(l.held);
    }
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_ls = {"ls", "RUN|:TAG [PREFIX]", "Lists the artifacts of a run or tag.",
                               run_ls};
