#include "runner/work_dir.h"
#include "config/error.h"
#include "config/log.h"
#include "config/paths.h"
#include "runner/machine.h"
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

static char *attempt_path(const struct run *run, const char *parent, unsigned attempt)
{
    GString *path = g_string_new(NULL);

    g_string_printf(path, "%s/%s-%.8s", parent, run->name, run->id);
    if (run->rank)
        g_string_append_printf(path, "-r%u", run->rank);
    if (attempt > 1)
        g_string_append_printf(path, ".%u", attempt);
    return g_string_free(path, FALSE);
}

char *work_dir_default(const struct run *run)
{
    g_autofree char *parent = dstack_home_path("work");

    return attempt_path(run, parent, run->attempt);
}

/* What attempts left that had no time to clean up, here: they are over, since RUN is a later one's.
 */
static void remove_attempt(const struct run *run, const char *parent, unsigned attempt)
{
    struct run earlier = {.id = run->id, .rank = run->rank};

    earlier.owner.work_dir = attempt_path(run, parent, attempt);
    if (work_dir_is_ours(&earlier)) {
        g_autoptr(GError) error = NULL;

        mounts_detach(earlier.owner.work_dir);
        if (!tree_remove(earlier.owner.work_dir, &error))
            log_warning("%s", error->message);
    }
    g_free(earlier.owner.work_dir);
}

bool work_dir_create(struct run *run, GError **error)
{
    g_autofree char *path = work_dir_default(run);
    g_autofree char *parent = g_path_get_dirname(path);
    g_autofree char *code = NULL, *mark = NULL;

    for (unsigned attempt = 1; attempt < run->attempt; attempt++)
        remove_attempt(run, parent, attempt);
    if (g_mkdir_with_parents(parent, 0700) != 0 || g_mkdir(path, 0700) != 0)
        return error_set_errno(error, errno, "make the work directory %s", path);
    g_free(run->owner.work_dir);
    run->owner.work_dir = g_strdup(path);
    code = g_build_filename(path, "code", NULL);
    mark = g_build_filename(path, "job", NULL);
    if (g_mkdir(code, 0755) != 0)
        error_set_errno(error, errno, "make %s", code);
    else if (g_file_set_contents(mark, run->id, -1, error))
        return true;
    tree_remove(path, NULL);
    return false;
}

static bool has_mark(const struct run *run, const char *name)
{
    g_autofree char *mark = NULL, *id = NULL;

    if (!run->owner.work_dir || !g_path_is_absolute(run->owner.work_dir))
        return false;
    mark = g_build_filename(run->owner.work_dir, name, NULL);
    return g_file_get_contents(mark, &id, NULL, NULL) && strcmp(id, run->id) == 0;
}

bool work_dir_is_ours(const struct run *run)
{
    return has_mark(run, "job");
}

bool work_dir_keep(const struct run *run, GError **error)
{
    g_autofree char *mark = g_build_filename(run->owner.work_dir, "job", NULL);
    g_autofree char *kept = g_build_filename(run->owner.work_dir, "kept", NULL);

    /* no new file: the disk may be full */
    return g_rename(mark, kept) == 0 ||
           error_set_errno(error, errno, "keep %s", run->owner.work_dir);
}

bool work_dir_is_kept(const struct run *run)
{
    return has_mark(run, "kept");
}

char *work_dir_commands(const struct run *run)
{
    if (!run->owner.work_dir)
        return NULL;
    return g_build_filename(run->owner.work_dir, "code", run->working_dir, NULL);
}

char *work_dir_path(const struct run *run, const char *path)
{
    g_autofree char *commands = NULL;

    if (g_str_has_prefix(path, "~/"))
        return g_build_filename(g_get_home_dir(), path + 2, NULL);
    if (g_path_is_absolute(path))
        return g_strdup(path);
    commands = work_dir_commands(run);
    return commands ? g_canonicalize_filename(path, commands) : NULL;
}
