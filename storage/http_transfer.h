/* One try of one request on one curl easy handle: how the handle is set up, and how bytes and
 * headers go through it. Used by the HTTP engine alone, on its threads. */
#pragma once

#include "storage/http.h"

#include <curl/curl.h>

struct http_position {
    unsigned index;
    size_t offset;
};

struct http_transfer {
    struct http_request *request;
    CURL *easy; /* NULL between two tries */
    struct curl_slist *headers;
    struct http_position sent, received;
    unsigned sendings; /* of this try */
    int64_t start_us, deadline_us;
    int64_t due_us; /* of the next try */
    bool unreached; /* no try has reached a server */
    bool is_broken; /* the last try had no whole answer: kept connections may all be dead */
    char *overflow; /* why the answer was refused, or NULL */
    char curl_error[CURL_ERROR_SIZE];
};

/* Makes EASY, which is fresh or reset, ready for the next try. False: the request cannot be made.
 */
bool http_transfer_setup(struct http_transfer *transfer, CURL *easy,
                         const struct http_options *options, unsigned timeout_ms);

/* Why a try failed that ended with CODE, for a person. While the handle is still attached. */
char *http_transfer_why(const struct http_transfer *transfer, CURLcode code);

/* Whether it failed since the server does not speak TLS: it will not learn it. */
bool http_transfer_is_without_tls(const struct http_transfer *transfer, CURLcode code);

/* Whether the answer's status promises the body that was asked for, and not a message. */
bool http_transfer_is_success(const struct http_request *request);
