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

static script_answerer *answerer = answer_ok;

static void start(const char *name, int from_days, int to_days)
{
    context = certificate_context(name, from_days, to_days, pem);
    server = script_server_start(context, answerer, NULL);
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

/* --- checksums --- */

static void put_check_value(struct store *store)
{
    static char first[] = "1234", second[] = "56789";
    const struct iovec iov[] = {{first, 4}, {second, 5}};
    g_autoptr(StoreCall) call = store_call_new(STORE_PUT, "k");
    g_autoptr(GError) error = NULL;

    store_call_set_iov(call, iov, 2);
    cr_assert(store_run(store, call, &error), "%s", error ? error->message : "");
}

static void expect_header(unsigned request, const char *name, const char *value)
{
    g_autofree char *seen = script_server_header(server, request, name);

    cr_assert_eq(g_strcmp0(seen, value), 0, "request %u: %s: %s", request, name, seen);
}

/* The value that the CRC's inventors give for these nine bytes: 0xe3069283. */
Test(tls, a_body_goes_with_its_checksum)
{
    g_autoptr(Store) store = NULL;

    start("IP:127.0.0.1", -1, 1);
    store = open_store(pem);
    cr_assert(store_caps(store)->has_checksum);
    put_check_value(store);
    expect_header(1, "x-amz-checksum-crc32c", "4waSgw==");
    expect_header(1, "x-amz-content-sha256", "UNSIGNED-PAYLOAD");
}

Test(tls, without_tls_the_signed_hash_is_enough)
{
    g_autoptr(Store) store = NULL;

    server = script_server_start(NULL, answer_ok, NULL);
    store = script_store_open(server, NULL);
    put_check_value(store);
    expect_header(1, "x-amz-checksum-crc32c", NULL);
    expect_header(1, "x-amz-content-sha256",
                  "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
}

Test(tls, without_tls_and_unsigned_the_checksum_is_left)
{
    const struct store_options options = {.unsigned_payload = true};
    g_autoptr(Store) store = NULL;

    server = script_server_start(NULL, answer_ok, NULL);
    store = script_store_open(server, &options);
    put_check_value(store);
    expect_header(1, "x-amz-checksum-crc32c", "4waSgw==");
    expect_header(1, "x-amz-content-sha256", "UNSIGNED-PAYLOAD");
}

static GString *commit_body;
static const char *begin_headers;

static void answer_upload(struct script_exchange *exchange, void *user)
{
    static const char *const bodies[] = {
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
        "",
        ("<CopyPartResult><ETag>\"c\"</ETag><ChecksumCRC32C>AAAAAQ==</ChecksumCRC32C>"
         "</CopyPartResult>"),
        "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>",
    };

    script_read_body(exchange, UINT64_MAX);
    if (exchange->number == 4)
        commit_body = g_string_new(exchange->body->str); /* before the test goes on */
    script_answer(exchange, 200, exchange->number == 1 ? begin_headers : "ETag: \"p\"\r\n",
                  bodies[(exchange->number - 1) % 4]);
}

static void upload_in_two_parts(const char *algorithm_header)
{
    g_autoptr(StoreCall) begin = store_call_new(STORE_BEGIN, "k");
    g_autoptr(StoreCall) part = store_call_part("k", "u", 1, "123456789", 9);
    g_autoptr(StoreCall) copy = store_call_new(STORE_COPY_PART, "k");
    g_autoptr(StoreCall) commit = store_call_commit("k", "u");
    g_autoptr(Store) store = NULL;

    begin_headers = algorithm_header;
    answerer = answer_upload;
    start("IP:127.0.0.1", -1, 1);
    store = open_store(pem);
    copy->upload_id = g_strdup("u");
    copy->source_key = g_strdup("from");
    copy->part_number = 2;
    copy->length = 5;
    store_call_add_part(commit, 1, "p");
    store_call_add_part(commit, 2, "c");
    cr_assert(store_run(store, begin, NULL) && store_run(store, part, NULL) &&
              store_run(store, copy, NULL) && store_run(store, commit, NULL));
    expect_header(1, "x-amz-checksum-algorithm", "CRC32C");
}

Test(tls, a_commit_repeats_the_parts_checksums)
{
    upload_in_two_parts("x-amz-checksum-algorithm: CRC32C\r\n");
    expect_header(2, "x-amz-checksum-crc32c", "4waSgw==");
    cr_assert(strstr(commit_body->str, "<ChecksumCRC32C>4waSgw==</ChecksumCRC32C>"));
    cr_assert(strstr(commit_body->str, "<ChecksumCRC32C>AAAAAQ==</ChecksumCRC32C>"));
    g_string_free(commit_body, TRUE);
}

/* Swift ignores the headers, and refuses the commit as malformed. */
Test(tls, a_store_that_ignores_the_algorithm_hears_no_more_of_it)
{
    upload_in_two_parts(NULL);
    expect_header(2, "x-amz-checksum-crc32c", NULL);
    cr_assert_null(strstr(commit_body->str, "Checksum"));
    g_string_free(commit_body, TRUE);
}

static unsigned refusal;

static void refuse_checksums(struct script_exchange *exchange, void *user)
{
    g_autofree char *checksum = script_header(exchange, "x-amz-checksum-crc32c");

    if (checksum)
        script_answer(exchange, refusal, NULL,
                      "<Error><Code>Invalid</Code><Message>Unsupported header "
                      "'x-amz-checksum-crc32c'</Message></Error>");
    else
        answer_ok(exchange, user);
}

Test(tls, a_store_that_refuses_checksums_gets_none)
{
    static const unsigned refusals[] = {501, 400};

    answerer = refuse_checksums;
    for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
        struct store *store;

        refusal = refusals[i];
        start("IP:127.0.0.1", -1, 1);
        store = open_store(pem);
        put_check_value(store);
        cr_assert_not(store_caps(store)->has_checksum);
        put_check_value(store);
        cr_assert_eq(script_server_requests(server), 3);
        store_unref(store);
        script_server_stop(server);
        SSL_CTX_free(context);
        g_clear_pointer(&endpoint, g_free);
    }
    server = NULL;
    context = NULL;
}

static void reset_then_refuse(struct script_exchange *exchange, void *user)
{
    static const char begun[] =
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    g_autofree char *algorithm = script_header(exchange, "x-amz-checksum-algorithm");

    if (exchange->number == 1)
        script_reset(exchange);
    else if (algorithm)
        script_answer(exchange, 501, NULL, "");
    else
        script_answer(exchange, 200, NULL, begun);
}

Test(tls, an_upload_may_be_begun_twice_with_a_refusal_between)
{
    g_autoptr(StoreCall) begin = store_call_new(STORE_BEGIN, "k");
    g_autoptr(Store) store = NULL;
    g_autoptr(GError) error = NULL;

    answerer = reset_then_refuse;
    start("IP:127.0.0.1", -1, 1);
    store = open_store(pem);
    cr_assert(store_run(store, begin, &error), "%s", error ? error->message : "");
    cr_assert_eq(script_server_requests(server), 3);
    cr_assert(begin->maybe_twice);
}

/* --- the wrong scheme --- */

static void never_asked(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 400, NULL, "");
}

Test(tls, a_server_without_tls_is_named_at_once)
{
    server = script_server_start(NULL, never_asked, NULL);
    endpoint = g_strdup_printf("https://127.0.0.1:%u", script_server_port(server));
    expect_refusal(NULL, "http://");
}
