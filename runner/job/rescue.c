#include "runner/job/rescue.h"
#include "config/log.h"
#include "runner/job/job_files.h"
#include "runner/machine.h"
#include "runner/run/run_store.h"
#include "runner/work_dir.h"

/* One that was interrupted, and did not begin again, has no owner any more. */
bool run_can_be_rescued(struct run *run)
{
    if (!run->owner.work_dir)
        run->owner.work_dir = work_dir_default(run);
    return run->status == RUN_FAILED && work_dir_is_kept(run);
}

static char *new_reason(const struct run *run)
{
    if (run->exit_code > 0)
        return g_strdup_printf("exit status %d; its artifacts were saved later, by dstack push",
                               run->exit_code);
    return g_strdup("its artifacts could not be saved at its end; they were saved later, by "
                    "dstack push");
}

bool run_rescue(struct store *root, struct run *run, const struct transfer_options *options,
                GError **error)
{
    g_autoptr(GError) unremoved = NULL;

    if (!job_files_upload(root, run, options, error))
        return false;
    g_free(run->reason);
    run->reason = new_reason(run);
    if (!run_store_save(root, run, error))
        return false;
    if (!tree_remove(run->owner.work_dir, &unremoved))
        log_warning("%s", unremoved->message);
    return true;
}
