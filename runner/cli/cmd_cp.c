#include "runner/cli/cli.h"

#include "config/artifact_path.h"
#include "config/error.h"
#include "runner/cli/cli_transfer.h"
#include "storage/keys.h"

#include <stdio.h>
#include <string.h>

/* What SOURCE is in the store. */
struct source {
    char *key;  /* "artifacts/REPO/RUN/output/x", without a '/' at the end */
    char *name; /* its last part */
    bool is_file, is_directory;
};

static void source_clear(struct source *source)
{
    g_free(source->key);
    g_free(source->name);
}
typedef struct source Source;
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Source, source_clear)

static bool note_one(const struct store_object *object, void *user, GError **error)
{
    *(bool *)user = true;
    return false;
}

/* SOURCE as `ls` shows it: an artifact's path, or a file or directory in it. */
static bool find_source(struct store *root, const char *repo, const char *run, const char *text,
                        struct source *source, GError **error)
{
    g_autofree char *path = artifact_path_normalise(text);
    g_autofree char *prefix = path ? run_artifact_prefix(repo, run, path) : NULL;

    if (!path)
        return error_set(error, EINVAL, "\"%s\": name a file or directory as dstack ls -r shows it",
                         text);
    source->key = g_strndup(prefix, strlen(prefix) - 1);
    source->name = g_path_get_basename(path);
    if (!store_list(root, prefix, false, note_one, &source->is_directory, error))
        return false;
    if (source->is_directory)
        return true;
    return store_has(root, source->key, &source->is_file, error) &&
           (source->is_file ||
            error_set(error, ENOENT, "%s has no %s; see dstack ls -r %s", run, text, run));
}

static bool copy_file(struct store *root, const struct source *source, const char *target,
                      const struct transfer_options *options, GError **error)
{
    bool into = g_file_test(target, G_FILE_TEST_IS_DIR);
    g_autofree char *directory = into ? g_strdup(target) : g_path_get_dirname(target);
    g_autofree char *name = into ? g_strdup(source->name) : g_path_get_basename(target);
    g_autofree char *path = g_build_filename(directory, name, NULL);

    if (!into && g_str_has_suffix(target, "/"))
        return error_set(error, ENOENT, "%s: there is no such directory", target);
    if (g_file_test(path, G_FILE_TEST_IS_DIR))
        return error_set(error, EISDIR, "%s is a directory: it is not replaced by a file", path);
    return transfer_download_file(root, source->key, directory, name, options, NULL, error);
}

/* As cp -r: into TARGET if it is there, else as TARGET. */
static bool copy_directory(struct store *root, const struct source *source, const char *target,
                           const struct transfer_options *options, GError **error)
{
    g_autofree char *prefix = g_strconcat(source->key, "/", NULL);
    bool into = g_file_test(target, G_FILE_TEST_IS_DIR);
    g_autofree char *path = into ? g_build_filename(target, source->name, NULL) : g_strdup(target);

    if (into && g_file_test(path, G_FILE_TEST_IS_SYMLINK))
        return error_set(error, ELOOP, "%s is a symlink, which may lead out of %s", path, target);
    if (g_file_test(path, G_FILE_TEST_EXISTS) && !g_file_test(path, G_FILE_TEST_IS_DIR))
        return error_set(error, ENOTDIR, "%s is a file: it is not replaced by a directory", path);
    return transfer_download(root, prefix, path, options, NULL, error);
}

static bool copy(struct cli_roots *roots, char **argv, GError **error)
{
    g_autofree char *run = NULL, *label = g_strdup_printf("Copying %s", argv[2]);
    struct store *root = cli_resolve(roots, argv[1], &run, NULL, error);
    g_auto(Source) source = {0};
    struct cli_transfer transfer;
    bool ok;

    if (root && !*argv[3])
        return error_set(error, EINVAL, "\"\": name a file or directory to copy to");
    if (!root || !find_source(root, roots->repo.id, run, argv[2], &source, error))
        return false;
    cli_transfer_begin(&transfer, label);
    ok = source.is_directory ? copy_directory(root, &source, argv[3], &transfer.options, error)
                             : copy_file(root, &source, argv[3], &transfer.options, error);
    cli_transfer_end(&transfer);
    return ok;
}

static int run_cp(const struct command *command, int argc, char **argv)
{
    struct cli_roots roots;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, NULL, &argc, &argv, 3, 3, &status))
        return status;
    ok = cli_roots_open(&roots, &error) && copy(&roots, argv, &error);
    cli_roots_clear(&roots);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_cp = {"cp", "RUN|:TAG SOURCE TARGET",
                               "Copies artifacts to a local file or directory.", run_cp};
