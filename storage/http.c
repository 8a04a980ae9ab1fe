#include "storage/http.h"

#include "config/error.h"
#include "storage/http_retry.h"
#include "storage/http_transfer.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#define THREADS      2
#define THREADS_MAX  16
#define ACTIVE_MAX   32 /* requests on the wire, a thread */
#define URGENT_MAX   4  /* more, that are urgent */
#define IDLE_POLL_MS 1000
#define US_PER_MS    1000

/* One thread of the engine: it alone touches its curl handles. */
struct http_thread {
    struct http_engine *engine;
    pthread_t thread;
    CURLM *multi;
    GQueue urgent, waiting; /* transfers between tries, or not yet begun */
    GPtrArray *active;
    GPtrArray *idle; /* easy handles without a transfer */

    pthread_mutex_t lock;
    GQueue incoming; /* guarded by lock */
    bool stop;       /* guarded by lock */
};

struct http_engine {
    struct http_options options;
    char *cacert;
    unsigned count;
    struct http_thread threads[THREADS_MAX];
    atomic_uint next;

    pthread_mutex_t lock;
    bool started; /* guarded by lock */
};

/* --- the end of a request --- */

static void transfer_free(struct http_transfer *transfer)
{
    curl_slist_free_all(transfer->headers);
    g_free(transfer->overflow);
    g_free(transfer);
}

static void finish(struct http_transfer *transfer, GError *error)
{
    struct http_request *request = transfer->request;

    request->seconds = (double)(g_get_monotonic_time() - transfer->start_us) / G_USEC_PER_SEC;
    g_clear_error(&request->error);
    request->error = error;
    request->transfer = NULL;
    transfer_free(transfer);
    request->done(request);
}

static void fail(struct http_transfer *transfer, int code, const char *why)
{
    struct http_request *request = transfer->request;
    double seconds = (double)(g_get_monotonic_time() - transfer->start_us) / G_USEC_PER_SEC;
    GError *error = NULL;

    error_set(&error, code, "%s after %u %s in %.1f s", why, request->tries,
              request->tries == 1 ? "try" : "tries", seconds);
    finish(transfer, error);
}

/* --- tries --- */

static CURL *detach(struct http_thread *thread, struct http_transfer *transfer)
{
    CURL *easy = transfer->easy;

    curl_multi_remove_handle(thread->multi, easy);
    curl_easy_reset(easy);
    g_ptr_array_remove_fast(thread->active, transfer);
    g_ptr_array_add(thread->idle, easy);
    transfer->easy = NULL;
    return easy;
}

static void wait_in_line(struct http_thread *thread, struct http_transfer *transfer)
{
    g_queue_push_tail(transfer->request->is_urgent ? &thread->urgent : &thread->waiting, transfer);
}

/* When there is no time left for another try, false. */
static bool try_later(struct http_thread *thread, struct http_transfer *transfer)
{
    struct http_request *request = transfer->request;
    const char *retry_after = http_header(request, "retry-after");
    unsigned delay_ms = http_retry_delay_ms(request->tries, retry_after, g_random_double());
    int64_t deadline_us = transfer->deadline_us;

    if (transfer->unreached && request->refused_ms)
        deadline_us =
            MIN(deadline_us, transfer->start_us + (int64_t)request->refused_ms * US_PER_MS);
    transfer->due_us = g_get_monotonic_time() + (int64_t)delay_ms * US_PER_MS;
    if (transfer->due_us >= deadline_us)
        return false;
    wait_in_line(thread, transfer);
    return true;
}

static void end_failed_try(struct http_thread *thread, struct http_transfer *transfer,
                           CURLcode code)
{
    bool is_late = g_get_monotonic_time() >= transfer->deadline_us;
    /* CODE is of the last sending; curl may have sent before (on_send). */
    bool was_sent = transfer->sendings > 0 || !http_retry_is_unreached(code);
    g_autofree char *why = NULL;

    if (was_sent)
        transfer->unreached = false;
    transfer->is_broken = true;
    why = http_transfer_why(transfer, code);
    detach(thread, transfer);
    if (!http_retry_curl(code) || http_transfer_is_without_tls(transfer, code)) {
        fail(transfer, code == CURLE_URL_MALFORMAT ? EINVAL : EIO, why);
        return;
    }
    if (!is_late && !(transfer->request->once && was_sent) && try_later(thread, transfer)) {
        transfer->request->maybe_landed |= was_sent;
        return;
    }
    fail(transfer, transfer->unreached ? EHOSTUNREACH : ETIMEDOUT, why);
}

static void end_answered_try(struct http_thread *thread, struct http_transfer *transfer)
{
    struct http_request *request = transfer->request;
    enum http_verdict verdict = http_retry_status(request->status) ? HTTP_RETRY : HTTP_ACCEPT;
    g_autofree char *why = NULL;

    transfer->unreached = transfer->is_broken = false;
    detach(thread, transfer);
    if (request->judge)
        verdict = request->judge(request, verdict, &why);
    if (verdict == HTTP_RETRY) {
        if (!request->once && try_later(thread, transfer)) {
            request->maybe_landed = true;
            return;
        }
        request->out_of_time = true;
    }
    if (verdict == HTTP_RETRY && why)
        fail(transfer, EIO, why);
    else
        finish(transfer, NULL);
}

static void begin_try(struct http_thread *thread, struct http_transfer *transfer)
{
    int64_t left_us = transfer->deadline_us - g_get_monotonic_time();
    const struct http_options *options = &thread->engine->options;
    CURL *easy;

    if (left_us <= 0) {
        fail(transfer, ETIMEDOUT, "no time was left for a try");
        return;
    }
    easy = thread->idle->len ? g_ptr_array_steal_index_fast(thread->idle, thread->idle->len - 1)
                             : curl_easy_init();
    if (!easy) {
        fail(transfer, ENOMEM, "no memory for a connection");
        return;
    }
    transfer->request->tries++;
    g_ptr_array_add(thread->active, transfer);
    if (!http_transfer_setup(transfer, easy, options, (unsigned)(left_us / US_PER_MS)) ||
        curl_multi_add_handle(thread->multi, easy) != CURLM_OK)
        end_failed_try(thread, transfer, CURLE_URL_MALFORMAT);
}

/* --- a thread's round --- */

static bool take_incoming(struct http_thread *thread)
{
    struct http_transfer *transfer;
    bool stop;

    pthread_mutex_lock(&thread->lock);
    while ((transfer = g_queue_pop_head(&thread->incoming)))
        wait_in_line(thread, transfer);
    stop = thread->stop;
    pthread_mutex_unlock(&thread->lock);
    return stop;
}

static bool is_cancelled(const struct http_transfer *transfer)
{
    return transfer->request->is_cancelled && transfer->request->is_cancelled(transfer->request);
}

static void end_cancelled(struct http_thread *thread)
{
    for (guint i = thread->active->len; i-- > 0;) {
        struct http_transfer *transfer = thread->active->pdata[i];

        if (!is_cancelled(transfer))
            continue;
        detach(thread, transfer);
        fail(transfer, ECANCELED, "cancelled");
    }
}

/* Begins what is due in LINE while fewer than MOST are on the wire; returns how long nothing more
 * will be. */
static int begin_line(struct http_thread *thread, GQueue *line, guint most)
{
    int64_t now_us = g_get_monotonic_time(), next_us = now_us + IDLE_POLL_MS * US_PER_MS;

    for (guint left = g_queue_get_length(line); left > 0; left--) {
        struct http_transfer *transfer = g_queue_pop_head(line);

        if (is_cancelled(transfer)) {
            fail(transfer, ECANCELED, "cancelled");
        } else if (transfer->due_us <= now_us &&
                   (thread->active->len < most || transfer->deadline_us <= now_us)) {
            begin_try(thread, transfer); /* or ends it */
        } else {
            if (transfer->due_us > now_us)
                next_us = MIN(next_us, transfer->due_us);
            g_queue_push_tail(line, transfer);
        }
    }
    return (int)((next_us - now_us) / US_PER_MS) + 1;
}

static int begin_due(struct http_thread *thread)
{
    int urgent_ms = begin_line(thread, &thread->urgent, ACTIVE_MAX + URGENT_MAX);
    int waiting_ms = begin_line(thread, &thread->waiting, ACTIVE_MAX);

    return MIN(urgent_ms, waiting_ms);
}

static void end_answered(struct http_thread *thread)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(thread->multi, &left))) {
        struct http_transfer *transfer = NULL;
        CURLcode code = message->data.result;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
        if (code == CURLE_OK)
            end_answered_try(thread, transfer);
        else
            end_failed_try(thread, transfer, code);
    }
}

static void *thread_main(void *user)
{
    struct http_thread *thread = user;
    int running;

    while (!take_incoming(thread)) {
        int wait_ms;

        end_cancelled(thread);
        wait_ms = begin_due(thread);
        curl_multi_perform(thread->multi, &running);
        end_answered(thread);
        wait_ms = MIN(wait_ms, begin_due(thread));
        curl_multi_poll(thread->multi, NULL, 0, wait_ms, NULL);
    }
    return NULL;
}

/* --- the engine --- */

static void init_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

struct http_engine *http_engine_new(const struct http_options *options)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct http_engine *engine = g_new0(struct http_engine, 1);

    pthread_once(&once, init_curl);
    engine->options = *options;
    engine->cacert = g_strdup(options->cacert);
    engine->options.cacert = engine->cacert;
    engine->count = MIN(options->threads ? options->threads : THREADS, THREADS_MAX);
    pthread_mutex_init(&engine->lock, NULL);
    return engine;
}

static void free_easy(void *easy)
{
    curl_easy_cleanup(easy);
}

/* Signals are the program's own: one that was taken here would not interrupt its wait, and SIGPIPE,
 * which TLS causes where the server closed the connection, would end it. */
static bool thread_start(struct http_engine *engine, struct http_thread *thread)
{
    sigset_t all, old;
    int code;

    thread->engine = engine;
    g_queue_init(&thread->urgent);
    g_queue_init(&thread->waiting);
    g_queue_init(&thread->incoming);
    thread->active = g_ptr_array_new();
    thread->idle = g_ptr_array_new_with_free_func(free_easy);
    pthread_mutex_init(&thread->lock, NULL);
    thread->multi = curl_multi_init();
    curl_multi_setopt(thread->multi, CURLMOPT_MAXCONNECTS, (long)(ACTIVE_MAX + URGENT_MAX));
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    code = pthread_create(&thread->thread, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return code == 0;
}

static void thread_clear(struct http_thread *thread)
{
    g_ptr_array_unref(thread->idle);
    g_ptr_array_unref(thread->active);
    curl_multi_cleanup(thread->multi);
    pthread_mutex_destroy(&thread->lock);
}

/* Whether there is at least one thread. */
static bool ensure_started(struct http_engine *engine)
{
    bool started;

    pthread_mutex_lock(&engine->lock);
    if (!engine->started) {
        for (unsigned i = 0; i < engine->count; i++) {
            if (thread_start(engine, &engine->threads[i]))
                continue;
            thread_clear(&engine->threads[i]);
            engine->count = i;
        }
        engine->started = true;
    }
    started = engine->count > 0;
    pthread_mutex_unlock(&engine->lock);
    return started;
}

void http_engine_free(struct http_engine *engine)
{
    if (!engine)
        return;
    for (unsigned i = 0; engine->started && i < engine->count; i++) {
        struct http_thread *thread = &engine->threads[i];

        pthread_mutex_lock(&thread->lock);
        thread->stop = true;
        pthread_mutex_unlock(&thread->lock);
        curl_multi_wakeup(thread->multi);
        pthread_join(thread->thread, NULL);
        thread_clear(thread);
    }
    pthread_mutex_destroy(&engine->lock);
    g_free(engine->cacert);
    g_free(engine);
}

void http_engine_start(struct http_engine *engine, struct http_request *request)
{
    struct http_transfer *transfer = g_new0(struct http_transfer, 1);
    struct http_thread *thread;

    http_request_clear_answer(request);
    request->tries = 0;
    request->maybe_landed = false;
    request->transfer = transfer;
    transfer->request = request;
    transfer->start_us = transfer->due_us = g_get_monotonic_time();
    transfer->deadline_us = transfer->start_us + (int64_t)request->deadline_ms * US_PER_MS;
    transfer->unreached = true;
    if (!ensure_started(engine)) {
        fail(transfer, EAGAIN, "no thread for requests could be started");
        return;
    }
    thread = &engine->threads[atomic_fetch_add(&engine->next, 1) % engine->count];
    pthread_mutex_lock(&thread->lock);
    g_queue_push_tail(&thread->incoming, transfer);
    pthread_mutex_unlock(&thread->lock);
    curl_multi_wakeup(thread->multi);
}

void http_engine_wake(struct http_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    for (unsigned i = 0; engine->started && i < engine->count; i++)
        curl_multi_wakeup(engine->threads[i].multi);
    pthread_mutex_unlock(&engine->lock);
}

/* --- requests --- */

const char *http_header(const struct http_request *request, const char *name)
{
    return request->headers ? g_hash_table_lookup(request->headers, name) : NULL;
}

void http_request_clear_answer(struct http_request *request)
{
    g_clear_error(&request->error);
    g_clear_pointer(&request->headers, g_hash_table_unref);
    if (request->body)
        g_string_free(request->body, TRUE);
    request->body = NULL;
    request->status = 0;
    request->received_bytes = 0;
    request->out_of_time = false;
}

void http_request_clear(struct http_request *request)
{
    http_request_clear_answer(request);
    g_clear_pointer(&request->url, g_free);
}

time_t http_date(const char *text)
{
    return MAX(curl_getdate(text, NULL), -1);
}
