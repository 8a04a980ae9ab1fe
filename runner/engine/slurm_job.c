#include "runner/engine/slurm_job.h"
#include <string.h>

#define COMPLAINT "dstack: "

enum { LATE_MS = 1000, LEFT_MAX_MS = 600000, LATE_MAX_MS = 60000 };

/* "KEY=VALUE" ends at the next " Key=": values may hold spaces. */
static size_t value_length(const char *value)
{
    for (const char *at = value; *at; at++) {
        size_t key = 0;

        if (*at == '\n')
            return (size_t)(at - value);
        if (*at != ' ' || !g_ascii_isupper(at[1]))
            continue;
        while (g_ascii_isalnum(at[1 + key]) || (at[1 + key] && strchr(":/&_", at[1 + key])))
            key++;
        if (at[1 + key] == '=')
            return (size_t)(at - value);
    }
    return strlen(value);
}

/* The caller's; NULL: there is no such field, or it is empty. */
static char *field(const char *text, const char *key)
{
    g_autofree char *inside = g_strdup_printf(" %s=", key);
    const char *found = strstr(text, inside);
    size_t length;

    if (!found)
        return NULL;
    found += strlen(inside);
    length = value_length(found);
    if (length == 0 || strncmp(found, "None ", 5) == 0 || strncmp(found, "(null)", 6) == 0)
        return NULL;
    return g_strndup(found, length);
}

static int64_t time_field(const char *text, const char *key)
{
    g_autofree char *value = field(text, key);
    g_autoptr(GTimeZone) here = g_time_zone_new_local();
    g_autoptr(GDateTime) time = value ? g_date_time_new_from_iso8601(value, here) : NULL;

    return time ? g_date_time_to_unix(time) : 0;
}

void slurm_job_parse(const char *text, struct slurm_job *job)
{
    g_autofree char *restarts = field(text, "Restarts");
    g_autofree char *comment = field(text, "Comment");
    const char *ours = g_getenv("SLURM_RESTART_COUNT");

    *job = (struct slurm_job){0};
    job->name = field(text, "JobName");
    job->state = field(text, "JobState");
    job->reason = field(text, "Reason");
    job->time_limit = field(text, "TimeLimit");
    job->end_s = time_field(text, "EndTime");
    job->preempted_s = time_field(text, "PreemptTime");
    job->is_requeued = g_ascii_strtoll(restarts ? restarts : "0", NULL, 10) >
                       g_ascii_strtoll(ours ? ours : "0", NULL, 10);
    if (comment && g_str_has_prefix(comment, COMPLAINT))
        job->complaint = g_strdup(comment + strlen(COMPLAINT));
}

void slurm_job_clear(struct slurm_job *job)
{
    g_free(job->name);
    g_free(job->state);
    g_free(job->reason);
    g_free(job->time_limit);
    g_free(job->complaint);
}

/* What a state means. No entry: the job has ended in a way that says nothing by itself. */
static const struct {
    const char *name;
    enum engine_state state;
    enum run_status ended;
    const char *reason;
} STATES[] = {
    {"PENDING", ENGINE_QUEUED, 0, NULL},
    {"REQUEUED", ENGINE_QUEUED, 0, NULL},
    {"REQUEUE_HOLD", ENGINE_QUEUED, 0, NULL},
    {"REQUEUE_FED", ENGINE_QUEUED, 0, NULL},
    {"SPECIAL_EXIT", ENGINE_QUEUED, 0, NULL},
    {"RUNNING", ENGINE_ALIVE, 0, NULL},
    {"CONFIGURING", ENGINE_ALIVE, 0, NULL},
    {"COMPLETING", ENGINE_ALIVE, 0, NULL},
    {"SUSPENDED", ENGINE_ALIVE, 0, NULL},
    {"STOPPED", ENGINE_ALIVE, 0, NULL},
    {"RESIZING", ENGINE_ALIVE, 0, NULL},
    {"SIGNALING", ENGINE_ALIVE, 0, NULL},
    {"STAGE_OUT", ENGINE_ALIVE, 0, NULL},
    {"CANCELLED", ENGINE_GONE, RUN_STOPPED, "its job was cancelled in Slurm"},
    {"REVOKED", ENGINE_GONE, RUN_STOPPED, "its job was revoked in Slurm"},
    {"TIMEOUT", ENGINE_GONE, RUN_FAILED, "Slurm's time limit was reached"},
    {"DEADLINE", ENGINE_GONE, RUN_FAILED, "Slurm's deadline for the job was reached"},
    {"OUT_OF_MEMORY", ENGINE_GONE, RUN_FAILED, "out of memory: Slurm ended the job"},
    {"NODE_FAIL", ENGINE_GONE, RUN_INTERRUPTED, "its node failed"},
    {"BOOT_FAIL", ENGINE_GONE, RUN_INTERRUPTED, "its node did not start"},
    {"PREEMPTED", ENGINE_GONE, RUN_INTERRUPTED, "its job was preempted"},
};

void slurm_job_judge(const struct slurm_job *job, struct engine_answer *answer)
{
    const char *state = job->state ? job->state : "";

    answer->state = ENGINE_GONE;
    answer->ended = RUN_INTERRUPTED;
    for (guint i = 0; i < G_N_ELEMENTS(STATES); i++) {
        if (strcmp(STATES[i].name, state) != 0)
            continue;
        answer->state = STATES[i].state;
        answer->ended = STATES[i].ended;
        answer->reason = g_strdup(STATES[i].reason);
    }
    if (answer->state == ENGINE_QUEUED) {
        answer->reason = g_strdup(job->reason ? job->reason : "its turn");
    } else if (answer->state == ENGINE_GONE && (job->complaint || !answer->reason)) {
        g_free(answer->reason);
        answer->reason = job->complaint ? g_strdup(job->complaint) : g_strdup("runner lost");
        answer->ended = job->complaint ? RUN_FAILED : RUN_INTERRUPTED;
    }
}

/* --- from inside --- */

/* The state of a job that is being ended: while it is COMPLETING its reason says more. */
static const char *ending_state(const struct slurm_job *job)
{
    static const struct {
        const char *reason, *state;
    } endings[] = {
        {"NodeDown", "NODE_FAIL"}, {"TimeLimit", "TIMEOUT"}, {"OutOfMemory", "OUT_OF_MEMORY"}};

    if (g_strcmp0(job->state, "COMPLETING") != 0)
        return job->state;
    for (guint i = 0; i < G_N_ELEMENTS(endings); i++)
        if (g_strcmp0(job->reason, endings[i].reason) == 0)
            return endings[i].state;
    return "CANCELLED";
}

/* False: Slurm is not ending the job. */
static bool judge_ending(const struct slurm_job *job, struct engine_signal *signal)
{
    struct slurm_job ending = *job;
    struct engine_answer answer = {0};

    ending.state = (char *)ending_state(job);
    slurm_job_judge(&ending, &answer);
    if (answer.state == ENGINE_GONE) {
        signal->is_interruption = answer.ended == RUN_INTERRUPTED;
        signal->ends = answer.ended;
        signal->why = g_steal_pointer(&answer.reason);
    }
    g_free(answer.reason);
    return answer.state == ENGINE_GONE;
}

/* Of a preempted job's grace; this machine's clock tells how much has passed, unless it is off. */
static int64_t left_until_end(const struct slurm_job *job, int64_t now_ms)
{
    int64_t left_ms = job->end_s * 1000 - now_ms;
    int64_t grace_ms = (job->end_s - job->preempted_s) * 1000;
    bool is_off = left_ms > grace_ms || left_ms < -LATE_MAX_MS;

    if (!job->end_s)
        return -1;
    return job->preempted_s && is_off ? grace_ms : left_ms;
}

void slurm_job_judge_signal(const struct slurm_job *job, int64_t now_ms,
                            struct engine_signal *signal)
{
    int64_t left_ms = left_until_end(job, now_ms);

    *signal = (struct engine_signal){.ends = RUN_STOPPED, .left_ms = -1};
    if (job->preempted_s || job->is_requeued) {
        signal->is_interruption = true;
        signal->why = g_strdup(job->preempted_s ? "preempted" : "requeued");
    } else if (job->complaint) { /* of another rank's node */
        signal->ends = RUN_FAILED;
        signal->why = g_strdup(job->complaint);
    } else if (judge_ending(job, signal)) {
        return; /* its end has been; how long Slurm waits is not known */
    } else if (left_ms > 0 && left_ms <= 3 * SLURM_WARN_S * 1000) {
        signal->ends = RUN_FAILED;
        signal->why = g_strdup_printf("Slurm's time limit (%s) was reached",
                                      job->time_limit ? job->time_limit : "?");
    } else {
        signal->why = g_strdup("SIGTERM in its Slurm job");
        return;
    }
    if (job->end_s)
        signal->left_ms = CLAMP(left_ms, LATE_MS, LEFT_MAX_MS);
}
