#include "config/slurm_options.h"
#include "config/error.h"
#include <string.h>

#define FINDS     "a run's job is found by it"
#define LOGS      "a run's output is in dstack logs, and the job's own is not kept"
#define RESTARTS  "interruptible and retry of a workflow say whether a job is started again"
#define RANKS     "nodes of a workflow starts one runner on each"
#define RESOURCES "resources of a workflow say it"
#define KEY(name) "the key \"" name "\" (--slurm-" name ") says it"
#define ANSWER    "its answer must be the number of one job"

static const struct {
    const char *name;
    char letter; /* 0: none */
    const char *why;
} OURS[] = {
    {"job-name", 'J', FINDS},
    {"clusters", 'M', FINDS},
    {"cluster", 0, FINDS},
    {"output", 'o', LOGS},
    {"error", 'e', LOGS},
    {"requeue", 0, RESTARTS},
    {"no-requeue", 0, RESTARTS},
    {"signal", 0, "it is how the commands are warned"},
    {"chdir", 'D', "the runner has a directory of its own"},
    {"nodes", 'N', RANKS},
    {"ntasks", 'n', RANKS},
    {"ntasks-per-node", 0, RANKS},
    {"no-kill", 'k', "a run whose node is gone begins again with all of them"},
    {"cpus-per-task", 'c', RESOURCES},
    {"mem", 0, RESOURCES},
    {"partition", 'p', KEY("partition")},
    {"account", 'A', KEY("account")},
    {"qos", 'q', KEY("qos")},
    {"time", 't', KEY("time")},
    {"array", 'a', ANSWER},
    {"parsable", 0, ANSWER},
    {"test-only", 0, ANSWER},
    {"wait", 'W', ANSWER},
    {"help", 'h', ANSWER},
    {"usage", 0, ANSWER},
    {"version", 'V', ANSWER},
    {"wrap", 0, "the job's script is the runner's"},
};

/* Letters that take no argument: more may follow in the same word. */
#define FLAGS "HIKOQsv"

static bool refuse(const char *option, const char *ours, const char *why, GError **error)
{
    return error_set(error, EINVAL,
                     "\"%s\" cannot be an option of Slurm's here: dstack sets %s: %s", option, ours,
                     why);
}

static bool check_long(const char *option, GError **error)
{
    g_autofree char *name = g_strndup(option + 2, strcspn(option + 2, "="));

    for (guint i = 0; i < G_N_ELEMENTS(OURS); i++)
        if (*name && g_str_has_prefix(OURS[i].name, name)) {
            g_autofree char *ours = g_strconcat("--", OURS[i].name, NULL);

            return refuse(option, ours, OURS[i].why, error);
        }
    return true;
}

static bool check_short(const char *option, GError **error)
{
    for (const char *letter = option + 1; *letter; letter++) {
        for (guint i = 0; i < G_N_ELEMENTS(OURS); i++)
            if (OURS[i].letter == *letter) {
                const char ours[] = {'-', *letter, '\0'};

                return refuse(option, ours, OURS[i].why, error);
            }
        if (!strchr(FLAGS, *letter)) /* the rest is its argument */
            return true;
    }
    return true;
}

bool slurm_option_check(const char *option, GError **error)
{
    if (*option != '-' || !option[1] || strcmp(option, "--") == 0)
        return error_set(error, EINVAL,
                         "\"%s\" is no option of sbatch's: write one word, as --name=VALUE",
                         option);
    return option[1] == '-' ? check_long(option, error) : check_short(option, error);
}
