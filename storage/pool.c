#include "storage/pool.h"

#include "config/error.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

struct job {
    pool_job *run;
    void *data;
};

struct pool {
    atomic_uint refs; /* one of the owner's, one of each thread's */
    pthread_t *threads;
    unsigned thread_count;

    pthread_mutex_t lock;
    /* Guarded by lock: */
    pthread_cond_t changed;
    GQueue jobs;
    bool stopping;
};

static void pool_unref(struct pool *pool)
{
    if (atomic_fetch_sub(&pool->refs, 1) > 1)
        return;
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    g_free(pool->threads);
    g_free(pool);
}

static struct job *take_job(struct pool *pool)
{
    struct job *job;

    pthread_mutex_lock(&pool->lock);
    while (!(job = g_queue_pop_head(&pool->jobs)) && !pool->stopping)
        pthread_cond_wait(&pool->changed, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *run_thread(void *data)
{
    struct pool *pool = data;
    struct job *job;

    while ((job = take_job(pool))) {
        job->run(job->data);
        g_free(job);
    }
    pool_unref(pool);
    return NULL;
}

/* Signals belong to the program's own threads. */
static int start_thread(struct pool *pool, pthread_t *thread)
{
    sigset_t all, old;
    int code;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    atomic_fetch_add(&pool->refs, 1);
    code = pthread_create(thread, NULL, run_thread, pool);
    if (code)
        atomic_fetch_sub(&pool->refs, 1);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return code;
}

struct pool *pool_new(unsigned threads, GError **error)
{
    struct pool *pool = g_new0(struct pool, 1);
    int code = 0;

    atomic_init(&pool->refs, 1);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    g_queue_init(&pool->jobs);
    pool->threads = g_new0(pthread_t, threads);
    while (pool->thread_count < threads && !code) {
        code = start_thread(pool, &pool->threads[pool->thread_count]);
        if (!code)
            pool->thread_count++;
    }
    if (pool->thread_count)
        return pool;
    pool_unref(pool);
    error_set_errno(error, code ? code : EINVAL, "start a worker thread");
    return NULL;
}

void pool_add(struct pool *pool, pool_job *run, void *data)
{
    struct job *job = g_new(struct job, 1);

    *job = (struct job){.run = run, .data = data};
    pthread_mutex_lock(&pool->lock);
    g_queue_push_tail(&pool->jobs, job);
    pthread_cond_signal(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

void *pool_remove(struct pool *pool, pool_match *is_it, const void *user)
{
    void *data = NULL;

    pthread_mutex_lock(&pool->lock);
    for (GList *link = pool->jobs.head; link; link = link->next) {
        struct job *job = link->data;

        if (!is_it(job->data, user))
            continue;
        data = job->data;
        g_queue_delete_link(&pool->jobs, link);
        g_free(job);
        break;
    }
    pthread_mutex_unlock(&pool->lock);
    return data;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++) {
        if (pthread_equal(pool->threads[i], pthread_self()))
            pthread_detach(pool->threads[i]);
        else
            pthread_join(pool->threads[i], NULL);
    }
    pool_unref(pool);
}
