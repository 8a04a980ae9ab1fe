#include "runner/job_watch.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/lost.h"
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_EVERY_MS = 1000 };

void job_watch_ask(struct job_watch *watch, enum stop_wish wish)
{
    uint64_t one = 1;

    if (wish == STOP_NONE)
        return;
    if (wish == STOP_ABORT)
        __atomic_store_n(&watch->abort, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&watch->stop, 1, __ATOMIC_RELEASE);
    if (write(watch->fd, &one, sizeof one) != sizeof one)
        log_debug("the stop event is already pending");
}

enum stop_wish job_watch_wish(struct job_watch *watch)
{
    if (__atomic_load_n(&watch->abort, __ATOMIC_ACQUIRE))
        return STOP_ABORT;
    return __atomic_load_n(&watch->stop, __ATOMIC_ACQUIRE) ? STOP_GRACEFUL : STOP_NONE;
}

static void beat(struct job_watch *watch)
{
    g_autofree char *key = g_strdup_printf("runs/%s/%s.beat", watch->repo, watch->name);
    g_autoptr(GError) error = NULL;

    if (!store_write(watch->root, key, "", 0, NULL, NULL, &error))
        log_warning("%s", error->message);
}

void job_watch_look(struct job_watch *watch)
{
    g_autoptr(GError) error = NULL;
    enum stop_wish wish;

    if (!run_store_stop_wish(watch->root, watch->repo, watch->name, &wish, &error))
        log_warning("%s", error->message);
    else if (wish > job_watch_wish(watch))
        job_watch_ask(watch, wish);
}

/* False when it is time to end. */
static bool pause_looking(struct job_watch *watch)
{
    int64_t until_us = g_get_monotonic_time() + LOOK_EVERY_MS * 1000;
    struct timespec until = {until_us / G_USEC_PER_SEC, until_us % G_USEC_PER_SEC * 1000};
    int code = 0;
    bool on;

    pthread_mutex_lock(&watch->lock);
    while (!watch->ending && code == 0)
        code = pthread_cond_timedwait(&watch->changed, &watch->lock, &until);
    on = !watch->ending;
    pthread_mutex_unlock(&watch->lock);
    return on;
}

static void *run_watch(void *user)
{
    struct job_watch *watch = user;
    int64_t beat_us = 0;

    do {
        if (g_get_monotonic_time() >= beat_us) {
            beat(watch);
            beat_us = g_get_monotonic_time() + (int64_t)BEAT_EVERY_MS * 1000;
        }
        job_watch_look(watch);
    } while (pause_looking(watch));
    return NULL;
}

bool job_watch_start(struct job_watch *watch, struct store *root, const struct run *run,
                     GError **error)
{
    pthread_condattr_t monotonic;
    int code;

    *watch = (struct job_watch){.root = root};
    watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->fd < 0)
        return error_set_errno(error, errno, "make an eventfd");
    watch->repo = g_strdup(run->repo);
    watch->name = g_strdup(run->name);
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    code = pthread_create(&watch->thread, NULL, run_watch, watch);
    return code == 0 || error_set_errno(error, code, "start a thread");
}

void job_watch_stop(struct job_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->ending = true;
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    pthread_join(watch->thread, NULL);
    pthread_mutex_destroy(&watch->lock);
    pthread_cond_destroy(&watch->changed);
    close(watch->fd);
    g_free(watch->repo);
    g_free(watch->name);
}
