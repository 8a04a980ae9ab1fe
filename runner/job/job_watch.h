/* Beside a running job: shows that its runner lives, and sees why it should end: a wish in the
 * store, a signal of its engine, a cloud's notice, the end of another rank.
 *
 * threads: one that talks to the store, one that waits for SIGTERM and SIGINT; the atomics below
 * are read by any, and fd becomes readable when one of them changed.
 */
#pragma once

#include "runner/engine/engine.h"
#include "runner/job/ranks.h"
#include "runner/run/run_store.h"
#include <pthread.h>

struct job_watch {
    int stop;        /* atomic: asked to end, in whichever way */
    int over;        /* atomic: nothing more is to be saved: aborted, or out of time */
    int wish;        /* atomic: the strongest enum stop_wish so far */
    int asked;       /* atomic: a signal came, and the engine is asked what it means */
    int64_t seen_us; /* atomic: CLOCK_BOOTTIME when the run was last seen to be this attempt's */
    int fd;          /* an eventfd, for poll */

    struct store *root;
    const struct run *run; /* its spec and engine_job, which do not change */
    const struct engine *engine;
    struct ranks *ranks; /* NULL: the run has one node */
    char *repo, *name;
    unsigned attempt;
    int signals; /* a signalfd */
    int end_fd;  /* an eventfd: time for the threads to end */
    pthread_t thread, signal_thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* guarded by lock: */
    bool ending;
    int64_t until_us;     /* monotonic: when the machine goes; 0: no interruption */
    enum run_status ends; /* what a graceful end is: RUN_STOPPED or RUN_FAILED */
    char *why;            /* NULL: nothing to say */
};

bool job_watch_start(struct job_watch *watch, struct store *root, const struct run *run,
                     GError **error);
void job_watch_stop(struct job_watch *watch);

/* Looks now, instead of within a second. */
void job_watch_look(struct job_watch *watch);

/* Whether the run is this attempt's, as seen in the last FRESH_MS (0: now), for writes that would
 * harm a later one. ECANCELED: it never will be again; another error: that is not known now. A
 * machine that slept has seen nothing meanwhile. */
bool job_watch_confirm(struct job_watch *watch, unsigned fresh_ms, GError **error);

/* What was asked for so far. */
enum stop_wish job_watch_wish(struct job_watch *watch);

/* Asked by other means than the store. */
void job_watch_ask(struct job_watch *watch, enum stop_wish wish);

/* The commands have failed: an engine's signal may have gone to all processes of the job, and the
 * runner hear of it last. Waits until it is known what it means; UNSURE: a moment for it to come,
 * too. */
void job_watch_hear(struct job_watch *watch, bool unsure);

/* The machine goes in LEFT_MS (-1: soon). The first notice counts, unless a later one is more
 * urgent. */
void job_watch_interrupt(struct job_watch *watch, int64_t left_ms, const char *why);

/* The run's attempt is over, and this machine stays: there is time to save. Of several reasons the
 * first counts. */
void job_watch_end_attempt(struct job_watch *watch, const char *why);

/* Somebody wants it to stop, or its time is over: as ENDS, which is RUN_STOPPED or RUN_FAILED. */
void job_watch_end(struct job_watch *watch, enum run_status ends, const char *why);

/* Of the time until the machine goes: what is left, less a moment for the last word. -1: it
 * stays. */
int64_t job_watch_left_ms(struct job_watch *watch);

/* Why it ends, the caller's; *ENDS (may be NULL): as what, unless it is interrupted. */
char *job_watch_why(struct job_watch *watch, enum run_status *ends);
