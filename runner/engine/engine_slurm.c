/* The Slurm engine: dstack-runner as a batch job.
 *
 * shape:  the job's name is "NUMBER CLUSTER [HOST]", HOST being where Slurm's commands are when
 * that is not here: all that status and cancel need, from any machine that sees the store. The job
 * is called dstack-RUN-ID in Slurm, so that another cluster's job of the same number is not taken
 * for ours. source: sbatch(1), scontrol(1), scancel(1).
 */
#include "config/error.h"
#include "config/log.h"
#include "runner/engine/engine.h"
#include "runner/engine/slurm.h"
#include "runner/engine/slurm_job.h"
#include "runner/engine/slurm_script.h"
#include "runner/run/restart.h"
#include "runner/secrets/secret_box.h"
#include <string.h>

enum { INSIDE_MS = 3000, SILENT_S = 60 };
#define MIB (UINT64_C(1024) * 1024)

/* A job's name, taken apart. Foreign: it comes out of a document. */
struct place {
    char **parts;
    const char *number, *cluster, *host; /* NULL: not there */
};

static bool place_read(const struct run *run, struct place *place)
{
    guint count;

    place->parts = g_strsplit(run->engine_job ? run->engine_job : "", " ", 3);
    count = g_strv_length(place->parts);
    place->number = count > 0 ? place->parts[0] : NULL;
    place->cluster = count > 1 ? place->parts[1] : NULL;
    place->host = count > 2 ? place->parts[2] : NULL;
    return place->cluster && *place->number &&
           strspn(place->number, "0123456789") == strlen(place->number) &&
           (!place->host || slurm_submit_host_check(place->host, NULL));
}

static char *job_name(const struct run *run)
{
    return g_strdup_printf("dstack-%s-%.8s", run->name, run->id);
}

/* What KEY is in the cluster's configuration, "?" if it is not there. The caller's; NULL: *ERROR.
 */
static char *find_setting(const char *host, const char *key, unsigned timeout_ms, GError **error)
{
    static const char *const argv[] = {"scontrol", "show", "config", NULL};
    g_autofree char *text = NULL, *line = g_strdup_printf("\n%s ", key);
    const char *found;

    if (!slurm_run(host, argv, NULL, timeout_ms, &text, error))
        return NULL;
    found = strstr(text, line);
    found = found ? strchr(found, '=') : NULL;
    return g_strstrip(g_strndup(found ? found + 1 : "?", found ? strcspn(found + 1, "\n") : 1));
}

static bool find_cluster(const char *host, char **cluster, GError **error)
{
    *cluster = find_setting(host, "ClusterName", SLURM_ASK_MS, error);
    return *cluster != NULL;
}

/* --- submitting --- */

static void add(GPtrArray *argv, const char *format, const char *value)
{
    if (value)
        g_ptr_array_add(argv, g_strconcat(format, value, NULL));
}

static void add_number(GPtrArray *argv, const char *format, uint64_t number)
{
    if (number)
        g_ptr_array_add(argv, g_strdup_printf("%s%" G_GUINT64_FORMAT, format, number));
}

static void add_resources(GPtrArray *argv, const struct run *run, const char *constraint)
{
    const struct resources *want = &run->resources;
    unsigned gpus = want->gpu ? want->gpu : want->gpu_name || want->gpu_memory_bytes ? 1 : 0;

    add_number(argv, "--nodes=", MAX(run->lifetime.nodes, 1));
    g_ptr_array_add(argv, g_strdup("--ntasks-per-node=1"));
    add_number(argv, "--cpus-per-task=", want->cpu);
    add_number(argv, "--mem=", (want->memory_bytes + MIB - 1) / MIB);
    if (gpus)
        g_ptr_array_add(argv, g_strdup_printf("--gres=gpu%s%s:%u", want->gpu_name ? ":" : "",
                                              want->gpu_name ? want->gpu_name : "", gpus));
    add(argv, "--constraint=", constraint);
}

static char **sbatch_arguments(const struct slurm_settings *slurm, const struct run *run,
                               const char *constraint)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *name = job_name(run);

    g_ptr_array_add(argv, g_strdup("sbatch"));
    g_ptr_array_add(argv, g_strdup("--parsable"));
    g_ptr_array_add(argv, g_strdup("--chdir=/"));
    g_ptr_array_add(argv, g_strdup("--output=/dev/null"));
    add(argv, "--job-name=", name);
    g_ptr_array_add(argv, g_strdup_printf("--signal=%sTERM@%d",
                                          run->lifetime.nodes > 1 ? "" : "B:", SLURM_WARN_S));
    g_ptr_array_add(argv, g_strdup(run_wants_restarts(run) ? "--requeue" : "--no-requeue"));
    add_resources(argv, run, constraint);
    add(argv, "--partition=", slurm_partition(slurm, run));
    add(argv, "--account=", slurm->account);
    add(argv, "--qos=", slurm->qos);
    add(argv, "--time=", slurm->time);
    for (char **option = slurm->options; option && *option; option++)
        g_ptr_array_add(argv, g_strdup(*option));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&argv), FALSE);
}

/* Over ssh the environment does not come along; on stdin nobody sees what is in it. */
static char *remote_script(char **argv, const char *script)
{
    static const char *const names[] = {"AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        SECRETS_KEY_VARIABLE,
                                        NULL};
    g_autoptr(GString) text = g_string_new(NULL);

    for (const char *const *name = names; *name; name++) {
        g_autofree char *value = g_getenv(*name) ? g_shell_quote(g_getenv(*name)) : NULL;

        if (value)
            g_string_append_printf(text, "export %s=%s\n", *name, value);
    }
    g_string_append(text, "exec");
    for (char **word = argv; *word; word++) {
        g_autofree char *quoted = g_shell_quote(*word);

        g_string_append_printf(text, " %s", quoted);
    }
    g_string_append_printf(text, " <<'END_OF_THE_JOBS_SCRIPT'\n%sEND_OF_THE_JOBS_SCRIPT\n", script);
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static bool run_sbatch(const char *host, char **argv, const char *script, char **number,
                       GError **error)
{
    static const char *const shell[] = {"sh", "-s", NULL};
    g_autofree char *input = host ? remote_script(argv, script) : NULL;

    if (!slurm_run(host, host ? shell : (const char *const *)argv, host ? input : script,
                   SLURM_SUBMIT_MS, number, error))
        return false;
    (*number)[strspn(*number, "0123456789")] = '\0';
    return **number || error_set(error, EIO, "sbatch did not say the number of the job");
}

static const struct slurm_settings *settings_of(const struct run_root *root)
{
    static const struct slurm_settings none;

    return root->slurm ? root->slurm : &none;
}

static bool check(const struct run_root *root, const struct run *run, GError **error)
{
    return slurm_fits(settings_of(root), run, NULL, error);
}

static bool submit(const struct run_root *root, const struct run *run, char **job, GError **error)
{
    const struct slurm_settings *slurm = settings_of(root);
    const char *host = slurm->submit_host;
    g_autofree char *constraint = NULL, *script = NULL, *cluster = NULL, *number = NULL;
    g_auto(GStrv) argv = NULL;

    if (!slurm_fits(slurm, run, &constraint, error) || !find_cluster(host, &cluster, error))
        return false;
    script = slurm_script(root, run, error);
    if (!script)
        return false;
    argv = sbatch_arguments(slurm, run, constraint);
    if (!run_sbatch(host, argv, script, &number, error))
        return false;
    g_free(*job);
    *job = g_strdup_printf("%s %s%s%s", number, cluster, host ? " " : "", host ? host : "");
    return true;
}

/* --- from outside --- */

static bool is_unknown_job(const GError *error)
{
    return error && strstr(error->message, "Invalid job id");
}

/* A Slurm that could not be asked is not asked again for a while: who lists many runs, or follows
 * one, waits once, and is told once. threads: one asks from outside. */
static bool run_outside(const char *host, const char *const *argv, char **output, GError **error)
{
    static char *silent_host, *silence;
    static int64_t until_us;
    g_autoptr(GError) why = NULL;

    if (g_get_monotonic_time() < until_us && g_strcmp0(host, silent_host) == 0)
        return error_set(error, EHOSTUNREACH, "%s", silence);
    if (slurm_run(host, argv, NULL, SLURM_ASK_MS, output, &why))
        return true;
    if (!is_unknown_job(why) && !error_is(why, ENOENT)) {
        log_warning("%s: what Slurm knows of its jobs is not known here", why->message);
        until_us = g_get_monotonic_time() + SILENT_S * G_USEC_PER_SEC;
        g_free(silent_host);
        g_free(silence);
        silent_host = g_strdup(host);
        silence = g_strdup(why->message);
    }
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

/* Slurm has no such job: it is lost if this is its cluster, and nothing is known otherwise. */
static bool judge_unknown(const struct place *place, struct engine_answer *answer, GError **error)
{
    g_autofree char *cluster = NULL;

    if (!find_cluster(place->host, &cluster, error))
        return false;
    if (strcmp(cluster, place->cluster) != 0)
        return true;
    answer->state = ENGINE_GONE;
    answer->ended = RUN_INTERRUPTED;
    answer->reason = g_strdup_printf("Slurm does not know its job %s any more", place->number);
    return true;
}

static bool ask(const struct place *place, bool inside, struct slurm_job *job, GError **error)
{
    const char *argv[] = {"scontrol", "show", "job", "-o", place->number, NULL};
    g_autofree char *text = NULL;

    if (!(inside ? slurm_run(NULL, argv, NULL, INSIDE_MS, &text, error)
                 : run_outside(place->host, argv, &text, error)))
        return false;
    slurm_job_parse(text, job);
    return true;
}

static bool status(const struct run *run, struct engine_answer *answer, GError **error)
{
    g_autofree char *name = job_name(run);
    g_autoptr(GError) why = NULL;
    struct slurm_job job = {0};
    struct place place;
    bool fine = true;

    answer->state = ENGINE_UNKNOWN;
    if (!place_read(run, &place)) {
        fine = true; /* another version's, or damaged: others know better */
    } else if (ask(&place, false, &job, &why)) {
        if (g_strcmp0(job.name, name) == 0)
            slurm_job_judge(&job, answer);
    } else if (is_unknown_job(why)) {
        fine = judge_unknown(&place, answer, error);
    } else {
        g_propagate_error(error, g_steal_pointer(&why));
        fine = false;
    }
    slurm_job_clear(&job);
    g_strfreev(place.parts);
    return fine;
}

static bool cancel(const struct run *run, GError **error)
{
    g_autoptr(GError) why = NULL;
    struct place place;
    bool fine = place_read(run, &place);

    if (fine) {
        g_autofree char *name = g_strdup_printf("--name=dstack-%s-%.8s", run->name, run->id);
        const char *argv[] = {"scancel", "--quiet", name, place.number, NULL};

        fine = run_outside(place.host, argv, NULL, &why) || is_unknown_job(why);
        if (!fine)
            g_propagate_error(error, g_steal_pointer(&why));
    } else {
        error_set(error, EINVAL, "run %s: \"%s\" is no job of Slurm", run->name,
                  run->engine_job ? run->engine_job : "");
    }
    g_strfreev(place.parts);
    return fine;
}

/* --- from inside --- */

/* The job that this process belongs to, if it is RUN's: Slurm's commands are here then. */
static bool own_place(const struct run *run, struct place *place)
{
    if (place_read(run, place) && g_strcmp0(place->number, g_getenv("SLURM_JOB_ID")) == 0) {
        place->host = NULL;
        return true;
    }
    g_clear_pointer(&place->parts, g_strfreev);
    return false;
}

static bool is_ours(const struct run *run)
{
    struct place place;
    bool ours = own_place(run, &place);

    if (ours)
        g_strfreev(place.parts);
    return ours;
}

static bool is_restart(const struct run *run)
{
    const char *count = g_getenv("SLURM_RESTART_COUNT");

    return count && g_ascii_strtoll(count, NULL, 10) > 0 && is_ours(run);
}

/* Slurm has ended the job already: between SIGTERM and SIGKILL is the cluster's KillWait. */
static int64_t kill_wait_ms(void)
{
    g_autofree char *text = find_setting(NULL, "KillWait", INSIDE_MS, NULL);

    return text && g_ascii_isdigit(*text) ? g_ascii_strtoll(text, NULL, 10) * 1000 : -1;
}

static void explain_signal(const struct run *run, struct engine_signal *signal)
{
    g_autoptr(GError) error = NULL;
    struct slurm_job job = {0};
    struct place place;

    *signal = (struct engine_signal){.ends = RUN_STOPPED, .left_ms = -1};
    if (!own_place(run, &place))
        return;
    if (ask(&place, true, &job, &error)) {
        slurm_job_judge_signal(&job, run_now_ms(), signal);
        if (signal->is_interruption && signal->left_ms < 0)
            signal->left_ms = kill_wait_ms();
    } else { /* to go on elsewhere loses nothing, whatever it was */
        signal->is_interruption = run_wants_restarts(run);
        signal->why = g_strdup(error->message);
    }
    slurm_job_clear(&job);
    g_strfreev(place.parts);
}

static bool start_again(const struct run *run, GError **error)
{
    g_autoptr(GError) why = NULL;
    struct place place;
    bool fine;

    if (!own_place(run, &place))
        return true;
    {
        const char *argv[] = {"scontrol", "requeue", place.number, NULL};

        fine = slurm_run(NULL, argv, NULL, SLURM_ASK_MS, NULL, &why) ||
               strstr(why->message, "pending"); /* Slurm was faster */
    }
    if (!fine)
        g_propagate_error(error, g_steal_pointer(&why));
    g_strfreev(place.parts);
    return fine;
}

const struct engine engine_slurm = {
    .name = "slurm",
    .requeues = true,
    .check = check,
    .submit = submit,
    .status = status,
    .cancel = cancel,
    .is_ours = is_ours,
    .is_restart = is_restart,
    .explain_signal = explain_signal,
    .start_again = start_again,
};
