#include "runner/engine/slurm.h"
#include "config/error.h"
#include "config/units.h"
#include "runner/tool.h"
#include <string.h>

enum { PARTITION, CPUS, MEMORY, GRES, FEATURES, NODES, NAMES, COLUMNS };
#define MIB    (UINT64_C(1024) * 1024)
#define ANSWER "dstack-answer:"

/* As one word for the shell of another machine. */
static char *quote_all(const char *const *argv)
{
    g_autoptr(GString) line = g_string_new(NULL);

    for (; *argv; argv++) {
        g_autofree char *word = g_shell_quote(*argv);

        g_string_append_printf(line, "%s%s", line->len ? " " : "", word);
    }
    return g_string_free(g_steal_pointer(&line), FALSE);
}

/* A shell's own files may greet whoever logs in: what the program said is behind our word. */
static void cut_greeting(char *output)
{
    char *answer = strstr(output, ANSWER "\n");

    if (answer) {
        answer += strlen(ANSWER "\n");
        memmove(output, answer, strlen(answer) + 1);
    }
}

bool slurm_run(const char *host, const char *const *argv, const char *input, unsigned timeout_ms,
               char **output, GError **error)
{
    g_autofree char *words = quote_all(argv);
    g_autofree char *line = g_strconcat("echo " ANSWER "; ", words, NULL);
    const char *const over[] = {"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", host,
                                line,  NULL};
    struct tool tool = {host ? over : argv, input, timeout_ms};
    g_autoptr(GError) why = NULL;

    if (tool_run(&tool, output, &why)) {
        if (host && output)
            cut_greeting(*output);
        return true;
    }
    if (!host && error_is(why, ENOENT))
        return error_set(error, ENOENT,
                         "there is no %s on this machine: install Slurm's commands, or name a host "
                         "that has them with dstack config --slurm-submit-host",
                         argv[0]);
    if (error_is(why, ETIMEDOUT)) /* Slurm's commands try for long, and say nothing meanwhile */
        error_set(error, ETIMEDOUT, "%s: are Slurm's controller and munge up?", why->message);
    else
        g_propagate_error(error, g_steal_pointer(&why));
    if (host)
        g_prefix_error(error, "on %s: ", host);
    return false;
}

const char *slurm_partition(const struct slurm_settings *slurm, const struct run *run)
{
    if (run->resources.interruptible && slurm->interruptible_partition)
        return slurm->interruptible_partition;
    return slurm->partition;
}

/* --- what the nodes have --- */

/* Of "gpu:a100:4(S:0-1),fs:1": how many GPUs, of that name (NULL: any). */
static unsigned count_gpus(const char *gres, const char *name)
{
    g_auto(GStrv) entries = g_strsplit(gres, ",", -1);
    unsigned count = 0;

    for (char **entry = entries; *entry; entry++) {
        g_auto(GStrv) parts = NULL;
        guint length;

        (*entry)[strcspn(*entry, "(")] = '\0';
        parts = g_strsplit(*entry, ":", -1);
        length = g_strv_length(parts);
        if (length < 2 || strcmp(parts[0], "gpu") != 0 ||
            (name && (length < 3 || g_ascii_strcasecmp(parts[1], name) != 0)))
            continue;
        count += (unsigned)g_ascii_strtoull(parts[length - 1], NULL, 10);
    }
    return count;
}

/* A feature such as "gpu80gb" or "a100_40g" says how much memory a GPU has. 0: it does not. */
static uint64_t feature_memory(const char *feature)
{
    size_t length = strlen(feature);
    g_autofree char *size = NULL;
    uint64_t bytes;

    if (length && g_ascii_tolower(feature[length - 1]) == 'b')
        length--;
    if (length == 0 || g_ascii_tolower(feature[length - 1]) != 'g')
        return 0;
    length--;
    while (length && g_ascii_isdigit(feature[length - 1]))
        length--;
    size = g_strdup_printf("%uGB", (unsigned)g_ascii_strtoull(feature + length, NULL, 10));
    return size_parse(size, &bytes) ? bytes : 0;
}

/* The first feature that says that a GPU has that much memory; the caller's. */
static char *find_feature(const char *features, uint64_t bytes)
{
    g_auto(GStrv) names = g_strsplit(features, ",", -1);

    for (char **name = names; *name; name++)
        if (feature_memory(*name) >= bytes)
            return g_strdup(*name);
    return NULL;
}

struct fit {
    const struct run *run;
    const char *partition; /* NULL: the default one */
    bool is_known;
    unsigned nodes; /* that have all of it */
    GString *partitions, *has, *constraint;
};

static void append(GString *list, const char *separator, const char *text)
{
    if (!strstr(list->str, text))
        g_string_append_printf(list, "%s%s", list->len ? separator : "", text);
}

static bool is_partition(const struct fit *fit, const char *name)
{
    size_t length = strcspn(name, "*");

    if (!fit->partition)
        return name[length] == '*';
    return strncmp(fit->partition, name, length) == 0 && !fit->partition[length];
}

static void look_at_row(struct fit *fit, char **row)
{
    const struct resources *want = &fit->run->resources;
    g_autofree char *has = g_strdup_printf("%s CPUs, %s MB, %s", row[CPUS], row[MEMORY],
                                           count_gpus(row[GRES], NULL) ? row[GRES] : "no GPU");
    g_autofree char *feature = NULL;
    unsigned gpus = want->gpu ? want->gpu : want->gpu_name || want->gpu_memory_bytes ? 1 : 0;

    append(fit->has, "; ", has);
    if (want->gpu_memory_bytes) {
        g_string_append_printf(fit->has, " (features: %s)", row[FEATURES]);
        feature = find_feature(row[FEATURES], want->gpu_memory_bytes);
        if (!feature)
            return;
    }
    if (g_ascii_strtoull(row[CPUS], NULL, 10) < want->cpu ||
        g_ascii_strtoull(row[MEMORY], NULL, 10) * MIB < want->memory_bytes ||
        count_gpus(row[GRES], want->gpu_name) < gpus)
        return;
    fit->nodes += (unsigned)g_ascii_strtoull(row[NODES], NULL, 10);
    if (feature)
        append(fit->constraint, "|", feature);
}

static void look(struct fit *fit, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) row = g_strsplit(*line, "|", COLUMNS);
        g_autofree char *name = NULL;

        if (g_strv_length(row) != COLUMNS)
            continue;
        name = g_strndup(row[PARTITION], strcspn(row[PARTITION], "*"));
        append(fit->partitions, ", ", name);
        if (is_partition(fit, row[PARTITION])) {
            fit->is_known = true;
            look_at_row(fit, row);
        }
    }
}

static char *describe(const struct resources *want, unsigned nodes)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *memory = size_format(want->memory_bytes);
    g_autofree char *gpu_memory = size_format(want->gpu_memory_bytes);

    g_string_append_printf(text, "%u node%s", nodes, nodes > 1 ? "s" : "");
    if (want->cpu)
        g_string_append_printf(text, ", %u CPUs", want->cpu);
    if (want->memory_bytes)
        g_string_append_printf(text, ", %s of memory", memory);
    if (want->gpu || want->gpu_name || want->gpu_memory_bytes)
        g_string_append_printf(text, ", %u GPU%s%s", MAX(want->gpu, 1), want->gpu_name ? " " : "",
                               want->gpu_name ? want->gpu_name : "");
    if (want->gpu_memory_bytes)
        g_string_append_printf(text, " of %s", gpu_memory);
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static bool judge(const struct fit *fit, GError **error)
{
    unsigned nodes = MAX(fit->run->lifetime.nodes, 1);
    g_autofree char *want = describe(&fit->run->resources, nodes);

    if (fit->partition && !fit->is_known)
        return error_set(error, ENOENT, "Slurm has no partition %s; it has: %s", fit->partition,
                         fit->partitions->len ? fit->partitions->str : "none");
    if (!fit->is_known) /* no default partition: sbatch knows what it makes of that */
        return true;
    if (fit->nodes >= nodes)
        return true;
    return error_set(error, ENOTSUP, "partition %s cannot give %s; its nodes have %s",
                     fit->partition ? fit->partition : "(the default)", want, fit->has->str);
}

bool slurm_fits(const struct slurm_settings *slurm, const struct run *run, char **constraint,
                GError **error)
{
    static const char *const argv[] = {"sinfo", "-h", "-e", "-o", "%P|%c|%m|%G|%f|%D|%N", NULL};
    g_autoptr(GString) partitions = g_string_new(NULL), has = g_string_new(NULL),
                       wanted = g_string_new(NULL);
    struct fit fit = {.run = run,
                      .partition = slurm_partition(slurm, run),
                      .partitions = partitions,
                      .has = has,
                      .constraint = wanted};
    g_autofree char *text = NULL;

    if (!slurm_run(slurm->submit_host, argv, NULL, SLURM_ASK_MS, &text, error))
        return false;
    look(&fit, text);
    if (!judge(&fit, error))
        return false;
    if (constraint)
        *constraint = wanted->len ? g_strdup(wanted->str) : NULL;
    return true;
}
