/* https: who is believed to be the store, and what goes with a body. */
#include "config/error.h"
#include "tests/support/certificate.h"
#include "tests/support/script_store.h"

#include <criterion/criterion.h>
#include <glib/gstdio.h>
#include <string.h>

static struct script_server *server;
static SSL_CTX *context;
static char *dir, *pem, *endpoint;

static void setup(void)
{
    dir = g_dir_make_tmp("dstack-tls-XXXXXX", NULL);
    pem = g_build_filename(dir, "pem", NULL);
}

static void teardown(void)
{
    script_server_stop(server);
    SSL_CTX_free(context);
    g_unlink(pem);
    g_rmdir(dir);
    g_free(dir);
    g_free(pem);
    g_free(endpoint);
}

TestSuite(tls, .init = setup, .fini = teardown, .timeout = 20);

static void answer_ok(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 200, "ETag: \"e\"\r\n", "");
}

static void start(const char *name, int from_days, int to_days)
{
    context = certificate_context(name, from_days, to_days, pem);
    server = script_server_start(context, answer_ok, NULL);
    endpoint = g_strdup_printf("https://127.0.0.1:%u", script_server_port(server));
}

static struct store *open_store(const char *cacert)
{
    struct store_options options = {.endpoint = endpoint, .cacert = cacert};

    return script_store_open(server, &options);
}

/* Refused on the first connection, before a byte of the request, and with what to do about it. */
static void expect_refusal(const char *cacert, const char *part)
{
    g_autoptr(Store) store = open_store(cacert);
    g_autoptr(StoreCall) call = store_call_put("k", "x", 1);
    int64_t start_us = g_get_monotonic_time();
    g_autoptr(GError) error = script_store_failure(store, call);

    cr_assert(error_is(error, EIO), "%s", error ? error->message : "it was believed");
    cr_assert(strstr(error->message, part) && strstr(error->message, "after 1 try"), "%s",
              error->message);
    cr_assert(g_get_monotonic_time() - start_us < G_USEC_PER_SEC);
    cr_assert_leq(script_server_connections(server), 1);
    cr_assert_eq(script_server_requests(server), 0);
}

Test(tls, a_given_authority_is_trusted)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;

    start("IP:127.0.0.1", -1, 1);
    store = open_store(pem);
    cr_assert(store_write(store, "k", "x", 1, NULL, NULL, &error), "%s",
              error ? error->message : "");
}

Test(tls, an_authority_from_the_environment_is_trusted)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Store) store = NULL;
    struct store_options options = {0};

    start("IP:127.0.0.1", -1, 1);
    script_store_environment();
    g_setenv("AWS_CA_BUNDLE", pem, TRUE);
    options.endpoint = endpoint;
    store = store_open("s3://tests", &options, &error);
    cr_assert(store && store_write(store, "k", "x", 1, NULL, NULL, &error), "%s",
              error ? error->message : "");
    g_unsetenv("AWS_CA_BUNDLE");
}

Test(tls, an_unknown_authority_is_refused)
{
    start("IP:127.0.0.1", -1, 1);
    expect_refusal(NULL, "--cacert");
}

Test(tls, an_expired_certificate_is_refused)
{
    start("IP:127.0.0.1", -3, -2);
    expect_refusal(pem, "certificate has expired; renew it");
}

Test(tls, a_certificate_of_the_future_is_refused)
{
    start("IP:127.0.0.1", 2, 3);
    expect_refusal(pem, "clock");
}

Test(tls, another_hosts_certificate_is_refused)
{
    start("DNS:other.example", -1, 1);
    expect_refusal(pem, "endpoint");
}

Test(tls, a_missing_file_of_authorities_is_named)
{
    start("IP:127.0.0.1", -1, 1);
    expect_refusal("/no/such/file", "/no/such/file");
}
