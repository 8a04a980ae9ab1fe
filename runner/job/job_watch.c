#include "runner/job/job_watch.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/run/lost.h"
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAR_MS = 500, HEAR_AGAIN_MS = 5 };
enum { LOOK_EVERY_MS = 1000, SOON_MS = 20000, LAST_WORD_MIN_MS = 300, LAST_WORD_MAX_MS = 3000 };

void job_watch_ask(struct job_watch *watch, enum stop_wish wish)
{
    int before = __atomic_load_n(&watch->wish, __ATOMIC_ACQUIRE);
    uint64_t one = 1;

    if (wish == STOP_NONE)
        return;
    while (before < (int)wish && !__atomic_compare_exchange_n(&watch->wish, &before, wish, false,
                                                              __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
    if (wish == STOP_ABORT)
        __atomic_store_n(&watch->over, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&watch->stop, 1, __ATOMIC_RELEASE);
    if (write(watch->fd, &one, sizeof one) != sizeof one)
        log_debug("the stop event is already pending");
}

enum stop_wish job_watch_wish(struct job_watch *watch)
{
    return __atomic_load_n(&watch->wish, __ATOMIC_ACQUIRE);
}

void job_watch_interrupt(struct job_watch *watch, int64_t left_ms, const char *why)
{
    int64_t until_us = g_get_monotonic_time() + (left_ms < 0 ? SOON_MS : left_ms) * 1000;

    pthread_mutex_lock(&watch->lock);
    if (!watch->until_us || until_us < watch->until_us) {
        watch->until_us = until_us;
        g_free(watch->why);
        watch->why = g_strdup(why);
    }
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    job_watch_ask(watch, STOP_INTERRUPT);
}

void job_watch_end_attempt(struct job_watch *watch, const char *why)
{
    pthread_mutex_lock(&watch->lock);
    if (!watch->why)
        watch->why = g_strdup(why);
    pthread_mutex_unlock(&watch->lock);
    job_watch_ask(watch, STOP_INTERRUPT);
}

void job_watch_end(struct job_watch *watch, enum run_status ends, const char *why)
{
    pthread_mutex_lock(&watch->lock);
    watch->ends = ends;
    g_free(watch->why);
    watch->why = g_strdup(why);
    pthread_mutex_unlock(&watch->lock);
    job_watch_ask(watch, STOP_GRACEFUL);
}

/* lock held */
static int64_t left_us(const struct job_watch *watch)
{
    int64_t left = watch->until_us - g_get_monotonic_time();

    return left - CLAMP(left / 10, LAST_WORD_MIN_MS * 1000, LAST_WORD_MAX_MS * 1000);
}

int64_t job_watch_left_ms(struct job_watch *watch)
{
    int64_t left = -1;

    pthread_mutex_lock(&watch->lock);
    if (watch->until_us)
        left = MAX(left_us(watch) / 1000, 0);
    pthread_mutex_unlock(&watch->lock);
    return left;
}

char *job_watch_why(struct job_watch *watch, enum run_status *ends)
{
    char *why;

    pthread_mutex_lock(&watch->lock);
    why = g_strdup(watch->why);
    if (ends)
        *ends = watch->ends;
    pthread_mutex_unlock(&watch->lock);
    return why;
}

/* --- the store --- */

static int64_t boot_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now); /* goes on while the machine sleeps */
    return (int64_t)now.tv_sec * G_USEC_PER_SEC + now.tv_nsec / 1000;
}

/* A machine that was away, and whose job was started anew elsewhere: the run is no longer ours. */
bool job_watch_confirm(struct job_watch *watch, unsigned fresh_ms, GError **error)
{
    int64_t begin_us = boot_us();
    g_autoptr(Run) run = NULL;

    if (begin_us - __atomic_load_n(&watch->seen_us, __ATOMIC_ACQUIRE) < fresh_ms * INT64_C(1000))
        return true;
    run = run_store_load(watch->root, watch->repo, watch->name, error);
    if (!run)
        return false;
    if (run->attempt > watch->attempt) {
        error_set(error, ECANCELED, "run %s goes on elsewhere, as attempt %u: this one ends",
                  watch->name, run->attempt);
        job_watch_ask(watch, STOP_ABORT);
        return false;
    }
    __atomic_store_n(&watch->seen_us, begin_us, __ATOMIC_RELEASE);
    return true;
}

static void beat(struct job_watch *watch)
{
    g_autofree char *key = g_strdup_printf("runs/%s/%s.beat", watch->repo, watch->name);
    g_autoptr(GError) error = NULL;

    if (job_watch_confirm(watch, 0, &error) &&
        (watch->run->rank || store_write(watch->root, key, "", 0, NULL, NULL, &error)) &&
        watch->ranks)
        ranks_beat(watch->ranks, &error);
    if (error)
        log_warning("%s", error->message);
}

/* What becomes of the run is known when all ranks have ended: see ranks_verdict. */
static void look_at_ranks(struct job_watch *watch)
{
    g_autoptr(GError) error = NULL;
    bool is_bad;

    if (!ranks_look(watch->ranks, g_get_monotonic_time(), &is_bad, &error))
        log_warning("%s", error->message);
    else if (is_bad)
        job_watch_ask(watch, STOP_INTERRUPT);
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
    struct timespec until;
    bool on;

    pthread_mutex_lock(&watch->lock);
    if (watch->until_us && !__atomic_load_n(&watch->over, __ATOMIC_ACQUIRE) &&
        left_us(watch) < LOOK_EVERY_MS * 1000)
        until_us = g_get_monotonic_time() + MAX(left_us(watch), 0);
    until.tv_sec = until_us / G_USEC_PER_SEC;
    until.tv_nsec = until_us % G_USEC_PER_SEC * 1000;
    if (!watch->ending)
        pthread_cond_timedwait(&watch->changed, &watch->lock, &until);
    if (watch->until_us && left_us(watch) <= 0)
        __atomic_store_n(&watch->over, 1, __ATOMIC_RELEASE);
    on = !watch->ending;
    pthread_mutex_unlock(&watch->lock);
    return on;
}

static void *run_watch(void *user)
{
    struct job_watch *watch = user;
    int64_t now_us = g_get_monotonic_time(), beat_us = 0, look_us = 0;

    do {
        now_us = g_get_monotonic_time();
        if (now_us >= beat_us) {
            beat(watch);
            beat_us = now_us + (int64_t)BEAT_EVERY_MS * 1000;
        }
        if (now_us >= look_us) {
            job_watch_look(watch);
            if (watch->ranks)
                look_at_ranks(watch);
            look_us = now_us + (int64_t)LOOK_EVERY_MS * 1000 / 2;
        }
    } while (pause_looking(watch));
    return NULL;
}

/* --- signals --- */

static void heed_signal(struct job_watch *watch)
{
    struct engine_signal signal = {0};

    __atomic_store_n(&watch->asked, 1, __ATOMIC_RELEASE);
    watch->engine->explain_signal(watch->run, &signal);
    if (signal.is_interruption) {
        job_watch_interrupt(watch, signal.left_ms, signal.why);
    } else {
        job_watch_end(watch, signal.ends, signal.why);
    }
    g_free(signal.why);
    __atomic_store_n(&watch->asked, 0, __ATOMIC_RELEASE);
}

void job_watch_hear(struct job_watch *watch, bool unsure)
{
    int64_t until_us = g_get_monotonic_time() + (unsure ? HEAR_MS * 1000 : 0);

    while (job_watch_wish(watch) == STOP_NONE &&
           (__atomic_load_n(&watch->asked, __ATOMIC_ACQUIRE) || g_get_monotonic_time() < until_us))
        g_usleep(HEAR_AGAIN_MS * 1000);
}

static void *run_signals(void *user)
{
    struct job_watch *watch = user;
    struct pollfd fds[] = {{watch->signals, POLLIN, 0}, {watch->end_fd, POLLIN, 0}};
    struct signalfd_siginfo info;

    while (!fds[1].revents)
        if (poll(fds, G_N_ELEMENTS(fds), -1) > 0 &&
            read(watch->signals, &info, sizeof info) == sizeof info)
            heed_signal(watch);
    return NULL;
}

static int open_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* --- */

static void tell_end(struct job_watch *watch)
{
    uint64_t one = 1;

    pthread_mutex_lock(&watch->lock);
    watch->ending = true;
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    if (write(watch->end_fd, &one, sizeof one) != sizeof one)
        log_debug("the end is already told");
}

static bool start_threads(struct job_watch *watch, GError **error)
{
    int code = pthread_create(&watch->thread, NULL, run_watch, watch);

    if (code)
        return error_set_errno(error, code, "start a thread");
    code = pthread_create(&watch->signal_thread, NULL, run_signals, watch);
    if (code == 0)
        return true;
    tell_end(watch);
    pthread_join(watch->thread, NULL);
    return error_set_errno(error, code, "start a thread");
}

bool job_watch_start(struct job_watch *watch, struct store *root, const struct run *run,
                     GError **error)
{
    pthread_condattr_t monotonic;

    *watch =
        (struct job_watch){.root = root, .run = run, .attempt = run->attempt, .ends = RUN_STOPPED};
    watch->seen_us = boot_us(); /* it was just taken */
    watch->engine = engine_of(run, error);
    if (!watch->engine)
        return false;
    watch->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    watch->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    watch->signals = open_signals();
    if (watch->fd < 0 || watch->end_fd < 0 || watch->signals < 0)
        return error_set_errno(error, errno, "make an eventfd");
    watch->ranks = ranks_new(root, run);
    watch->repo = g_strdup(run->repo);
    watch->name = g_strdup(run->name);
    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return start_threads(watch, error);
}

void job_watch_stop(struct job_watch *watch)
{
    tell_end(watch);
    pthread_join(watch->thread, NULL);
    pthread_join(watch->signal_thread, NULL);
    pthread_mutex_destroy(&watch->lock);
    pthread_cond_destroy(&watch->changed);
    close(watch->fd);
    close(watch->end_fd);
    close(watch->signals);
    ranks_free(watch->ranks);
    g_free(watch->repo);
    g_free(watch->name);
    g_free(watch->why);
}
