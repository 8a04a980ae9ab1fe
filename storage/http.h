/* The HTTP engine: a few threads, each with one curl multi handle, that run many requests at once.
 *
 * shape:   bodies are read straight from and written straight into the caller's memory; error and
 *          XML bodies are collected up to a cap. Redirects are not followed. Failed tries are
 *          repeated (http_retry.h) without holding a thread, each with fresh headers, until the
 *          deadline.
 * units:   milliseconds, bytes.
 * errors:  request->error when no HTTP answer was had; else status and body are the last answer's.
 * owns:    the request stays the caller's; the engine does not touch it once `done` is called.
 * threads: any may start and wake. prepare, judge and done run on the engine's threads and must not
 *          block; done may start requests, the same one again too. The threads are started by the
 *          first request, so that a process may fork before.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

struct http_engine;

struct http_options {
    const char *cacert;  /* NULL: the system's */
    unsigned threads;    /* 0: 2 */
    unsigned connect_ms; /* 0: 5000 */
};

/* What to do with an answer. */
enum http_verdict { HTTP_ACCEPT, HTTP_RETRY };

struct http_request {
    /* The request. */
    const char *method;
    char *url;
    const struct iovec *send_iov; /* NULL: no body */
    unsigned send_count;
    uint64_t send_bytes;
    bool has_body;                   /* send Content-Length even when it is zero */
    const struct iovec *receive_iov; /* where a 2xx body goes; NULL: it is collected */
    unsigned receive_count;
    size_t collect_cap;   /* of a collected 2xx body */
    unsigned deadline_ms; /* retries included */
    unsigned stall_ms;    /* without a byte in either direction; 0: no limit */
    unsigned refused_ms;  /* give up this soon when nobody listens; 0: only at the deadline */
    bool is_urgent;       /* goes before others; a few of them even when the wire is full */
    bool once;            /* what may have been carried out is not sent again */

    /* Adds the headers of one try ("name: value"). */
    void (*prepare)(struct http_request *request, GPtrArray *headers);
    /* May refuse an answer that the status alone would accept or retry; NULL: by the status.
     * A refusal's reason goes into *WHY. */
    enum http_verdict (*judge)(struct http_request *request, enum http_verdict verdict, char **why);
    bool (*is_cancelled)(struct http_request *request);
    void (*done)(struct http_request *request);

    /* The answer. */
    GError *error; /* ECANCELED, ETIMEDOUT, EHOSTUNREACH, EIO, EINVAL */
    unsigned status;
    GHashTable *headers; /* lower-case name -> value */
    GString *body;       /* collected */
    uint64_t received_bytes;
    unsigned tries;
    double seconds;
    bool out_of_time;  /* the answer is one that would have been retried */
    bool maybe_landed; /* an earlier sending may have been carried out by the server */

    struct http_transfer *transfer; /* the engine's own, while under way */
};

struct http_engine *http_engine_new(const struct http_options *options);

/* With no request in flight. Takes NULL. */
void http_engine_free(struct http_engine *engine);

void http_engine_start(struct http_engine *engine, struct http_request *request);

/* Look at is_cancelled of every request again. */
void http_engine_wake(struct http_engine *engine);

/* The value of a header of the answer, or NULL. NAME in lower case. */
const char *http_header(const struct http_request *request, const char *name);

/* Seconds since 1970 of a date as HTTP writes it (RFC 9110, 5.6.7); -1: not a date, or before. */
time_t http_date(const char *text);

/* Frees what the request owns, not the request; it can be used anew afterwards. */
void http_request_clear_answer(struct http_request *request);
void http_request_clear(struct http_request *request);
