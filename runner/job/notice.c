#include "runner/job/notice.h"
#include "config/log.h"
#include <string.h>
#include <time.h>

struct notices {
    const struct cloud *cloud;
    struct job_watch *watch;
    struct metadata metadata;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ending; /* guarded by lock */
};

static const struct cloud *const CLOUDS[] = {&cloud_aws, &cloud_gcp, &cloud_azure};

const struct cloud *cloud_find(void)
{
    const char *name = g_getenv("DSTACK_CLOUD");
    g_autofree char *vendor = NULL;

    if (!name)
        g_file_get_contents("/sys/class/dmi/id/sys_vendor", &vendor, NULL, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(CLOUDS); i++)
        if (name ? strcmp(name, CLOUDS[i]->name) == 0
                 : vendor && g_str_has_prefix(vendor, CLOUDS[i]->vendor))
            return CLOUDS[i];
    return NULL;
}

/* False when it is time to end. */
static bool pause_asking(struct notices *notices)
{
    int64_t until_us = g_get_monotonic_time() + (int64_t)notices->cloud->every_ms * 1000;
    struct timespec until = {until_us / G_USEC_PER_SEC, until_us % G_USEC_PER_SEC * 1000};
    int code = 0;
    bool on;

    pthread_mutex_lock(&notices->lock);
    while (!notices->ending && code == 0)
        code = pthread_cond_timedwait(&notices->changed, &notices->lock, &until);
    on = !notices->ending;
    pthread_mutex_unlock(&notices->lock);
    return on;
}

static void *run(void *user)
{
    struct notices *notices = user;
    bool complained = false;

    do {
        struct notice notice = {.left_ms = -1};
        g_autoptr(GError) error = NULL;
        g_autofree char *why = NULL;

        if (!notices->cloud->ask(&notices->metadata, &notice, &error)) {
            if (!complained)
                log_info("%s's notices of interruption: %s", notices->cloud->name, error->message);
            complained = true;
        } else if (notice.is_coming) {
            why = g_strdup_printf("%s takes the machine away", notices->cloud->name);
            job_watch_interrupt(notices->watch, notice.left_ms, why);
            break;
        }
    } while (pause_asking(notices));
    return NULL;
}

struct notices *notices_start(struct job_watch *watch)
{
    const struct cloud *cloud = cloud_find();
    const char *base = g_getenv("DSTACK_METADATA_URL");
    pthread_condattr_t monotonic;
    struct notices *notices;

    if (!cloud)
        return NULL;
    notices = g_new0(struct notices, 1);
    notices->cloud = cloud;
    notices->watch = watch;
    metadata_init(&notices->metadata, base ? base : cloud->base);
    pthread_mutex_init(&notices->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&notices->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&notices->thread, NULL, run, notices) == 0)
        return notices;
    log_warning("no thread to watch %s's notices of interruption", cloud->name);
    metadata_clear(&notices->metadata);
    g_free(notices);
    return NULL;
}

void notices_stop(struct notices *notices)
{
    if (!notices)
        return;
    pthread_mutex_lock(&notices->lock);
    notices->ending = true;
    pthread_cond_signal(&notices->changed);
    pthread_mutex_unlock(&notices->lock);
    metadata_cancel(&notices->metadata);
    pthread_join(notices->thread, NULL);
    metadata_clear(&notices->metadata);
    pthread_mutex_destroy(&notices->lock);
    pthread_cond_destroy(&notices->changed);
    g_free(notices);
}
