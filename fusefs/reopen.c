#include "fusefs/reopen.h"

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>

#define EXPECTED_MAX 64 /* at a time; more are told, but not waited for */

struct expected {
    pid_t task;
    uint64_t ino; /* what it waits for; 0: it was told */
    int64_t until_us;
};

struct reopens {
    pthread_mutex_t lock;
    struct expected expected[EXPECTED_MAX];
    atomic_uint count; /* read without the lock: almost always there is nobody */
};

struct reopens *reopens_new(void)
{
    struct reopens *reopens = g_new0(struct reopens, 1);

    pthread_mutex_init(&reopens->lock, NULL);
    return reopens;
}

void reopens_free(struct reopens *reopens)
{
    pthread_mutex_destroy(&reopens->lock);
    g_free(reopens);
}

static void drop(struct reopens *reopens, unsigned i)
{
    reopens->expected[i] = reopens->expected[--reopens->count];
}

static struct expected *find(struct reopens *reopens, pid_t task)
{
    for (unsigned i = 0; i < reopens->count; i++)
        if (reopens->expected[i].task == task)
            return &reopens->expected[i];
    return NULL;
}

static void add(struct reopens *reopens, pid_t task, uint64_t ino)
{
    if (reopens->count < EXPECTED_MAX)
        reopens->expected[reopens->count++] =
            (struct expected){task, ino, g_get_monotonic_time() + REOPEN_MS * 1000};
}

static void tell(struct expected *expected)
{
    expected->ino = 0;
    expected->until_us = g_get_monotonic_time() + REOPEN_MS * 1000;
}

void reopens_wait(struct reopens *reopens, pid_t task, uint64_t ino)
{
    pthread_mutex_lock(&reopens->lock);
    if (!find(reopens, task))
        add(reopens, task, ino);
    pthread_mutex_unlock(&reopens->lock);
}

void reopens_tell(struct reopens *reopens, uint64_t ino)
{
    if (!reopens->count)
        return;
    pthread_mutex_lock(&reopens->lock);
    for (unsigned i = 0; i < reopens->count; i++)
        if (reopens->expected[i].ino == ino)
            tell(&reopens->expected[i]);
    pthread_mutex_unlock(&reopens->lock);
}

/* False: nothing is known of it. */
static bool drop_task(struct reopens *reopens, pid_t task)
{
    const struct expected *known = find(reopens, task);

    if (known)
        drop(reopens, (unsigned)(known - reopens->expected));
    return known;
}

void reopens_add(struct reopens *reopens, pid_t task)
{
    pthread_mutex_lock(&reopens->lock);
    if (!drop_task(reopens, task))
        add(reopens, task, 0);
    pthread_mutex_unlock(&reopens->lock);
}

void reopens_end(struct reopens *reopens, pid_t task)
{
    if (!reopens->count)
        return;
    pthread_mutex_lock(&reopens->lock);
    drop_task(reopens, task);
    pthread_mutex_unlock(&reopens->lock);
}

static void drop_overdue(struct reopens *reopens)
{
    int64_t now_us = g_get_monotonic_time();

    for (unsigned i = reopens->count; i-- > 0;)
        if (!reopens->expected[i].ino && reopens->expected[i].until_us <= now_us)
            drop(reopens, i);
}

/* Whether somebody was told: TASK, or, where it is NULL, anybody. */
static bool is_told(struct reopens *reopens, const pid_t *task)
{
    bool is = false;

    if (!reopens->count)
        return false;
    pthread_mutex_lock(&reopens->lock);
    drop_overdue(reopens);
    for (unsigned i = 0; i < reopens->count; i++) {
        const struct expected *expected = &reopens->expected[i];

        is = is || (!expected->ino && (!task || expected->task == *task));
    }
    pthread_mutex_unlock(&reopens->lock);
    return is;
}

bool reopens_expect_task(struct reopens *reopens, pid_t task)
{
    return is_told(reopens, &task);
}

bool reopens_expect_any(struct reopens *reopens)
{
    return is_told(reopens, NULL);
}
