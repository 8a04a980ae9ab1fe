/* Beside a running job: shows that its runner lives, and sees a wish to stop.
 *
 * threads: one of its own, which talks to the store; the fields below are atomics, and fd becomes
 *          readable when one of them changed.
 */
#pragma once

#include "runner/run_store.h"
#include <pthread.h>

struct job_watch {
    int stop;  /* atomic: asked to stop, in whichever way (or by a signal to the runner) */
    int abort; /* atomic: asked to abort */
    int fd;    /* an eventfd, for poll */

    struct store *root;
    char *repo, *name;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ending;
};

bool job_watch_start(struct job_watch *watch, struct store *root, const struct run *run,
                     GError **error);
void job_watch_stop(struct job_watch *watch);

/* Looks now, instead of within a second. */
void job_watch_look(struct job_watch *watch);

/* What was asked for so far. */
enum stop_wish job_watch_wish(struct job_watch *watch);

/* Asked by other means than the store. */
void job_watch_ask(struct job_watch *watch, enum stop_wish wish);
