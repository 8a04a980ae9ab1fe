/* What Slurm says of a job, and what it means. */
#include "runner/engine/slurm_job.h"
#include <criterion/criterion.h>
#include <string.h>

#define BEGIN "JobId=7 JobName=dstack-a-1-12345678 UserId=root(0) "
#define END   " Partition=spot StdOut=/dev/null Power= \n"

static struct engine_answer judge(const char *fields)
{
    g_autofree char *text = g_strconcat(BEGIN, fields, END, NULL);
    struct engine_answer answer = {.state = ENGINE_UNKNOWN};
    struct slurm_job job;

    slurm_job_parse(text, &job);
    cr_assert_str_eq(job.name, "dstack-a-1-12345678");
    slurm_job_judge(&job, &answer);
    slurm_job_clear(&job);
    return answer;
}

static void expect(const char *fields, enum engine_state state, enum run_status ended,
                   const char *reason)
{
    struct engine_answer answer = judge(fields);

    cr_assert_eq(answer.state, state, "%s: %d", fields, (int)answer.state);
    if (state == ENGINE_GONE)
        cr_assert_eq(answer.ended, ended, "%s: %d", fields, (int)answer.ended);
    cr_assert(reason ? answer.reason && strstr(answer.reason, reason) : !answer.reason, "%s: %s",
              fields, answer.reason);
    g_free(answer.reason);
}

Test(slurm_job, states)
{
    expect("JobState=PENDING Reason=Resources Restarts=0", ENGINE_QUEUED, 0, "Resources");
    expect("JobState=PENDING Reason=None Restarts=0", ENGINE_QUEUED, 0, "turn");
    expect("JobState=RUNNING Reason=None", ENGINE_ALIVE, 0, NULL);
    expect("JobState=COMPLETING Reason=None", ENGINE_ALIVE, 0, NULL);
    expect("JobState=COMPLETED Reason=None", ENGINE_GONE, RUN_INTERRUPTED, "runner lost");
    expect("JobState=FAILED Reason=NonZeroExitCode", ENGINE_GONE, RUN_INTERRUPTED, "runner lost");
    expect("JobState=CANCELLED Reason=None", ENGINE_GONE, RUN_STOPPED, "cancelled");
    expect("JobState=TIMEOUT Reason=TimeLimit", ENGINE_GONE, RUN_FAILED, "time limit");
    expect("JobState=OUT_OF_MEMORY Reason=None", ENGINE_GONE, RUN_FAILED, "out of memory");
    expect("JobState=NODE_FAIL Reason=NodeDown", ENGINE_GONE, RUN_INTERRUPTED, "node failed");
    expect("JobState=NO_SUCH_STATE", ENGINE_GONE, RUN_INTERRUPTED, "runner lost");
    expect("", ENGINE_GONE, RUN_INTERRUPTED, "runner lost");
}

Test(slurm_job, what_the_script_said_of_its_node)
{
    expect("JobState=FAILED Reason=NonZeroExitCode Comment=dstack: n1 lacks the libraries liba.so",
           ENGINE_GONE, RUN_FAILED, "n1 lacks the libraries liba.so");
    expect("JobState=FAILED Comment=somebody's JobState=RUNNING", ENGINE_GONE, RUN_INTERRUPTED,
           "runner lost");
}

Test(slurm_job, preempted_until_when)
{
    struct slurm_job job;

    g_setenv("TZ", "UTC", TRUE);
    g_setenv("SLURM_RESTART_COUNT", "1", TRUE);
    slurm_job_parse(BEGIN "JobState=RUNNING Restarts=1 EndTime=2026-11-25T18:36:17 "
                          "PreemptTime=2026-11-25T18:36:12" END,
                    &job);
    cr_assert_eq(job.preempted_s, 1795631772);
    cr_assert_not(job.is_requeued);
    cr_assert_eq(job.end_s, 1795631777);
    slurm_job_clear(&job);
    slurm_job_parse(BEGIN "JobState=COMPLETING Restarts=2 EndTime=Unknown PreemptTime=None" END,
                    &job);
    cr_assert_eq(job.preempted_s, 0);
    cr_assert(job.is_requeued);
    cr_assert_eq(job.end_s, 0);
    slurm_job_clear(&job);
}

Test(slurm_job, what_a_signal_means)
{
    static const struct {
        const char *fields;
        bool is_interruption;
        enum run_status ends;
        int64_t left_ms;
        const char *why;
    } cases[] = {
        {"JobState=RUNNING PreemptTime=2026-11-25T18:36:12 EndTime=2026-11-25T18:36:17", true, 0,
         5000, "preempted"},
        /* by a clock that is an hour off: the grace; by one that is right, but late */
        {"JobState=RUNNING PreemptTime=2026-11-25T17:36:12 EndTime=2026-11-25T17:36:17", true, 0,
         5000, "preempted"},
        {"JobState=RUNNING PreemptTime=2026-11-25T19:36:12 EndTime=2026-11-25T19:36:17", true, 0,
         5000, "preempted"},
        {"JobState=RUNNING PreemptTime=2026-11-25T18:36:09 EndTime=2026-11-25T18:36:14", true, 0,
         2000, "preempted"},
        {"JobState=RUNNING PreemptTime=2026-11-25T18:36:04 EndTime=2026-11-25T18:36:09", true, 0,
         1000, "preempted"},
        {"JobState=COMPLETING Restarts=1", true, 0, -1, "requeued"},
        {"JobState=RUNNING TimeLimit=00:01:00 EndTime=2026-11-25T18:36:42", false, RUN_FAILED,
         30000, "time limit (00:01:00)"},
        {"JobState=RUNNING EndTime=2027-11-25T18:36:42", false, RUN_STOPPED, -1, "SIGTERM in"},
        {"JobState=CANCELLED Reason=None EndTime=2026-11-25T18:36:12", false, RUN_STOPPED, -1,
         "cancelled"},
        {"JobState=COMPLETING Reason=None EndTime=2026-11-25T18:36:12", false, RUN_STOPPED, -1,
         "cancelled"},
        {"JobState=COMPLETING Reason=NodeDown", true, 0, -1, "its node failed"},
        {"JobState=NODE_FAIL Reason=NodeDown", true, 0, -1, "its node failed"},
        {"JobState=COMPLETING Reason=TimeLimit", false, RUN_FAILED, -1, "time limit"},
        {"JobState=COMPLETING Reason=OutOfMemory", false, RUN_FAILED, -1, "out of memory"},
        {"JobState=RUNNING Comment=dstack: n2 lacks the libraries x", false, RUN_FAILED, -1,
         "n2 lacks the libraries x"},
    };

    g_setenv("TZ", "UTC", TRUE);
    g_unsetenv("SLURM_RESTART_COUNT");
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = g_strconcat(BEGIN, cases[i].fields, END, NULL);
        struct engine_signal signal;
        struct slurm_job job;

        slurm_job_parse(text, &job);
        slurm_job_judge_signal(&job, INT64_C(1795631772000), &signal);
        cr_assert_eq(signal.is_interruption, cases[i].is_interruption, "%s", text);
        cr_assert(signal.is_interruption || signal.ends == cases[i].ends, "%s", text);
        cr_assert_eq(signal.left_ms, cases[i].left_ms, "%s: %d", text, (int)signal.left_ms);
        cr_assert(strstr(signal.why, cases[i].why), "%s: %s", text, signal.why);
        g_free(signal.why);
        slurm_job_clear(&job);
    }
}

Test(slurm_job, a_job_that_its_run_does_not_name_has_nothing_to_do)
{
    g_autoptr(Run) run = run_new("repo", "a-1");

    run->engine_job = g_strdup("13 test me@login");
    g_setenv("SLURM_RESTART_COUNT", "1", TRUE);
    g_setenv("SLURM_JOB_ID", "12", TRUE); /* its submitter lost the connection */
    cr_assert_not(engine_slurm.is_ours(run));
    cr_assert_not(engine_slurm.is_restart(run));
    g_setenv("SLURM_JOB_ID", "13", TRUE);
    cr_assert(engine_slurm.is_ours(run));
    cr_assert(engine_slurm.is_restart(run));
    g_unsetenv("SLURM_RESTART_COUNT");
    cr_assert_not(engine_slurm.is_restart(run));
}
