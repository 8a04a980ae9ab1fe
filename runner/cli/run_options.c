#include "runner/cli/run_options.h"

#include "config/error.h"
#include "runner/cli/arguments.h"

#include <string.h>

void run_options_clear(struct run_options *options)
{
    char *texts[] = {options->remote_name, options->tag,        options->working_dir,
                     options->cpu,         options->memory,     options->gpu,
                     options->gpu_name,    options->gpu_memory, options->shm_size,
                     options->resume};
    char **lists[] = {options->commands, options->env, options->artifacts, options->deps,
                      options->ports};

    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++)
        g_free(texts[i]);
    for (unsigned i = 0; i < G_N_ELEMENTS(lists); i++)
        g_strfreev(lists[i]);
    g_free(options->words);
}

/* --remote may stand alone ("--remote=" by now) or name one. */
static gboolean parse_remote(const char *option, const char *value, gpointer user, GError **error)
{
    struct run_options *options = user;

    options->remote = true;
    g_free(options->remote_name);
    options->remote_name = value && *value ? g_strdup(value) : NULL;
    return TRUE;
}

char **run_options_join_remote(int *argc, char **argv)
{
    g_autoptr(GPtrArray) joined = g_ptr_array_new();
    struct settings settings = {0};

    for (int i = 0; i < *argc; i++) {
        bool embedded;

        if (strcmp(argv[i], "--") == 0) {
            while (i < *argc)
                g_ptr_array_add(joined, g_strdup(argv[i++]));
        } else if (strcmp(argv[i], "--remote") != 0) {
            g_ptr_array_add(joined, g_strdup(argv[i]));
        } else if (i + 1 < *argc && (settings.path || settings_load(&settings, NULL)) &&
                   settings_remote(&settings, argv[i + 1], &embedded, NULL)) {
            g_ptr_array_add(joined, g_strconcat("--remote=", argv[++i], NULL));
        } else {
            g_ptr_array_add(joined, g_strdup("--remote="));
        }
    }
    settings_clear(&settings);
    *argc = (int)joined->len;
    g_ptr_array_add(joined, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&joined), FALSE);
}

/* The workflow's name and its arguments. */
static bool take_words(struct run_options *options, GPtrArray *words, GError **error)
{
    g_ptr_array_add(words, NULL);
    options->workflow = words->pdata[0];
    if (options->resume && options->workflow)
        return error_set(error, EINVAL, "--resume takes a run, and no workflow");
    if (options->resume)
        return true;
    if (!options->workflow)
        return error_set(error, EINVAL, "name a workflow");
    if (*options->workflow == '-')
        return error_set(error, EINVAL, "unknown option %s", options->workflow);
    if (options->commands && strcmp(options->workflow, "bash") != 0 &&
        strcmp(options->workflow, "docker") != 0)
        return error_set(error, EINVAL,
                         "-c is for dstack run bash and dstack run docker; what is the workflow's "
                         "own stands behind --");
    options->words = g_memdup2(words->pdata, words->len * sizeof(char *));
    options->args = options->words + 1;
    return true;
}

bool run_options_parse(struct run_options *o, const struct command *command, int argc, char **argv,
                       GError **error)
{
    const GOptionEntry entries[] = {
        /* FILENAME: bytes as they are, whatever the locale */
        {"remote", 0, G_OPTION_FLAG_OPTIONAL_ARG, G_OPTION_ARG_CALLBACK, parse_remote,
         "Run on the default remote, or on that one", "REMOTE"},
        {"detach", 'd', 0, G_OPTION_ARG_NONE, &o->detach, "Do not wait and show the log", NULL},
        {"tag", 't', 0, G_OPTION_ARG_STRING, &o->tag, "Tag the run", "TAG"},
        {"env", 'e', 0, G_OPTION_ARG_FILENAME_ARRAY, &o->env,
         "Set in the environment, too; of `dstack run docker` without '=': its entrypoint", "K=V"},
        {"artifact", 'a', 0, G_OPTION_ARG_FILENAME_ARRAY, &o->artifacts,
         "An artifact directory, instead of the workflow's", "PATH"},
        {"dep", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &o->deps,
         "A tag or workflow whose artifacts it gets, instead of the workflow's deps",
         ":TAG|WORKFLOW"},
        {"working-dir", 'w', 0, G_OPTION_ARG_FILENAME, &o->working_dir, "Where its commands run",
         "DIR"},
        {"interruptible", 'i', 0, G_OPTION_ARG_NONE, &o->interruptible,
         "It may run on a machine that can be taken away", NULL},
        {"cpu", 0, 0, G_OPTION_ARG_STRING, &o->cpu, "CPUs it needs", "N"},
        {"memory", 0, 0, G_OPTION_ARG_STRING, &o->memory, "Memory it needs", "SIZE"},
        {"gpu", 0, 0, G_OPTION_ARG_STRING, &o->gpu, "GPUs it needs", "N"},
        {"gpu-name", 0, 0, G_OPTION_ARG_STRING, &o->gpu_name, "Which GPUs", "NAME"},
        {"gpu-memory", 0, 0, G_OPTION_ARG_STRING, &o->gpu_memory, "Memory of each", "SIZE"},
        {"shm-size", 0, 0, G_OPTION_ARG_STRING, &o->shm_size, "Shared memory it needs", "SIZE"},
        {"port", 'p', 0, G_OPTION_ARG_STRING_ARRAY, &o->ports,
         "A port it listens on, instead of the workflow's", "P[:LOCAL]"},
        {"resume", 0, 0, G_OPTION_ARG_STRING, &o->resume,
         "Follow that run instead, and start it again if it was interrupted", "RUN"},
        {"command", 'c', 0, G_OPTION_ARG_FILENAME_ARRAY, &o->commands,
         "A command of `dstack run bash` or `dstack run docker IMAGE`", "COMMAND"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(command->arguments);
    GOptionGroup *group = g_option_group_new("run", "", "", o, NULL);
    g_autoptr(GPtrArray) own = g_ptr_array_new(), rest = g_ptr_array_new();
    g_autofree char **own_argv = NULL;
    int own_argc;

    if (cli_give_entries(entries)) {
        g_option_group_unref(group);
        return error_set(error, ECANCELED, "nothing but the options was asked for");
    }
    g_option_group_add_entries(group, entries);
    g_option_context_set_main_group(context, group);
    g_option_context_set_summary(context, command->summary);
    g_ptr_array_add(own, argv[0]);
    arguments_split(entries, argc, argv, own, rest);
    own_argc = (int)own->len;
    g_ptr_array_add(own, NULL);
    own_argv = g_memdup2(own->pdata, own->len * sizeof(char *));
    return g_option_context_parse(context, &own_argc, &own_argv, error) &&
           take_words(o, rest, error);
}
