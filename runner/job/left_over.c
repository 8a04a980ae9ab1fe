#include "runner/job/left_over.h"
#include "config/error.h"
#include "config/log.h"
#include "config/paths.h"
#include "runner/job/job_files.h"
#include "runner/machine.h"
#include "runner/run/run_store.h"
#include "runner/work_dir.h"
#include <errno.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

#define WHOSE "whose"

enum { ROOT, REPO, RUN, ATTEMPT, ID, FIELDS };

static char *root_name(const struct run_root *where)
{
    return g_strdup_printf("%s %s", where->url,
                           where->options.endpoint ? where->options.endpoint : "");
}

static void note_whose(const struct run_root *where, const struct run *run)
{
    g_autofree char *path = g_build_filename(run->owner.work_dir, WHOSE, NULL);
    g_autofree char *root = root_name(where);
    g_autofree char *text =
        g_strdup_printf("%s\n%s\n%s\n%u\n%s\n", root, run->repo, run->name, run->attempt, run->id);
    g_autoptr(GError) error = NULL;

    if (!g_file_set_contents(path, text, -1, &error))
        log_warning("%s", error->message);
}

static void forget_whose(const struct run *run)
{
    g_autofree char *path = g_build_filename(run->owner.work_dir, WHOSE, NULL);

    if (g_unlink(path) != 0 && errno != ENOENT)
        log_warning("remove %s: %s", path, g_strerror(errno));
}

static void remove_dir(const char *path)
{
    g_autoptr(GError) error = NULL;

    log_info("%s is of an attempt that was succeeded: it is removed", path);
    if (!tree_remove(path, &error))
        log_warning("%s", error->message);
}

/* RUN as ATTEMPT left it here; false: it left nothing. */
static bool is_left(const struct run *run, unsigned attempt, struct run *left)
{
    *left = *run;
    left->owner.work_dir = work_dir_of_attempt(run, attempt);
    if (work_dir_is_kept(left))
        return true;
    g_free(left->owner.work_dir);
    return false;
}

/* Nobody has had the run since: what is here is the newest there is of it. */
static void save_last(struct store *root, const struct run *run, const int *stop)
{
    const struct transfer_options options = {.only_changed = true, .stop = stop};
    g_autoptr(GError) error = NULL;
    struct run left;

    if (run->attempt < 2 || !is_left(run, run->attempt - 1, &left))
        return;
    if (job_files_upload(root, &left, &options, &error)) {
        log_info("what attempt %u had no time to save is saved", run->attempt - 1);
        remove_dir(left.owner.work_dir);
    } else {
        log_warning("what attempt %u had no time to save cannot be saved now: it stays in %s: %s",
                    run->attempt - 1, left.owner.work_dir, error->message);
        forget_whose(&left); /* nobody but a person removes it */
    }
    g_free(left.owner.work_dir);
}

/* Whether the run that FIELDS name went on without what is in the directory, or is gone. */
static bool is_over(struct store *root, char **fields)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Run) run = run_store_load(root, fields[REPO], fields[RUN], &error);

    if (!run)
        return error_is(error, ENOENT);
    return strcmp(run->id, fields[ID]) != 0 || run->attempt > strtoul(fields[ATTEMPT], NULL, 10);
}

static void sweep_one(struct store *root, const char *root_is, const char *path)
{
    g_autofree char *kept = g_build_filename(path, "kept", NULL);
    g_autofree char *whose = g_build_filename(path, WHOSE, NULL), *text = NULL;
    g_auto(GStrv) fields = NULL;

    if (!g_file_test(kept, G_FILE_TEST_EXISTS) || !g_file_get_contents(whose, &text, NULL, NULL))
        return;
    fields = g_strsplit(text, "\n", FIELDS + 1);
    if (g_strv_length(fields) > ID && strcmp(fields[ROOT], root_is) == 0 && is_over(root, fields))
        remove_dir(path);
}

static void sweep(struct store *root, const struct run_root *where)
{
    g_autofree char *parent = dstack_home_path("work"), *root_is = root_name(where);
    g_autoptr(GDir) dir = g_dir_open(parent, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(parent, name, NULL);

        sweep_one(root, root_is, path);
    }
}

void left_over_settle(struct store *root, const struct run_root *where, const struct run *run,
                      const int *stop)
{
    note_whose(where, run);
    save_last(root, run, stop);
    sweep(root, where);
}

bool left_over_remove(const struct run *run, GError **error)
{
    struct run left;

    for (unsigned attempt = 1; attempt <= run->attempt; attempt++) {
        bool fine;

        if (!is_left(run, attempt, &left))
            continue;
        fine = tree_remove(left.owner.work_dir, error);
        g_free(left.owner.work_dir);
        if (!fine)
            return false;
    }
    return !work_dir_is_kept(run) || tree_remove(run->owner.work_dir, error);
}
