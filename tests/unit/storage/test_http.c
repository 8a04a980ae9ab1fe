/* The HTTP engine against servers that fail in every way a script can make them. */
#include "config/error.h"
#include "storage/http_retry.h"
#include "tests/support/script_store.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_BYTES (300 * 1000)

static struct script_server *server;
static struct store *store;
static char body[BODY_BYTES], buffer[BODY_BYTES];

static void start(script_answerer *answer, const struct store_options *options)
{
    for (unsigned i = 0; i < BODY_BYTES; i++)
        body[i] = (char)(i * 31 >> 3);
    server = script_server_start(NULL, answer, NULL);
    store = script_store_open(server, options);
}

static void teardown(void)
{
    store_unref(store);
    script_server_stop(server);
}

TestSuite(http, .fini = teardown, .timeout = 20);

static int64_t now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

static const char *text_of(const GError *error)
{
    return error ? error->message : "no error";
}

static void put_succeeds(void)
{
    g_autoptr(GError) error = NULL;

    cr_assert(store_write(store, "k", body, BODY_BYTES, NULL, NULL, &error), "%s", text_of(error));
}

static void get_succeeds(void)
{
    g_autoptr(StoreCall) call = store_call_get("k", 0, buffer, BODY_BYTES);
    g_autoptr(GError) error = NULL;

    cr_assert(store_run(store, call, &error), "%s", text_of(error));
    cr_assert_eq(call->received_bytes, BODY_BYTES);
    cr_assert(memcmp(body, buffer, BODY_BYTES) == 0);
}

static void head_fails(int code, const char *part)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_HEAD, "k");
    g_autoptr(GError) error = script_store_failure(store, call);

    cr_assert(error_is(error, code), "%s", text_of(error));
    cr_assert(strstr(error->message, part), "%s", error->message);
}

static void ok(struct script_exchange *exchange)
{
    script_answer(exchange, 200, "ETag: \"e\"\r\n", "");
}

/* An answer to get_succeeds; its body may be cut. */
static void send_range(struct script_exchange *exchange, uint64_t size)
{
    script_send_text(exchange, "HTTP/1.1 206 Partial\r\nETag: \"e\"\r\nContent-Length: 300000\r\n"
                               "Content-Range: bytes 0-299999/300000\r\n\r\n");
    script_send(exchange, body, size);
}

/* --- connections that break --- */

Test(http, nobody_listens)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0); /* bound, and not listening: refused for sure */
    g_autofree char *endpoint = NULL;
    struct store_options options = {.deadline_ms = 600};
    int64_t start_ms = now_ms();

    cr_assert(bind(fd, (struct sockaddr *)&address, size) == 0 &&
              getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    endpoint = g_strdup_printf("http://127.0.0.1:%u", ntohs(address.sin_port));
    options.endpoint = endpoint;
    store = script_store_open(NULL, &options);
    head_fails(EHOSTUNREACH, "look up k: ");
    cr_assert(now_ms() - start_ms < 900);
    close(fd);
}

/* --- names --- */

static atomic_uint lookups_to_fail;

/* Instead of libc's, for libcurl too: "store.test" is this machine, once nothing is to fail. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **result)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(
            RTLD_NEXT, "getaddrinfo");

    if (!node || strcmp(node, "store.test") != 0)
        return real(node, service, hints, result);
    if (atomic_load(&lookups_to_fail) == 0)
        return real("127.0.0.1", service, hints, result);
    atomic_fetch_sub(&lookups_to_fail, 1);
    return EAI_AGAIN;
}

static void always_ok(struct script_exchange *exchange, void *user)
{
    ok(exchange);
}

static void start_by_name(unsigned deadline_ms)
{
    g_autofree char *endpoint = NULL;
    struct store_options options = {.deadline_ms = deadline_ms};

    server = script_server_start(NULL, always_ok, NULL);
    endpoint = g_strdup_printf("http://store.test:%u", script_server_port(server));
    options.endpoint = endpoint;
    store = script_store_open(NULL, &options);
}

Test(http, a_name_that_is_gone_for_a_while)
{
    struct store_object object = {0};
    g_autoptr(GError) error = NULL;

    atomic_store(&lookups_to_fail, 3);
    start_by_name(10000);
    cr_assert(store_head(store, "k", &object, &error), "%s", text_of(error));
    cr_assert_eq(atomic_load(&lookups_to_fail), 0);
    store_object_clear(&object);
}

Test(http, a_name_that_stays_gone)
{
    int64_t start_ms = now_ms();

    atomic_store(&lookups_to_fail, UINT_MAX);
    start_by_name(600);
    head_fails(EHOSTUNREACH, "store.test");
    cr_assert(now_ms() - start_ms < 900);
}

static void reset_in_request(struct script_exchange *exchange, void *user)
{
    if (exchange->number == 1) {
        script_read_body(exchange, 70000);
        script_reset(exchange);
        return;
    }
    script_read_body(exchange, UINT64_MAX);
    if (exchange->body->len == BODY_BYTES && !memcmp(exchange->body->str, body, BODY_BYTES))
        ok(exchange);
    else
        script_answer(exchange, 400, NULL, "");
}

Test(http, reset_while_the_body_goes_out)
{
    start(reset_in_request, NULL);
    put_succeeds();
    cr_assert_eq(script_server_requests(server), 2);
}

static void reset_in_answer(struct script_exchange *exchange, void *user)
{
    send_range(exchange, exchange->number == 1 ? 70000 : BODY_BYTES);
    if (exchange->number == 1)
        script_reset(exchange);
}

Test(http, reset_while_the_body_comes_in)
{
    start(reset_in_answer, NULL);
    get_succeeds();
    cr_assert_eq(script_server_requests(server), 2);
}

static void cut_short(struct script_exchange *exchange, void *user)
{
    send_range(exchange, exchange->number == 1 ? BODY_BYTES - 1 : BODY_BYTES);
    if (exchange->number == 1)
        script_close(exchange);
}

Test(http, a_body_that_is_cut_short)
{
    start(cut_short, NULL);
    get_succeeds();
    cr_assert_eq(script_server_requests(server), 2);
}

/* Each head is wrong in a way of its own; the last one is right. */
static void wrong_lengths(struct script_exchange *exchange, void *user)
{
    static const char *const heads[] = {
        "HTTP/1.1 206 P\r\nContent-Length: 10\r\nContent-Range: bytes 0-299999/300000\r\n\r\n",
        "HTTP/1.1 206 P\r\nContent-Length: 300000\r\nContent-Range: bytes 1-300000/300001\r\n\r\n",
        "HTTP/1.1 206 P\r\nContent-Length: 300000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    };

    if (exchange->number > G_N_ELEMENTS(heads)) {
        send_range(exchange, BODY_BYTES);
        return;
    }
    script_send_text(exchange, heads[exchange->number - 1]);
    script_send(exchange, body, exchange->number == 4 ? 10 : BODY_BYTES);
    script_close(exchange);
}

Test(http, lengths_and_ranges_that_are_wrong)
{
    start(wrong_lengths, NULL);
    /* The fourth is no failure that can be seen: an object of ten bytes, sent at once. */
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(StoreCall) call = store_call_get("k", 0, buffer, BODY_BYTES);
        g_autoptr(GError) error = NULL;

        cr_assert(store_run(store, call, &error), "%s", text_of(error));
        cr_assert_eq(call->received_bytes, i == 0 ? 10 : BODY_BYTES);
        cr_assert_eq(script_server_requests(server), i == 0 ? 4 : 6);
    }
}

static void too_long(struct script_exchange *exchange, void *user)
{
    script_send_text(exchange, "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 300001\r\n\r\n");
    script_send(exchange, body, BODY_BYTES);
    script_send(exchange, "x", 1);
}

Test(http, more_than_the_buffer_holds_is_refused)
{
    g_autoptr(StoreCall) call = store_call_get("k", 0, buffer, BODY_BYTES);
    g_autoptr(GError) error = NULL;

    start(too_long, NULL);
    error = script_store_failure(store, call);
    cr_assert(error_is(error, EIO) && strstr(error->message, "longer"), "%s", text_of(error));
    cr_assert_eq(script_server_requests(server), 1);
}

/* --- answers worth another try --- */

static void busy_once(struct script_exchange *exchange, void *user)
{
    static const unsigned statuses[] = {500, 503, 429, 408, 502, 504};

    if (exchange->number > G_N_ELEMENTS(statuses))
        ok(exchange);
    else
        script_answer(exchange, statuses[exchange->number - 1], NULL, "");
}

Test(http, passing_statuses_are_tried_again)
{
    start(busy_once, NULL);
    put_succeeds();
    cr_assert_eq(script_server_requests(server), 7);
}

static void retry_after(struct script_exchange *exchange, void *user)
{
    if (exchange->number == 1)
        script_answer(exchange, 503, "Retry-After: 1\r\n", "");
    else
        ok(exchange);
}

Test(http, retry_after_is_waited_for)
{
    int64_t start_ms = now_ms();

    start(retry_after, NULL);
    put_succeeds();
    cr_assert(now_ms() - start_ms >= 1000);
    cr_assert_eq(script_server_connections(server), 1);
}

static void forbidden(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 403, NULL,
                  "<Error><Code>AccessDenied</Code><Message>no</Message></Error>");
}

Test(http, other_statuses_are_not)
{
    g_autoptr(GError) error = NULL;

    start(forbidden, NULL);
    cr_assert_not(store_write(store, "k", "x", 1, NULL, NULL, &error));
    cr_assert(error_is(error, EACCES), "%s", text_of(error));
    cr_assert_eq(script_server_requests(server), 1);
}

static void slow_down(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 503, NULL,
                  "<Error><Code>SlowDown</Code><Message>less, please</Message></Error>");
}

Test(http, a_message_names_key_status_tries_and_time)
{
    struct store_options options = {.deadline_ms = 700};
    g_autoptr(GError) error = NULL;
    g_autofree char *tries = NULL;
    int64_t start_ms = now_ms();

    start(slow_down, &options);
    cr_assert_not(store_write(store, "a key", "x", 1, NULL, NULL, &error));
    cr_assert(error_is(error, ETIMEDOUT), "%s", text_of(error));
    tries = g_strdup_printf("after %u tries in 0.", script_server_requests(server));
    cr_assert(g_str_has_prefix(error->message, "write a key: HTTP 503 SlowDown: less, please"),
              "%s", error->message);
    cr_assert(strstr(error->message, tries), "%s", error->message);
    cr_assert(now_ms() - start_ms < 1000);
    cr_assert_null(strstr(error->message, SCRIPT_SECRET));
}

Test(http, the_wait_grows_within_bounds)
{
    unsigned most = 100;

    for (unsigned tries = 1; tries < 100; tries++) {
        cr_assert_eq(http_retry_delay_ms(tries, NULL, 0), most / 2);
        cr_assert_leq(http_retry_delay_ms(tries, NULL, 0.999999), most);
        most = MIN(most * 2, 5000);
    }
    cr_assert_eq(http_retry_delay_ms(1, "3", 0), 3000);
    cr_assert_eq(http_retry_delay_ms(1, "99999999", 0), 60000);
    cr_assert_eq(http_retry_delay_ms(1, "-5", 0), 50);
    cr_assert_eq(http_retry_delay_ms(1, "Wed, 21 Oct 2015 07:28:00 GMT", 0), 50);
}

/* --- servers that do not get on --- */

static void stall_once(struct script_exchange *exchange, void *user)
{
    if (exchange->number == 1)
        script_wait(exchange, 10000);
    else
        send_range(exchange, BODY_BYTES);
}

Test(http, a_stall_is_a_failed_try)
{
    struct store_options options = {.stall_ms = 1000};
    int64_t start_ms = now_ms();

    start(stall_once, &options);
    get_succeeds();
    cr_assert(now_ms() - start_ms >= 900 && now_ms() - start_ms < 4000);
}

static void drip_once(struct script_exchange *exchange, void *user)
{
    if (exchange->number > 1) {
        send_range(exchange, BODY_BYTES);
        return;
    }
    send_range(exchange, 0);
    for (unsigned i = 0; i < 10; i++) {
        script_send(exchange, body + i, 1);
        script_wait(exchange, 1000);
    }
}

Test(http, a_byte_a_second_is_a_failed_try)
{
    struct store_options options = {.stall_ms = 2000};
    int64_t start_ms = now_ms();

    start(drip_once, &options);
    get_succeeds();
    cr_assert(now_ms() - start_ms < 6000, "%ld ms", (long)(now_ms() - start_ms));
    cr_assert_eq(script_server_requests(server), 2);
}

static void never(struct script_exchange *exchange, void *user)
{
    script_wait(exchange, 10000);
}

Test(http, the_deadline_holds)
{
    struct store_options options = {.deadline_ms = 500};
    int64_t start_ms = now_ms();

    start(never, &options);
    head_fails(ETIMEDOUT, "look up k: ");
    cr_assert(now_ms() - start_ms >= 450 && now_ms() - start_ms < 900);
}

static void much_later(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 503, "Retry-After: 30\r\n", "");
}

/* On the wire, and between two tries. */
Test(http, cancelled_soon_after_asking)
{
    script_answerer *const answers[] = {never, much_later};

    for (unsigned i = 0; i < G_N_ELEMENTS(answers); i++) {
        g_autoptr(StoreCall) call = store_call_new(STORE_HEAD, "k");
        int64_t asked_ms;

        start(answers[i], NULL);
        store_start(store, call, NULL, NULL);
        g_usleep(100 * 1000);
        asked_ms = now_ms();
        store_cancel(store, call);
        store_wait(call);
        cr_assert(now_ms() - asked_ms < 200);
        cr_assert(error_is(call->error, ECANCELED), "%s", text_of(call->error));
        teardown();
        store = NULL;
        server = NULL;
    }
}

/* --- redirects --- */

static struct script_server *elsewhere;

static void redirect(struct script_exchange *exchange, void *user)
{
    static const unsigned statuses[] = {301, 302, 307, 308};
    g_autofree char *header =
        g_strdup_printf("Location: http://127.0.0.1:%u/tests/k\r\n", script_server_port(elsewhere));

    script_answer(exchange, statuses[(exchange->number - 1) % 4], header, "");
}

static void answer_ok(struct script_exchange *exchange, void *user)
{
    ok(exchange);
}

Test(http, redirects_are_not_followed)
{
    elsewhere = script_server_start(NULL, answer_ok, NULL);
    start(redirect, NULL);
    for (unsigned i = 0; i < 4; i++) {
        g_autoptr(GError) error = NULL;

        cr_assert_not(store_write(store, "k", "x", 1, NULL, NULL, &error));
        cr_assert(error_is(error, EINVAL), "%s", text_of(error));
    }
    cr_assert_eq(script_server_requests(server), 4);
    cr_assert_eq(script_server_connections(elsewhere), 0);
    script_server_stop(elsewhere);
}

/* --- connections --- */

Test(http, connections_are_kept)
{
    struct store_options options = {.threads = 1};

    start(answer_ok, &options);
    for (unsigned i = 0; i < 20; i++)
        put_succeeds();
    cr_assert_eq(script_server_requests(server), 20);
    cr_assert_eq(script_server_connections(server), 1);
}

static void answer_and_close(struct script_exchange *exchange, void *user)
{
    ok(exchange);
    script_close(exchange);
}

Test(http, a_kept_connection_that_was_closed)
{
    struct store_options options = {.threads = 1};

    start(answer_and_close, &options);
    for (unsigned i = 0; i < 5; i++) {
        put_succeeds();
        g_usleep(20 * 1000);
    }
    cr_assert_eq(script_server_connections(server), 5);
}

static void count_down(struct store_call *call, void *user)
{
    if (call->error)
        g_atomic_int_add((int *)user, 1000);
    g_atomic_int_add((int *)user, -1);
}

Test(http, many_at_once)
{
    int left = 500;

    start(answer_ok, NULL);
    for (unsigned i = 0; i < 500; i++) {
        g_autoptr(StoreCall) call = store_call_put("k", body, 1000);

        store_start(store, call, count_down, &left);
    }
    store_unref(store); /* waits */
    store = NULL;
    cr_assert_eq(g_atomic_int_get(&left), 0);
    cr_assert_eq(script_server_requests(server), 500);
    cr_assert_leq(script_server_connections(server), 64);
}

#define KEPT 3

/* Answers once there are so many connections; what comes on them later gets no answer any more, as
 * behind a NAT that has forgotten them. */
static void forget_connections(struct script_exchange *exchange, void *user)
{
    if (exchange->number > KEPT && exchange->connection <= KEPT) {
        script_wait(exchange, 10000);
        script_close(exchange);
        return;
    }
    while (script_server_connections(server) < KEPT)
        script_wait(exchange, 5);
    ok(exchange);
}

Test(http, one_dead_connection_is_enough)
{
    struct store_options options = {.threads = 1, .stall_ms = 1000};
    g_autoptr(GError) error = NULL;
    struct store_call *calls[KEPT];
    bool has;

    start(forget_connections, &options);
    for (unsigned i = 0; i < KEPT; i++) {
        calls[i] = store_call_new(STORE_HEAD, "k");
        store_start(store, calls[i], NULL, NULL);
    }
    for (unsigned i = 0; i < KEPT; i++) {
        store_wait(calls[i]);
        store_call_unref(calls[i]);
    }
    cr_assert(store_has(store, "k", &has, &error), "%s", text_of(error));
    cr_assert_eq(script_server_requests(server), KEPT + 2);
    cr_assert_eq(script_server_connections(server), KEPT + 1);
}

static int tcp_option(int fd, int name)
{
    int value = 0;
    socklen_t size = sizeof(value);

    return getsockopt(fd, IPPROTO_TCP, name, &value, &size) == 0 ? value : 0;
}

static bool is_kept_alive(int fd)
{
    int value = 0;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size) == 0 && value;
}

/* A copy may take minutes without a byte: only the kernel can tell it from a peer that is gone. */
Test(http, a_peer_that_is_gone_is_noticed_within_a_minute)
{
    unsigned found = 0;

    start(answer_ok, NULL);
    put_succeeds();
    for (int fd = 0; fd < 256; fd++) {
        if (!is_kept_alive(fd))
            continue;
        found++;
        cr_assert_leq(tcp_option(fd, TCP_KEEPIDLE) +
                          tcp_option(fd, TCP_KEEPINTVL) * tcp_option(fd, TCP_KEEPCNT),
                      60);
    }
    cr_assert_eq(found, 1);
}

#define BULK 100

static atomic_bool is_released;
static atomic_uint held;
static int bulk_left = BULK;

static void hold_puts(struct script_exchange *exchange, void *user)
{
    if (g_str_equal(exchange->method, "PUT")) {
        atomic_fetch_add(&held, 1);
        while (!atomic_load(&is_released))
            script_wait(exchange, 5);
    }
    ok(exchange);
}

/* More calls than go out at once, none of which is answered before RELEASE_WIRE. */
static void fill_wire(unsigned deadline_ms)
{
    struct store_options options = {.threads = 1, .deadline_ms = deadline_ms};

    start(hold_puts, &options);
    for (unsigned i = 0; i < BULK; i++) {
        g_autoptr(StoreCall) call = store_call_put("k", body, 1000);

        store_start(store, call, count_down, &bulk_left);
    }
    while (atomic_load(&held) < 32)
        g_usleep(1000);
}

static void release_wire(void)
{
    atomic_store(&is_released, true);
    store_wait_idle(store);
    cr_assert_eq(g_atomic_int_get(&bulk_left), 0);
}

/* A lease's beat has 5 s: it cannot wait until others have gone out. */
Test(http, a_call_in_a_hurry_goes_before_others)
{
    g_autoptr(StoreCall) beat = store_call_new(STORE_HEAD, "k");
    g_autoptr(GError) error = NULL;
    int64_t start_ms;

    fill_wire(0);
    start_ms = now_ms();
    beat->deadline_ms = 5000;
    cr_expect(store_run(store, beat, &error), "%s", text_of(error));
    cr_expect(now_ms() - start_ms < 1000, "%ld ms", (long)(now_ms() - start_ms));
    release_wire();
    cr_assert_leq(script_server_connections(server), 33);
}

/* The wire is full of calls that are in a hurry themselves. */
Test(http, a_call_that_finds_no_place_ends_at_its_deadline)
{
    g_autoptr(StoreCall) late = store_call_new(STORE_HEAD, "k");
    g_autoptr(GError) error = NULL;
    int64_t start_ms;

    fill_wire(8000);
    start_ms = now_ms();
    late->deadline_ms = 500;
    error = script_store_failure(store, late);
    cr_expect(error_is(error, ETIMEDOUT), "%s", text_of(error));
    cr_expect(now_ms() - start_ms < 2000, "%ld ms", (long)(now_ms() - start_ms));
    release_wire();
}

static void garbage(struct script_exchange *exchange, void *user)
{
    if (exchange->number > 2) {
        ok(exchange);
        return;
    }
    script_send_text(exchange, exchange->number == 1 ? "what?\r\n\r\n" : "HTTP/9.9 2\r\n\r\n");
    script_close(exchange);
}

/* Left-over bytes of an answer that was longer than it said look the same. */
Test(http, an_answer_that_is_no_http)
{
    start(garbage, NULL);
    put_succeeds();
    cr_assert_eq(script_server_requests(server), 3);
}

/* --- signals --- */

static void note_mask(struct store_call *call, void *user)
{
    pthread_sigmask(SIG_SETMASK, NULL, user);
}

/* One that a thread here took would not interrupt the program's wait; SIGPIPE (TLS writes to a
 * connection that the server closed) would end it. */
Test(http, signals_are_the_programs_own)
{
    sigset_t mask;

    start(always_ok, NULL);
    {
        g_autoptr(StoreCall) call = store_call_new(STORE_HEAD, "k");

        sigemptyset(&mask);
        store_start(store, call, note_mask, &mask);
        store_wait(call);
    }
    cr_assert(sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM));
    cr_assert(sigismember(&mask, SIGPIPE));
}
