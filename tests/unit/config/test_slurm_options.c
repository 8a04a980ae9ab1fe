/* Which options of sbatch a person may add. */
#include "config/error.h"
#include "config/slurm_options.h"
#include <criterion/criterion.h>
#include <string.h>

Test(slurm_options, what_is_ours_is_refused_however_it_is_written)
{
    static const struct {
        const char *option, *says;
    } cases[] = {
        {"--job-name=x", "dstack sets --job-name: a run's job is found by it"},
        {"--job-nam=x", "--job-name"},
        {"-Jx", "dstack sets -J"},
        {"-J", "dstack sets -J"},
        {"--output=/tmp/x", "dstack logs"},
        {"--outp=/tmp/x", "--output"},
        {"-o/tmp/x", "-o"},
        {"-Qo/tmp/x", "-o"},
        {"--requeue", "interruptible"},
        {"--no-requeue", "interruptible"},
        {"--signal=KILL@1", "warned"},
        {"--nodes=2", "nodes of a workflow"},
        {"-N2", "nodes of a workflow"},
        {"--ntasks=9", "--ntasks"},
        {"--mem=1G", "resources"},
        {"--partition=p", "--slurm-partition"},
        {"-tmax", "--slurm-time"},
        {"--array=1-9", "one job"},
        {"--wrap=true", "runner's"},
        {"--help", "one job"},
        {"job.sh", "no option of sbatch's"},
        {"", "no option of sbatch's"},
        {"-", "no option of sbatch's"},
        {"--", "no option of sbatch's"},
    };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;

        cr_assert_not(slurm_option_check(cases[i].option, &error), "%s", cases[i].option);
        cr_assert(error_is(error, EINVAL));
        cr_assert(strstr(error->message, cases[i].says), "%s", error->message);
    }
}

Test(slurm_options, others_are_taken)
{
    static const char *const options[] = {
        "--exclusive",
        "--exclude=n7",
        "--comment=a b",
        "--constraint=ib",
        "-Cib",
        "--hold",
        "-H",
        "--nodelist=n1",
        "--nice=5",
        "--time-min=5",
        "--gres=fs:1",
        "-Qs",
        "--mem-per-cpu=1G",
        "-wn1",
        "--reservation=x",
        "--no-such",
    };

    for (guint i = 0; i < G_N_ELEMENTS(options); i++) {
        g_autoptr(GError) error = NULL;

        cr_assert(slurm_option_check(options[i], &error), "%s: %s", options[i],
                  error ? error->message : "");
    }
}
