#include "runner/job/metadata.h"
#include "config/error.h"
#include <pthread.h>
#include <string.h>

enum { BODY_MAX = 1024 * 1024 };

struct question {
    struct http_request http; /* first: the engine's callbacks get this */
    struct metadata *metadata;
    const char *header;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done; /* guarded by lock */
};

void metadata_init(struct metadata *metadata, const char *base)
{
    const struct http_options options = {.threads = 1, .connect_ms = 2000};

    *metadata = (struct metadata){.base = g_strdup(base), .engine = http_engine_new(&options)};
}

void metadata_clear(struct metadata *metadata)
{
    http_engine_free(metadata->engine);
    g_free(metadata->base);
    g_free(metadata->token);
}

void metadata_cancel(struct metadata *metadata)
{
    __atomic_store_n(&metadata->cancelled, 1, __ATOMIC_RELEASE);
    http_engine_wake(metadata->engine);
}

static void prepare(struct http_request *request, GPtrArray *headers)
{
    const struct question *question = (struct question *)request;

    if (question->header)
        g_ptr_array_add(headers, g_strdup(question->header));
}

/* Whoever asks, asks again by himself. */
static enum http_verdict accept_any(struct http_request *request, enum http_verdict verdict,
                                    char **why)
{
    return HTTP_ACCEPT;
}

static bool is_cancelled(struct http_request *request)
{
    return __atomic_load_n(&((struct question *)request)->metadata->cancelled, __ATOMIC_ACQUIRE);
}

static void on_done(struct http_request *request)
{
    struct question *question = (struct question *)request;

    pthread_mutex_lock(&question->lock);
    question->done = true;
    pthread_cond_signal(&question->changed);
    pthread_mutex_unlock(&question->lock);
}

static void run(struct question *question)
{
    pthread_mutex_init(&question->lock, NULL);
    pthread_cond_init(&question->changed, NULL);
    http_engine_start(question->metadata->engine, &question->http);
    pthread_mutex_lock(&question->lock);
    while (!question->done)
        pthread_cond_wait(&question->changed, &question->lock);
    pthread_mutex_unlock(&question->lock);
    pthread_mutex_destroy(&question->lock);
    pthread_cond_destroy(&question->changed);
}

static void take_answer(const struct http_request *http, struct metadata_answer *answer)
{
    const char *date = http_header(http, "date");
    time_t now = date ? http_date(date) : -1;

    answer->status = http->status;
    answer->body = g_string_new_len(http->body ? http->body->str : "",
                                    http->body ? (gssize)http->body->len : 0);
    answer->etag = g_strdup(http_header(http, "etag"));
    answer->now_s = now >= 0 ? now : g_get_real_time() / G_USEC_PER_SEC;
}

bool metadata_ask(struct metadata *metadata, const char *method, const char *path,
                  const char *header, unsigned timeout_ms, struct metadata_answer *answer,
                  GError **error)
{
    struct question question = {.metadata = metadata, .header = header};

    *answer = (struct metadata_answer){0};
    question.http.method = method;
    question.http.url = g_strconcat(metadata->base, path, NULL);
    question.http.has_body = strcmp(method, "PUT") == 0;
    question.http.collect_cap = BODY_MAX;
    question.http.deadline_ms = timeout_ms;
    question.http.refused_ms = 1;
    question.http.prepare = prepare;
    question.http.judge = accept_any;
    question.http.is_cancelled = is_cancelled;
    question.http.done = on_done;
    run(&question);
    if (question.http.error)
        g_propagate_error(error, g_steal_pointer(&question.http.error));
    else
        take_answer(&question.http, answer);
    http_request_clear(&question.http);
    return answer->body != NULL;
}

void metadata_answer_clear(struct metadata_answer *answer)
{
    if (answer->body)
        g_string_free(answer->body, TRUE);
    g_free(answer->etag);
    *answer = (struct metadata_answer){0};
}
