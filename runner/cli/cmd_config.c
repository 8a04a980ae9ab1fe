#include "runner/cli/cli.h"

#include "config/error.h"
#include "config/paths.h"
#include "config/slurm_options.h"
#include "runner/engine/engine.h"
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

struct options {
    char *storage, *endpoint, *region, *profile, *name, *engine;
    char *cacert;
    gboolean is_default, virtual_host, unsigned_payload;
    struct slurm_settings slurm;
};

static void options_clear(struct options *options)
{
    g_free(options->storage);
    g_free(options->endpoint);
    g_free(options->region);
    g_free(options->profile);
    g_free(options->name);
    g_free(options->engine);
    g_free(options->cacert);
    slurm_settings_clear(&options->slurm);
}

static bool parse(const struct command *command, struct options *to, int argc, char **argv,
                  int *status)
{
    const GOptionEntry entries[] = {
        {"storage", 0, 0, G_OPTION_ARG_FILENAME, &to->storage,
         "s3://BUCKET[/PREFIX] or file:///DIR", "URL"},
        {"endpoint", 0, 0, G_OPTION_ARG_STRING, &to->endpoint, "The S3 server, when it is not AWS",
         "URL"},
        {"region", 0, 0, G_OPTION_ARG_STRING, &to->region, "The bucket's region", "REGION"},
        {"profile", 0, 0, G_OPTION_ARG_STRING, &to->profile, "Profile in ~/.aws/credentials",
         "NAME"},
        {"cacert", 0, 0, G_OPTION_ARG_FILENAME, &to->cacert,
         "Certificates to trust instead of the system's (PEM)", "FILE"},
        {"virtual-host", 0, 0, G_OPTION_ARG_NONE, &to->virtual_host,
         "Address buckets as BUCKET.HOST, not HOST/BUCKET", NULL},
        {"unsigned-payload", 0, 0, G_OPTION_ARG_NONE, &to->unsigned_payload,
         "Over http, do not sign what is uploaded with its SHA-256", NULL},
        {"name", 0, 0, G_OPTION_ARG_STRING, &to->name, "What to call the remote (default)", "NAME"},
        {"default", 0, 0, G_OPTION_ARG_NONE, &to->is_default, "Make it the default remote", NULL},
        {"engine", 0, 0, G_OPTION_ARG_STRING, &to->engine,
         "What runs jobs there: local (the default) or slurm", "ENGINE"},
        {"slurm-partition", 0, 0, G_OPTION_ARG_STRING, &to->slurm.partition, "Where jobs run", "P"},
        {"slurm-interruptible-partition", 0, 0, G_OPTION_ARG_STRING,
         &to->slurm.interruptible_partition, "Where jobs with interruptible: true run", "P"},
        {"slurm-account", 0, 0, G_OPTION_ARG_STRING, &to->slurm.account, "Whom to charge", "A"},
        {"slurm-qos", 0, 0, G_OPTION_ARG_STRING, &to->slurm.qos, "Quality of service", "Q"},
        {"slurm-time", 0, 0, G_OPTION_ARG_STRING, &to->slurm.time, "Time limit of a job", "T"},
        {"slurm-option", 0, 0, G_OPTION_ARG_STRING_ARRAY, &to->slurm.options,
         "One more option of sbatch (may be repeated)", "OPT"},
        {"slurm-submit-host", 0, 0, G_OPTION_ARG_STRING, &to->slurm.submit_host,
         "Where sbatch is, over ssh, when it is not here", "[USER@]HOST"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };

    return cli_parse(command, entries, &argc, &argv, 0, 0, status);
}

/* With --storage the rest has its defaults. */
static void ask_storage(struct options *options)
{
    if (options->storage || !isatty(STDIN_FILENO))
        return;
    ask("Storage (s3://BUCKET/PREFIX or file:///DIR)", &options->storage);
    if (options->storage && g_str_has_prefix(options->storage, "s3://")) {
        ask("Endpoint (empty for AWS)", &options->endpoint);
        ask("Region (empty: from the environment or the profile)", &options->region);
        ask("Profile in ~/.aws (empty: the environment, or the default one)", &options->profile);
    }
}

static bool check_engine(const struct options *options, GError **error)
{
    const struct slurm_settings none = {0};

    if (!engine_find(options->engine ? options->engine : "local", error))
        return false;
    if (g_strcmp0(options->engine, "slurm") != 0 &&
        memcmp(&options->slurm, &none, sizeof none) != 0)
        return error_set(error, EINVAL, "options of Slurm need --engine slurm");
    for (char **option = options->slurm.options; option && *option; option++)
        if (!slurm_option_check(*option, error))
            return false;
    return !options->slurm.submit_host ||
           slurm_submit_host_check(options->slurm.submit_host, error);
}

/* Takes what it needs out of OPTIONS. */
static struct remote *make_remote(struct options *options)
{
    struct remote *remote = remote_new(options->name ? options->name : "default", options->storage);

    remote->endpoint = g_steal_pointer(&options->endpoint);
    remote->region = g_steal_pointer(&options->region);
    remote->profile = g_steal_pointer(&options->profile);
    remote->cacert = options->cacert ? g_canonicalize_filename(options->cacert, NULL) : NULL;
    remote->virtual_host = options->virtual_host;
    remote->unsigned_payload = options->unsigned_payload;
    remote->is_default = options->is_default;
    remote->slurm = options->slurm;
    memset(&options->slurm, 0, sizeof options->slurm);
    if (options->engine) {
        g_free(remote->engine);
        remote->engine = g_steal_pointer(&options->engine);
    }
    return remote;
}

static bool save(struct options *options, GError **error)
{
    g_autofree char *path = dstack_home_path("config.yaml"), *notice = NULL;
    struct remote *remote;

    if (!check_engine(options, error))
        return false;
    remote = make_remote(options);
    notice = g_strdup_printf("Remote %s: %s (%s)\n", remote->name, remote->storage, path);
    if (!check_name(remote->name, error) || !check_writable(remote, error)) {
        remote_free(remote);
        return false;
    }
    if (!settings_add(remote, error))
        return false;
    fputs(notice, stderr);
    return true;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct options options = {0};
    GError *error = NULL;
    int status;

    if (!parse(command, &options, argc, argv, &status)) {
        options_clear(&options);
        return status;
    }
    ask_storage(&options);
    if (!options.storage) {
        cli_say("dstack config", "--storage URL is missing; see dstack config --help");
        options_clear(&options);
        return 2;
    }
    status = save(&options, &error) ? 0 : cli_fail(error);
    options_clear(&options);
    return status;
}

const struct command cmd_config = {"config", "", "Sets up a remote.", run};
