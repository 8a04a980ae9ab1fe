/* An HTTP server on loopback that does what a test's function says, wrong things too.
 *
 * shape:   the function is called once for each request, when its head has been read, with the
 *          body still on the wire, and answers with the script_* functions below.
 * threads: one accepts, and one for each connection; so the function runs on the server's threads
 *          and must not assert. Counters may be read at any time.
 */
#pragma once

#include <glib.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

struct script_server;

struct script_exchange {
    unsigned number;     /* of the request, from 1 in the order of their arrival */
    unsigned connection; /* from 1 */
    const char *head;    /* the request's head as it came */
    char *method, *target;
    uint64_t body_bytes; /* announced */
    GString *body;       /* read so far */
    struct script_connection *private;
};

typedef void script_answerer(struct script_exchange *exchange, void *user);

/* CONTEXT (borrowed): speak TLS with it; NULL: plain. */
struct script_server *script_server_start(SSL_CTX *context, script_answerer *answer, void *user);
void script_server_stop(struct script_server *server); /* takes NULL */

unsigned script_server_port(const struct script_server *server);
unsigned script_server_connections(struct script_server *server);
unsigned script_server_requests(struct script_server *server);
/* A header's value in the NUMBER-th request, for the caller to free; NULL: it was not there. */
char *script_server_header(struct script_server *server, unsigned number, const char *name);
/* The first line of the NUMBER-th request. */
char *script_server_line(struct script_server *server, unsigned number);

/* --- for the function --- */

/* Reads at most LIMIT more bytes of the body. */
void script_read_body(struct script_exchange *exchange, uint64_t limit);
/* Reads the body's rest and answers. HEADERS: lines that each end in "\r\n", or NULL.
 * Content-Length is added. To HEAD only the head is sent. */
void script_answer(struct script_exchange *exchange, unsigned status, const char *headers,
                   const char *body);
void script_send(struct script_exchange *exchange, const void *data, size_t size);
void script_send_text(struct script_exchange *exchange, const char *text);
void script_wait(struct script_exchange *exchange, unsigned ms); /* ends early at the stop */
void script_close(struct script_exchange *exchange);             /* politely, after this answer */
void script_reset(struct script_exchange *exchange);             /* with a RST, at once */
/* From its return on nobody listens, for MS milliseconds; connections that are open go on. */
void script_leave(struct script_exchange *exchange, unsigned ms);
char *script_header(const struct script_exchange *exchange, const char *name);
