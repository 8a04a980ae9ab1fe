#include "tests/support/script_server.h"

#include "config/autofd.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define HEAD_MAX      65536
#define POLL_MS       20
#define TLS_HANDSHAKE 22 /* a TLS client's first byte */

struct script_server {
    script_answerer *answer;
    void *user;
    SSL_CTX *context;
    fd_t listener;
    unsigned port;
    pthread_t thread;

    pthread_mutex_t lock;
    bool stop;              /* guarded by lock, like what follows */
    unsigned away_ms;       /* nobody is to listen for so long */
    GPtrArray *connections; /* struct script_connection */
    GPtrArray *heads;       /* char*, one a request */
};

struct script_connection {
    struct script_server *server;
    pthread_t thread;
    unsigned number;
    fd_t fd;
    SSL *ssl;
    bool is_over;
};

static bool is_stopped(struct script_server *server)
{
    bool stop;

    pthread_mutex_lock(&server->lock);
    stop = server->stop;
    pthread_mutex_unlock(&server->lock);
    return stop;
}

/* --- bytes --- */

/* Waits until there is something to read; false at the server's stop. */
static bool wait_readable(struct script_connection *connection)
{
    struct pollfd item = {connection->fd, POLLIN, 0};

    if (connection->ssl && SSL_pending(connection->ssl))
        return true;
    while (!is_stopped(connection->server))
        if (poll(&item, 1, POLL_MS) > 0)
            return true;
    return false;
}

static ssize_t receive(struct script_connection *connection, void *data, size_t size)
{
    if (!wait_readable(connection))
        return 0;
    return connection->ssl ? SSL_read(connection->ssl, data, (int)size)
                           : recv(connection->fd, data, size, 0);
}

void script_send(struct script_exchange *exchange, const void *data, size_t size)
{
    struct script_connection *connection = exchange->private;

    while (size && !connection->is_over) {
        ssize_t count = connection->ssl ? SSL_write(connection->ssl, data, (int)size)
                                        : send(connection->fd, data, size, MSG_NOSIGNAL);

        if (count <= 0) {
            connection->is_over = true;
            return;
        }
        data = (const char *)data + count;
        size -= (size_t)count;
    }
}

void script_send_text(struct script_exchange *exchange, const char *text)
{
    script_send(exchange, text, strlen(text));
}

void script_read_body(struct script_exchange *exchange, uint64_t limit)
{
    char buffer[65536];

    while (limit && exchange->body->len < exchange->body_bytes && !exchange->private->is_over) {
        uint64_t left = MIN(limit, exchange->body_bytes - exchange->body->len);
        ssize_t count = receive(exchange->private, buffer, MIN(left, sizeof(buffer)));

        if (count <= 0) {
            exchange->private->is_over = true;
            return;
        }
        g_string_append_len(exchange->body, buffer, count);
        limit -= (uint64_t)count;
    }
}

void script_answer(struct script_exchange *exchange, unsigned status, const char *headers,
                   const char *body)
{
    g_autofree char *head = g_strdup_printf("HTTP/1.1 %u Scripted\r\nContent-Length: %zu\r\n%s\r\n",
                                            status, strlen(body), headers ? headers : "");

    script_read_body(exchange, UINT64_MAX);
    script_send_text(exchange, head);
    if (!g_str_equal(exchange->method, "HEAD"))
        script_send_text(exchange, body);
}

void script_wait(struct script_exchange *exchange, unsigned ms)
{
    int64_t until_us = g_get_monotonic_time() + (int64_t)ms * 1000;

    while (g_get_monotonic_time() < until_us && !is_stopped(exchange->private->server))
        g_usleep(5000);
}

void script_close(struct script_exchange *exchange)
{
    exchange->private->is_over = true;
}

void script_reset(struct script_exchange *exchange)
{
    struct linger linger = {1, 0};

    setsockopt(exchange->private->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    exchange->private->is_over = true;
}

static unsigned away_ms(struct script_server *server)
{
    unsigned ms;

    pthread_mutex_lock(&server->lock);
    ms = server->away_ms;
    pthread_mutex_unlock(&server->lock);
    return ms;
}

void script_leave(struct script_exchange *exchange, unsigned ms)
{
    struct script_server *server = exchange->private->server;

    pthread_mutex_lock(&server->lock);
    server->away_ms = ms;
    pthread_mutex_unlock(&server->lock);
    while (away_ms(server))
        g_usleep(1000);
}

/* --- heads --- */

static char *header_of(const char *head, const char *name)
{
    g_auto(GStrv) lines = g_strsplit(head, "\r\n", -1);
    size_t length = strlen(name);

    for (char **line = lines; *line; line++)
        if (g_ascii_strncasecmp(*line, name, length) == 0 && (*line)[length] == ':')
            return g_strdup(g_strstrip(*line + length + 1));
    return NULL;
}

char *script_header(const struct script_exchange *exchange, const char *name)
{
    return header_of(exchange->head, name);
}

/* A byte at a time: what follows the head is the function's to read. A plain server that is greeted
 * with TLS answers that it does not understand, as real ones do. */
static char *read_head(struct script_connection *connection)
{
    static const char what[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    g_autoptr(GString) head = g_string_new(NULL);
    char byte;

    while (head->len < HEAD_MAX && receive(connection, &byte, 1) == 1) {
        if (byte == TLS_HANDSHAKE && !connection->ssl && !head->len) {
            send(connection->fd, what, strlen(what), MSG_NOSIGNAL);
            return NULL;
        }
        g_string_append_c(head, byte);
        if (g_str_has_suffix(head->str, "\r\n\r\n"))
            return g_strdup(head->str);
    }
    return NULL;
}

static bool serve_one(struct script_connection *connection)
{
    struct script_server *server = connection->server;
    struct script_exchange exchange = {.connection = connection->number, .private = connection};
    g_autofree char *head = read_head(connection);
    g_autofree char *length = head ? header_of(head, "content-length") : NULL;
    g_auto(GStrv) words = head ? g_strsplit_set(head, " \r", 3) : NULL;

    if (!head || g_strv_length(words) != 3)
        return false;
    exchange.head = head;
    exchange.method = words[0];
    exchange.target = words[1];
    exchange.body_bytes = length ? g_ascii_strtoull(length, NULL, 10) : 0;
    exchange.body = g_string_new(NULL);
    pthread_mutex_lock(&server->lock);
    g_ptr_array_add(server->heads, g_strdup(head));
    exchange.number = server->heads->len;
    pthread_mutex_unlock(&server->lock);
    server->answer(&exchange, server->user);
    g_string_free(exchange.body, TRUE);
    return !connection->is_over;
}

/* --- threads --- */

static bool greet(struct script_connection *connection)
{
    if (!connection->server->context)
        return true;
    connection->ssl = SSL_new(connection->server->context);
    SSL_set_fd(connection->ssl, connection->fd);
    return wait_readable(connection) && SSL_accept(connection->ssl) == 1;
}

static void *serve(void *user)
{
    struct script_connection *connection = user;

    if (greet(connection))
        while (serve_one(connection))
            ;
    SSL_free(connection->ssl);
    fd_close(&connection->fd);
    return NULL;
}

static void accept_one(struct script_server *server, int fd)
{
    struct script_connection *connection = g_new0(struct script_connection, 1);
    struct timeval timeout = {5, 0};

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    connection->server = server;
    connection->fd = fd;
    pthread_mutex_lock(&server->lock);
    g_ptr_array_add(server->connections, connection);
    connection->number = server->connections->len;
    g_assert(pthread_create(&connection->thread, NULL, serve, connection) == 0);
    pthread_mutex_unlock(&server->lock);
}

/* On PORT, or one that is free. */
static void start_listening(struct script_server *server, unsigned port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int on = 1;

    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    g_assert(bind(server->listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
             listen(server->listener, 64) == 0 &&
             getsockname(server->listener, (struct sockaddr *)&address, &size) == 0);
    server->port = ntohs(address.sin_port);
}

static void be_away(struct script_server *server)
{
    unsigned ms = away_ms(server);

    fd_close(&server->listener);
    pthread_mutex_lock(&server->lock);
    server->away_ms = 0;
    pthread_mutex_unlock(&server->lock);
    g_usleep(ms * 1000);
    start_listening(server, server->port);
}

static void *accept_all(void *user)
{
    struct script_server *server = user;

    while (!is_stopped(server)) {
        struct pollfd item = {server->listener, POLLIN, 0};
        int fd = poll(&item, 1, POLL_MS) > 0 ? accept(server->listener, NULL, NULL) : -1;

        if (fd >= 0)
            accept_one(server, fd);
        if (away_ms(server))
            be_away(server);
    }
    return NULL;
}

struct script_server *script_server_start(SSL_CTX *context, script_answerer *answer, void *user)
{
    struct script_server *server = g_new0(struct script_server, 1);

    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes to sockets that were closed */
    server->context = context;
    server->answer = answer;
    server->user = user;
    server->connections = g_ptr_array_new_with_free_func(g_free);
    server->heads = g_ptr_array_new_with_free_func(g_free);
    pthread_mutex_init(&server->lock, NULL);
    start_listening(server, 0);
    g_assert(pthread_create(&server->thread, NULL, accept_all, server) == 0);
    return server;
}

void script_server_stop(struct script_server *server)
{
    if (!server)
        return;
    pthread_mutex_lock(&server->lock);
    server->stop = true;
    pthread_mutex_unlock(&server->lock);
    pthread_join(server->thread, NULL);
    for (guint i = 0; i < server->connections->len; i++)
        pthread_join(((struct script_connection *)server->connections->pdata[i])->thread, NULL);
    fd_close(&server->listener);
    g_ptr_array_unref(server->connections);
    g_ptr_array_unref(server->heads);
    pthread_mutex_destroy(&server->lock);
    g_free(server);
}

unsigned script_server_port(const struct script_server *server)
{
    return server->port;
}

unsigned script_server_connections(struct script_server *server)
{
    unsigned count;

    pthread_mutex_lock(&server->lock);
    count = server->connections->len;
    pthread_mutex_unlock(&server->lock);
    return count;
}

unsigned script_server_requests(struct script_server *server)
{
    unsigned count;

    pthread_mutex_lock(&server->lock);
    count = server->heads->len;
    pthread_mutex_unlock(&server->lock);
    return count;
}

static char *head_of(struct script_server *server, unsigned number)
{
    char *head = NULL;

    pthread_mutex_lock(&server->lock);
    if (number >= 1 && number <= server->heads->len)
        head = g_strdup(server->heads->pdata[number - 1]);
    pthread_mutex_unlock(&server->lock);
    return head;
}

char *script_server_header(struct script_server *server, unsigned number, const char *name)
{
    g_autofree char *head = head_of(server, number);

    return head ? header_of(head, name) : NULL;
}

char *script_server_line(struct script_server *server, unsigned number)
{
    g_autofree char *head = head_of(server, number);

    return head ? g_strndup(head, strcspn(head, "\r")) : NULL;
}
