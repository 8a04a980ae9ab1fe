#include "runner/job/job.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/job/cache.h"
#include "runner/job/job_commands.h"
#include "runner/job/job_files.h"
#include "runner/job/left_over.h"
#include "runner/job/notice.h"
#include "runner/job/ranks.h"
#include "runner/job/read_ahead.h"
#include "runner/machine.h"
#include "runner/run/lost.h"
#include "runner/run/restart.h"
#include "runner/work_dir.h"
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

enum {
    SUBMITTED_MS = 60000, /* for the submitter to note what the engine called the job */
    LOOK_AGAIN_MS = 50,
    MOVE_FOR_S = 600, /* a store that is away must not make a finished job a lost one */
    MOVE_AGAIN_MS = 2000,
    LOGS_MS = 60000,
    SEEN_MS = BEAT_LOST_MS / 2, /* nobody calls the run lost so soon after that */
    MOUNTS_MIN_MS = 500,        /* to save, although the machine should be gone by now */
};

struct job {
    struct store *root;
    const struct run_root *where;
    struct run *run;
    struct job_watch watch;
    struct log_writer *log;
    struct mounts *mounts;
    struct read_ahead *ahead;
    GPtrArray *caches; /* that may be saved */
    struct launch launch;
    struct job_end end;
    int signals;
    int64_t step_us;         /* when the last step of an interruption was done */
    bool keep_work_dir;      /* it holds what could not be saved */
    bool is_interrupted;     /* the machine goes before all is done: it is to begin again */
    struct rank_end own_end; /* for rank 0, when all is settled */
    GError *taken; /* the document is no longer ours, or cannot be written: stop writing */
};

/* --- the document --- */

/* What people should know of an interruption: in the run's log, and in the runner's. */
static void say(struct job *job, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void say(struct job *job, const char *format, ...)
{
    g_autofree char *text = NULL, *line = NULL;
    va_list arguments;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    log_info("%s", text);
    line = g_strdup_printf("dstack: %s\n", text);
    if (job->log)
        log_writer_add(job->log, line, strlen(line));
}

static bool is_passing(const GError *error)
{
    return error_is(error, ETIMEDOUT) || error_is(error, EHOSTUNREACH) || error_is(error, EIO);
}

static bool is_taken(const GError *error)
{
    return error_is(error, ESTALE) || error_is(error, EPERM) || error_is(error, ENOENT);
}

static void fail(struct job *job, const GError *error)
{
    if (!job->end.reason)
        job->end.reason = g_strdup(error->message);
    log_error("%s", error->message);
}

/* A status on the way that cannot be noted (a full disk) fails the run; its last one may go again.
 */
static bool move(struct job *job, enum run_status to, const char *reason)
{
    int64_t until_us = g_get_monotonic_time() + (int64_t)MOVE_FOR_S * G_USEC_PER_SEC;

    if (job->run->rank) { /* the document is rank 0's; ours to remember alone */
        job->run->status = to;
        return true;
    }
    while (!job->taken) {
        g_autoptr(GError) error = NULL;

        if (run_store_move(job->root, job->run, to, reason, &error))
            return true;
        if (is_passing(error) && g_get_monotonic_time() <= until_us) {
            log_warning("%s; trying again", error->message);
            g_usleep(MOVE_AGAIN_MS * 1000);
            continue;
        }
        fail(job, error);
        if (is_taken(error) || run_status_is_final(to))
            job->taken = g_steal_pointer(&error);
        return false;
    }
    return false;
}

static struct run *wait_submitted(struct store *root, const char *repo, const char *name,
                                  GError **error)
{
    int64_t until_us = g_get_monotonic_time() + (int64_t)SUBMITTED_MS * 1000;

    for (;;) {
        g_autoptr(Run) run = run_store_load(root, repo, name, error);

        if (!run || run->status != RUN_PENDING)
            return g_steal_pointer(&run);
        if (g_get_monotonic_time() > until_us) {
            run_store_move(root, run, RUN_FAILED, "it was never submitted", NULL);
            error_set(error, ETIMEDOUT, "run %s was never submitted", name);
            return NULL;
        }
        g_usleep(LOOK_AGAIN_MS * 1000);
    }
}

/* The engine has started a job anew whose runner may have had no time to say so. */
static bool begin_again(struct job *job, GError **error)
{
    struct run *run = job->run;
    const struct run_fate gone = {.ends = RUN_INTERRUPTED,
                                  .reason = (char *)"its node went without a warning"};

    if (run->status != RUN_INTERRUPTED && !run_settle_lost(job->root, run, &gone, error))
        return false;
    return run->status != RUN_INTERRUPTED || /* it was to stop, or that was its last attempt */
           (run_begin_again(job->root, run, error) &&
            run_store_move(job->root, run, RUN_SUBMITTED, NULL, error));
}

static bool take(struct job *job, GError **error)
{
    struct run *run = job->run;
    const struct engine *engine = engine_of(run, error);
    g_autoptr(GError) bad = NULL;

    if (!engine)
        return false;
    if (run->status != RUN_SUBMITTED && !run_status_is_final(run->status) &&
        engine->is_restart(run) && !begin_again(job, error))
        return false;
    if (run->status != RUN_SUBMITTED)
        return error_set(error, EPERM, "run %s is %s: nothing to do", run->name,
                         run_status_name(run->status));
    if (!engine->is_ours(run))
        return error_set(error, EPERM, "run %s is that of job %s: nothing to do", run->name,
                         run->engine_job ? run->engine_job : "");
    run_own(run);
    if (run->started_ms == 0)
        run->started_ms = run_now_ms();
    if (work_dir_create(run, &bad)) {
        if (run_store_move(job->root, run, RUN_DOWNLOADING, NULL, error))
            return run->lifetime.nodes <= 1 || ranks_open(job->root, run, error);
        tree_remove(run->owner.work_dir, NULL); /* somebody stopped it just now */
        return false;
    }
    if (!run_store_move(job->root, run, RUN_FAILED, bad->message, error))
        return false;
    g_propagate_error(error, g_steal_pointer(&bad));
    return false;
}

/* --- the steps --- */

static void say_why(struct job *job)
{
    g_autofree char *why = job_watch_why(&job->watch, NULL);
    int64_t left_ms = job_watch_left_ms(&job->watch);

    job->step_us = g_get_monotonic_time();
    if (!why && job->watch.ranks) {
        struct rank_end end;

        ranks_verdict(job->watch.ranks, &end);
        why = rank_end_text(&end);
        rank_end_clear(&end);
    }
    if (left_ms >= 0)
        say(job, "%s: %.1f s are left to end and save", why, (double)left_ms / 1000);
    else
        say(job, "%s: it ends here, too", why ? why : "another rank has ended");
}

static void note_wish(enum stop_wish wish, void *user)
{
    struct job *job = user;
    enum run_status to = wish == STOP_ABORT ? RUN_ABORTING : RUN_STOPPING;

    if (wish == STOP_INTERRUPT) {
        say_why(job);
    } else if (job->run->status != to)
        move(job, to, NULL);
}

static bool may_write_log(void *user, GError **error)
{
    struct job *job = user;

    return job_watch_confirm(&job->watch, SEEN_MS, error);
}

static void say_waiting(const char *text, void *user)
{
    say(user, "a mount is %s", text);
}

static bool prepare(struct job *job, GError **error)
{
    const struct mounts_starter starter = {&job->watch.stop, say_waiting, job};
    const struct run *run = job->run;
    g_autofree char *place = log_place(run->name, run->rank);
    const struct log_options options = {run->owner.work_dir, may_write_log, job};

    job->log = log_writer_open(job->root, run->repo, place, &options, error);
    if (job->log && run->attempt > 1)
        say(job, "--- attempt %u, on %s ---", run->attempt, run->owner.host);
    left_over_settle(job->root, job->where, run, &job->watch.stop);
    if (!job->log || !launch_prepare(&job->launch, job->root, run, error) ||
        !job_files_fetch(job->root, run, &job->watch.stop, error))
        return false;
    job->caches = cache_fetch(job->root, run, &job->watch.stop, job->log);
    job->mounts = mounts_start(job->where, run, &starter, error);
    if (job->mounts)
        job->ahead = read_ahead_start(run);
    return job->mounts != NULL;
}

static void run_commands(struct job *job)
{
    g_autoptr(GError) error = NULL;

    if (!prepare(job, &error)) {
        job->end.wish = job_watch_wish(&job->watch);
        job->is_interrupted = job->end.wish == STOP_INTERRUPT;
        if (job->end.wish == STOP_NONE)
            fail(job, error);
        else
            note_wish(job->end.wish, job);
        return;
    }
    if (!move(job, RUN_RUNNING, NULL))
        return;
    if (!job_commands_run(&job->launch, &job->watch, job->log, job->mounts, job->signals, note_wish,
                          job, &job->end, &error))
        fail(job, error);
    job->is_interrupted = job->end.wish == STOP_INTERRUPT;
}

/* How long each step of an interruption took. */
static void say_step(struct job *job, const char *what)
{
    int64_t now_us = g_get_monotonic_time();

    int64_t left_ms = job_watch_left_ms(&job->watch);
    g_autofree char *left =
        left_ms < 0 ? NULL : g_strdup_printf("; %.1f s are left", (double)left_ms / 1000);

    if (job->is_interrupted)
        say(job, "%s, after %.2f s%s", what, (double)(now_us - job->step_us) / G_USEC_PER_SEC,
            left ? left : "");
    job->step_us = now_us;
}

/* Who saves it later: the next attempt, if it begins here too, or a person. */
static void keep_unsaved(struct job *job, const GError *unsaved)
{
    const struct run *run = job->run;
    bool goes_on = job->is_interrupted && run_may_restart(run, NULL);
    g_autoptr(GError) unkept = NULL;

    g_free(job->end.reason);
    job->end.reason =
        goes_on ? g_strdup_printf("%s; it is kept in %s for the next attempt", unsaved->message,
                                  run->owner.work_dir)
                : g_strdup_printf("%s; dstack push %s tries again, until then it is kept in %s",
                                  unsaved->message, run->name, run->owner.work_dir);
    log_error("%s", job->end.reason);
    job->keep_work_dir = true;
    if (!work_dir_keep(run, &unkept))
        log_error("%s", unkept->message);
}

/* Artifacts of both kinds, also when the run was called lost meanwhile: nobody else writes them,
 * but for a later attempt. What is mounted is saved even at an abort: it is in the store already.
 */
static void save(struct job *job, bool ran)
{
    g_autoptr(GError) unsaved = NULL;
    g_autoptr(GError) unmounted = NULL;
    int64_t left_ms = job_watch_left_ms(&job->watch);
    const struct mounts_starter starter = {&job->watch.stop, say_waiting, job};

    read_ahead_cancel(job->ahead);
    if (!mounts_stop(g_steal_pointer(&job->mounts), left_ms < 0 ? -1 : MAX(left_ms, MOUNTS_MIN_MS),
                     &starter, &unmounted))
        fail(job, unmounted);
    read_ahead_stop(g_steal_pointer(&job->ahead));
    say_step(job, "mounts are saved");
    if (!ran || job_watch_wish(&job->watch) == STOP_ABORT)
        return;
    if (job_watch_confirm(&job->watch, 0, &unsaved) &&
        job_files_save(job->root, job->run, &job->watch.over, &unsaved)) {
        say_step(job, "artifacts are saved");
        return;
    }
    if (job_watch_wish(&job->watch) == STOP_ABORT)
        return;
    if (job_watch_wish(&job->watch) == STOP_INTERRUPT)
        job->is_interrupted = true; /* the time was too short */
    keep_unsaved(job, unsaved);
}

/* Of commands that succeeded only: what others left might make the next run fail. */
static void save_cache(struct job *job)
{
    if (job->end.exit_code == 0 && !job->end.reason && job_watch_wish(&job->watch) == STOP_NONE)
        cache_save(job->root, job->run, job->caches, &job->watch.stop, job->log);
    g_clear_pointer(&job->caches, g_ptr_array_unref);
}

static void clean(struct job *job)
{
    g_autoptr(GError) error = NULL;

    mounts_detach(job->run->owner.work_dir);
    if (!job->keep_work_dir && !tree_remove(job->run->owner.work_dir, &error))
        log_warning("%s", error->message);
}

static void close_log(struct job *job)
{
    g_autofree char *keep = work_dir_output(job->run);
    g_autoptr(GError) error = NULL;

    if (job->log && !log_writer_close(g_steal_pointer(&job->log), LOGS_MS, keep, &error))
        fail(job, error);
}

/* What could not be saved or ended well counts less than that it begins again. */
static void conclude_interrupted(struct job *job)
{
    g_autofree char *why = job_watch_why(&job->watch, NULL), *why_not = NULL, *reason = NULL;
    g_autoptr(GError) error = NULL;

    reason = g_strdup_printf("%s%s%s", why, job->end.reason ? "; " : "",
                             job->end.reason ? job->end.reason : "");
    if (!run_may_restart(job->run, &why_not)) {
        g_autofree char *both = g_strdup_printf("%s, and %s", reason, why_not);

        move(job, RUN_FAILED, both);
        return;
    }
    run_disown(job->run);
    move(job, RUN_INTERRUPTED, reason);
}

/* Its engine, or somebody there, wanted it to end. */
static void conclude_stopped(struct job *job)
{
    enum run_status ends;
    g_autofree char *why = job_watch_why(&job->watch, &ends);

    move(job, ends, why);
}

/* The last move: by what was asked for, then by how it went. */
static void conclude(struct job *job)
{
    if (job_watch_wish(&job->watch) == STOP_ABORT) {
        note_wish(STOP_ABORT, job);
        move(job, RUN_ABORTED, NULL);
    } else if (job->is_interrupted && job_watch_wish(&job->watch) == STOP_INTERRUPT) {
        conclude_interrupted(job);
    } else if (job->end.reason) {
        move(job, RUN_FAILED, job->end.reason);
    } else if (job->run->status == RUN_STOPPING) {
        conclude_stopped(job);
    } else {
        move(job, RUN_DONE, NULL);
    }
}

static bool start_again(const struct run *run, GError **error)
{
    const struct engine *engine = engine_of(run, error);

    return engine && engine->start_again(run, error);
}

/* How this rank ended, for the others. */
static void own_end(struct job *job, struct rank_end *end)
{
    enum run_status ends;
    g_autofree char *why = job_watch_why(&job->watch, &ends);

    *end = (struct rank_end){.status = RUN_DONE, .rank = job->run->rank};
    if (job_watch_wish(&job->watch) == STOP_ABORT) {
        end->status = RUN_ABORTED;
    } else if (job->run->status == RUN_STOPPING) {
        end->status = ends;
        end->why = g_steal_pointer(&why);
    } else if (job->is_interrupted && why) {
        end->status = RUN_INTERRUPTED;
        end->why = g_steal_pointer(&why);
    } else if (job->end.reason) {
        end->status = RUN_FAILED;
        end->why = g_strdup(job->end.reason);
    } else if (job->is_interrupted) {
        ranks_verdict(job->watch.ranks, end);
    }
}

/* Rank 0: the run ends as badly as any of them. */
static void heed_ranks(struct job *job)
{
    const struct rank_end *own = &job->own_end;
    struct rank_end end;
    g_autofree char *why = NULL;

    ranks_verdict(job->watch.ranks, &end);
    why = rank_end_text(&end);
    if (own->status == RUN_ABORTED || job->run->status == RUN_STOPPING ||
        (own->status == RUN_INTERRUPTED && own->rank == 0) || end.status == RUN_DONE) {
        /* as it would alone */
    } else if (end.status == RUN_INTERRUPTED) {
        job_watch_end_attempt(&job->watch, why);
        job->is_interrupted = true;
    } else if (end.status == RUN_FAILED || own->status == RUN_FAILED) {
        job->is_interrupted = false;
        if (!job->end.reason)
            job->end.reason = g_steal_pointer(&why);
    } else {
        job->is_interrupted = false;
        job_watch_end(&job->watch, RUN_STOPPED, why);
    }
    if (end.status != RUN_DONE && job_watch_wish(&job->watch) == STOP_GRACEFUL)
        note_wish(STOP_GRACEFUL, job);
    rank_end_clear(&end);
}

static void tell_end(struct job *job)
{
    g_autoptr(GError) error = NULL;

    if (!ranks_tell_end(job->root, job->run, &job->own_end, &error))
        fail(job, error);
}

/* Rank 0 ends last; the others say how they ended, when all of theirs is saved. One that lives is
 * waited for, however long it saves. */
static void meet_ranks(struct job *job)
{
    struct ranks *ranks = job->watch.ranks;

    if (!ranks)
        return;
    own_end(job, &job->own_end);
    if (job->run->rank)
        return;
    if (job->own_end.status != RUN_DONE)
        tell_end(job);
    while (!ranks_have_ended(ranks) && !__atomic_load_n(&job->watch.over, __ATOMIC_ACQUIRE))
        g_usleep(LOOK_AGAIN_MS * 1000);
    if (!ranks_have_ended(ranks)) /* out of time */
        job->is_interrupted = true;
    heed_ranks(job);
}

/* For Slurm's books. */
static bool end_as_rank(const struct job *job, GError **error)
{
    if (job->run->lifetime.nodes <= 1 || !job->end.reason)
        return true;
    return error_set(error, EIO, "rank %u: %s", job->run->rank, job->end.reason);
}

static bool run_taken(struct job *job, GError **error)
{
    struct notices *notices;
    bool ran;

    if (!job_watch_start(&job->watch, job->root, job->run, error))
        return false;
    notices = notices_start(&job->watch);
    job->step_us = g_get_monotonic_time();
    run_commands(job);
    say_step(job, "the commands have ended");
    job_watch_look(&job->watch); /* an abort of the last second still means: save nothing */
    ran = job->run->status != RUN_DOWNLOADING && job->end.exit_code >= 0;
    job->run->exit_code = job->end.exit_code;
    if (job->run->status == RUN_RUNNING)
        move(job, RUN_UPLOADING, NULL);
    save(job, ran);
    save_cache(job);
    clean(job); /* before the log: it may need the room */
    meet_ranks(job);
    close_log(job);
    conclude(job);
    notices_stop(notices);
    job_watch_stop(&job->watch);
    launch_clear(&job->launch);
    if (job->run->rank) {
        tell_end(job);
        return end_as_rank(job, error);
    }
    if (!job->taken)
        run_store_remove_signs(job->root, job->run);
    if (!job->taken && job->run->status == RUN_INTERRUPTED)
        return start_again(job->run, error);
    return end_as_rank(job, error);
}

/* Another rank than 0 has nothing to take: rank 0 has the run. */
static bool join(struct job *job, struct run *run, GError **error)
{
    run->status = RUN_DOWNLOADING;
    job->run = run;
    return work_dir_create(run, error);
}

static bool run_rank(struct job *job, unsigned rank, const struct run *first, GError **error)
{
    g_autoptr(Run) run = ranks_join(job->root, first->repo, first->name, rank, error);

    job->run = run;
    if (!run)
        return false;
    if (!join(job, run, error)) {
        job->own_end = (struct rank_end){RUN_FAILED, rank, g_strdup((*error)->message)};
        tell_end(job);
        return false;
    }
    return run_taken(job, error);
}

bool job_run(struct store *root, const struct run_root *where, const char *repo, const char *name,
             int signals, GError **error)
{
    struct job job = {.root = root, .where = where, .signals = signals};
    g_autoptr(Run) run = wait_submitted(root, repo, name, error);
    bool fine;

    job.run = run;
    job.end.exit_code = -1;
    if (!run)
        return false;
    fine = ranks_own(run) ? run_rank(&job, ranks_own(run), run, error)
                          : take(&job, error) && run_taken(&job, error);
    g_free(job.end.reason);
    rank_end_clear(&job.own_end);
    if (job.taken) {
        g_propagate_error(error, job.taken);
        return false;
    }
    return fine;
}
