#include "storage/http_transfer.h"

#include <openssl/x509_vfy.h>
#include <string.h>

#define CONNECT_MS   5000
#define SLOW_BYTES_S 1024L /* slower than this for the stall limit counts as failed */
#define BUFFER_BYTES (256L * 1024)
#define MESSAGE_CAP  (64 * 1024) /* of a body that explains an error; the rest is dropped */
#define HEADERS_MAX  512

/* With the kernel's nine probes, a peer that is gone without a word is noticed after 55 s. */
#define KEEP_IDLE_S     10L
#define KEEP_INTERVAL_S 5L

bool http_transfer_is_success(const struct http_request *request)
{
    return request->status >= 200 && request->status < 300;
}

/* --- bytes --- */

/* Copies up to SIZE bytes between the place at POSITION of IOV and DATA; returns how many. */
static size_t pass(const struct iovec *iov, unsigned count, struct http_position *position,
                   char *data, size_t size, bool into_iov)
{
    size_t passed = 0;

    while (passed < size && position->index < count) {
        const struct iovec *here = &iov[position->index];
        size_t bytes = MIN(size - passed, here->iov_len - position->offset);
        char *place = (char *)here->iov_base + position->offset;

        if (bytes)
            memcpy(into_iov ? place : data + passed, into_iov ? data + passed : place, bytes);
        passed += bytes;
        position->offset += bytes;
        if (position->offset == here->iov_len)
            *position = (struct http_position){position->index + 1, 0};
    }
    return passed;
}

static size_t on_read(char *data, size_t size, size_t count, void *user)
{
    struct http_transfer *transfer = user;
    struct http_request *request = transfer->request;

    return pass(request->send_iov, request->send_count, &transfer->sent, data, size * count, false);
}

/* curl sends again from the start when a kept-alive connection turns out to be closed. */
static int on_seek(void *user, curl_off_t offset, int origin)
{
    struct http_transfer *transfer = user;

    if (origin != SEEK_SET || offset != 0)
        return CURL_SEEKFUNC_CANTSEEK;
    transfer->sent = (struct http_position){0};
    return CURL_SEEKFUNC_OK;
}

/* Called before each sending. curl by itself sends once more when a kept-alive connection was
 * closed without an answer; the server may have carried out the first one all the same. */
static int on_send(void *user, char *peer_ip, char *local_ip, int peer_port, int local_port)
{
    struct http_transfer *transfer = user;

    if (transfer->sendings++ > 0)
        transfer->request->maybe_landed = true;
    return CURL_PREREQFUNC_OK;
}

static size_t collect(struct http_transfer *transfer, const char *data, size_t size)
{
    struct http_request *request = transfer->request;
    bool success = http_transfer_is_success(request);
    size_t cap = success ? request->collect_cap : MESSAGE_CAP;
    size_t room = cap - MIN(request->body->len, cap);

    if (size > room && success) {
        transfer->overflow = g_strdup_printf("the answer is longer than %zu bytes", cap);
        return 0;
    }
    g_string_append_len(request->body, data, (gssize)MIN(size, room));
    return size;
}

static size_t on_write(char *data, size_t size, size_t count, void *user)
{
    struct http_transfer *transfer = user;
    struct http_request *request = transfer->request;
    size_t passed;

    size *= count;
    if (!request->receive_iov || !http_transfer_is_success(request))
        return collect(transfer, data, size);
    passed =
        pass(request->receive_iov, request->receive_count, &transfer->received, data, size, true);
    request->received_bytes += passed;
    if (passed < size && !transfer->overflow)
        transfer->overflow = g_strdup("the answer is longer than what was asked for");
    return passed;
}

static void start_answer(struct http_transfer *transfer, const char *line, size_t size)
{
    struct http_request *request = transfer->request;
    const char *space = memchr(line, ' ', size);

    g_hash_table_remove_all(request->headers);
    request->status = space ? (unsigned)g_ascii_strtoull(space, NULL, 10) : 0;
}

static size_t on_header(char *data, size_t size, size_t count, void *user)
{
    struct http_transfer *transfer = user;
    GHashTable *headers = transfer->request->headers;
    g_autofree char *line = NULL;
    char *colon;

    size *= count;
    line = g_strndup(data, size);
    if (g_str_has_prefix(line, "HTTP/")) {
        start_answer(transfer, line, strlen(line));
        return size;
    }
    colon = strchr(line, ':');
    if (colon && g_hash_table_size(headers) < HEADERS_MAX)
        g_hash_table_replace(headers, g_ascii_strdown(line, colon - line),
                             g_strdup(g_strstrip(colon + 1)));
    return size;
}

/* --- one try --- */

static void start_try(struct http_transfer *transfer)
{
    struct http_request *request = transfer->request;

    http_request_clear_answer(request);
    request->headers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    request->body = g_string_new(NULL);
    transfer->sent = transfer->received = (struct http_position){0};
    transfer->sendings = 0;
    transfer->curl_error[0] = '\0';
    g_clear_pointer(&transfer->overflow, g_free);
    g_clear_pointer(&transfer->headers, curl_slist_free_all);
}

static void make_headers(struct http_transfer *transfer)
{
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    struct curl_slist *list = NULL;

    /* curl's own additions that would cost a round trip or belong to no signature. */
    list = curl_slist_append(list, "Expect:");
    list = curl_slist_append(list, "Content-Type:");
    transfer->request->prepare(transfer->request, lines);
    for (guint i = 0; i < lines->len; i++) {
        char *line = lines->pdata[i];
        size_t length = strlen(line);

        /* "name:" would remove a header; curl sends an empty one when told "name;". */
        if (length && line[length - 1] == ':')
            line[length - 1] = ';';
        list = curl_slist_append(list, line);
    }
    transfer->headers = list;
}

static void set_limits(struct http_transfer *transfer, CURL *easy,
                       const struct http_options *options, unsigned timeout_ms)
{
    unsigned connect_ms = options->connect_ms ? options->connect_ms : CONNECT_MS;

    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)MAX(timeout_ms, 1));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    if (transfer->request->stall_ms) {
        curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES_S);
        curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME,
                         (long)MAX((transfer->request->stall_ms + 999) / 1000, 1));
    }
}

static void set_connection(const struct http_transfer *transfer, CURL *easy,
                           const struct http_options *options)
{
    /* On one that it kept, curl sends again by itself when it finds it closed. */
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT,
                     (long)(transfer->is_broken || transfer->request->once));
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEP_IDLE_S);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEP_INTERVAL_S);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (options->cacert)
        curl_easy_setopt(easy, CURLOPT_CAINFO, options->cacert);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
}

static void set_bodies(struct http_transfer *transfer, CURL *easy)
{
    struct http_request *request = transfer->request;

    if (request->has_body) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->send_bytes);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, transfer);
    }
    if (g_str_equal(request->method, "HEAD"))
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
}

bool http_transfer_setup(struct http_transfer *transfer, CURL *easy,
                         const struct http_options *options, unsigned timeout_ms)
{
    start_try(transfer);
    make_headers(transfer);
    set_connection(transfer, easy, options);
    set_limits(transfer, easy, options, timeout_ms);
    set_bodies(transfer, easy);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_send);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_error);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    transfer->easy = easy;
    return curl_easy_setopt(easy, CURLOPT_URL, transfer->request->url) == CURLE_OK;
}

/* What to do about a certificate that curl has refused. */
static const char *certificate_hint(CURL *easy)
{
    long result = X509_V_OK;

    curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &result);
    switch (result) {
    case X509_V_OK:
    case X509_V_ERR_UNSPECIFIED: /* what curl leaves there when the name is the only fault */
        return "; the endpoint's name must be one that the certificate is for";
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "; renew it, or set this machine's clock";
    default:
        return "; name its authority's certificate with --cacert FILE or AWS_CA_BUNDLE";
    }
}

/* curl and OpenSSL have no other sign of it than this text. */
bool http_transfer_is_without_tls(const struct http_transfer *transfer, CURLcode code)
{
    return code == CURLE_SSL_CONNECT_ERROR && strstr(transfer->curl_error, "wrong version number");
}

char *http_transfer_why(const struct http_transfer *transfer, CURLcode code)
{
    const char *why = transfer->overflow        ? transfer->overflow
                      : transfer->curl_error[0] ? transfer->curl_error
                                                : curl_easy_strerror(code);
    const char *hint = "";

    if (code == CURLE_PEER_FAILED_VERIFICATION)
        hint = certificate_hint(transfer->easy);
    else if (http_transfer_is_without_tls(transfer, code))
        hint = "; the server does not speak TLS: is the endpoint http://?";
    return g_strconcat(why, hint, NULL);
}
