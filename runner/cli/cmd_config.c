#include "runner/cli/cli.h"

#include "config/error.h"
#include "runner/engine.h"
#include "storage/keys.h"
#include "storage/remote.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Asks for what was not given. */
static void ask(const char *question, char **answer)
{
    char line[1024];

    if (*answer)
        return;
    fprintf(stderr, "%s: ", question);
    if (fgets(line, sizeof(line), stdin)) {
        g_strstrip(line);
        *answer = *line ? g_strdup(line) : NULL;
    }
}

/* Writes an object of its own and removes it again: a remote that cannot be written is not saved.
 */
static bool check_writable(const struct remote *remote, GError **error)
{
    g_autoptr(Store) root = remote_open(remote, error);
    g_autofree char *uuid = g_uuid_string_random();
    g_autofree char *key = g_strconcat(".dstack-probe-", uuid, NULL);

    if (!root)
        return false;
    if (!store_write(root, key, "probe", 5, NULL, NULL, error)) {
        g_prefix_error(error, "%s cannot be written: ", remote->storage);
        return false;
    }
    return store_delete(root, key, error);
}

static bool check_name(const char *name, GError **error)
{
    return keys_name_is_valid(name) ||
           error_set(error, EINVAL,
                     "\"%s\" cannot be a remote's name: use letters, digits, '.', '_' and '-'",
                     name);
}

static int run(const struct command *command, int argc, char **argv)
{
    g_autofree char *storage = NULL, *endpoint = NULL, *region = NULL, *profile = NULL,
                    *name = NULL, *engine = NULL, *cacert = NULL;
    gboolean is_default = FALSE, virtual_host = FALSE;
    const GOptionEntry entries[] = {
        {"storage", 0, 0, G_OPTION_ARG_FILENAME, &storage, "s3://BUCKET[/PREFIX] or file:///DIR",
         "URL"},
        {"endpoint", 0, 0, G_OPTION_ARG_STRING, &endpoint, "The S3 server, when it is not AWS",
         "URL"},
        {"region", 0, 0, G_OPTION_ARG_STRING, &region, "The bucket's region", "REGION"},
        {"profile", 0, 0, G_OPTION_ARG_STRING, &profile, "Profile in ~/.aws/credentials", "NAME"},
        {"cacert", 0, 0, G_OPTION_ARG_FILENAME, &cacert,
         "Certificates to trust instead of the system's (PEM)", "FILE"},
        {"virtual-host", 0, 0, G_OPTION_ARG_NONE, &virtual_host,
         "Address buckets as BUCKET.HOST, not HOST/BUCKET", NULL},
        {"name", 0, 0, G_OPTION_ARG_STRING, &name, "What to call the remote (default)", "NAME"},
        {"default", 0, 0, G_OPTION_ARG_NONE, &is_default, "Make it the default remote", NULL},
        {"engine", 0, 0, G_OPTION_ARG_STRING, &engine, "What runs jobs there (local)", "ENGINE"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    struct settings settings = {0};
    struct remote *remote;
    GError *error = NULL;
    int status;
    bool ok;

    if (!cli_parse(command, entries, &argc, &argv, 0, 0, &status))
        return status;
    if (!storage && isatty(STDIN_FILENO)) { /* with --storage the rest has its defaults */
        ask("Storage (s3://BUCKET/PREFIX or file:///DIR)", &storage);
        if (storage && g_str_has_prefix(storage, "s3://")) {
            ask("Endpoint (empty for AWS)", &endpoint);
            ask("Region (empty: from the environment or the profile)", &region);
            ask("Profile in ~/.aws (empty: the environment, or the default one)", &profile);
        }
    }
    if (!storage) {
        fprintf(stderr, "dstack config: --storage URL is missing; see dstack config --help\n");
        return 2;
    }
    remote = remote_new(name ? name : "default", storage);
    remote->endpoint = g_steal_pointer(&endpoint);
    remote->region = g_steal_pointer(&region);
    remote->profile = g_steal_pointer(&profile);
    remote->cacert = cacert ? g_canonicalize_filename(cacert, NULL) : NULL;
    remote->virtual_host = virtual_host;
    remote->is_default = is_default;
    if (engine) {
        g_free(remote->engine);
        remote->engine = g_strdup(engine);
    }
    ok = check_name(remote->name, &error) && engine_find(remote->engine, &error) &&
         settings_load(&settings, &error) && check_writable(remote, &error);
    if (ok) {
        settings_put(&settings, remote);
        ok = settings_save(&settings, &error);
        if (ok)
            fprintf(stderr, "Remote %s: %s (%s)\n", remote->name, remote->storage, settings.path);
    } else {
        remote_free(remote);
    }
    settings_clear(&settings);
    return ok ? 0 : cli_fail(error);
}

const struct command cmd_config = {"config", "", "Sets up a remote.", run};
