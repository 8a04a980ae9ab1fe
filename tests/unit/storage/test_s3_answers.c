/* What the driver makes of answers that say one thing in their status and another in their body,
 * of clocks that are off, and how it addresses a bucket. */
#include "config/error.h"
#include "tests/support/script_store.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct script_server *server;
static struct store *store;

static void start(script_answerer *answer, const struct store_options *options)
{
    server = script_server_start(NULL, answer, NULL);
    store = script_store_open(server, options);
}

static void teardown(void)
{
    store_unref(store);
    script_server_stop(server);
}

TestSuite(s3_answers, .fini = teardown, .timeout = 20);

static const char *text_of(const GError *error)
{
    return error ? error->message : "no error";
}

/* --- failures in a 200 --- */

static const char *first_body;

static void body_then_success(struct script_exchange *exchange, void *user)
{
    bool is_commit = g_str_equal(exchange->method, "POST");

    if (exchange->number == 1)
        script_answer(exchange, 200, NULL, first_body);
    else
        script_answer(exchange, 200, NULL,
                      is_commit ? "<CompleteMultipartUploadResult><ETag>\"e\"</ETag>"
                                  "</CompleteMultipartUploadResult>"
                                : "<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>");
}

static struct store_call *make_copy(void)
{
    struct store_call *call = store_call_new(STORE_COPY, "to");

    call->source_key = g_strdup("from");
    return call;
}

static struct store_call *make_commit(void)
{
    struct store_call *call = store_call_commit("to", "upload");

    store_call_add_part(call, 1, "part");
    return call;
}

static struct store_call *(*const makers[])(void) = {make_copy, make_commit};

Test(s3_answers, a_passing_error_in_a_200_is_tried_again)
{
    first_body = "<?xml version=\"1.0\"?>\n\n<Error><Code>InternalError</Code></Error>";
    for (unsigned i = 0; i < G_N_ELEMENTS(makers); i++) {
        g_autoptr(StoreCall) call = makers[i]();
        g_autoptr(GError) error = NULL;

        start(body_then_success, NULL);
        cr_assert(store_run(store, call, &error), "%s", text_of(error));
        cr_assert_str_eq(call->object.etag, "e");
        cr_assert_eq(script_server_requests(server), 2);
        teardown();
    }
    store = NULL;
    server = NULL;
}

Test(s3_answers, any_other_error_in_a_200_fails)
{
    first_body = "<Error><Code>AccessDenied</Code><Message>not yours</Message></Error>";
    for (unsigned i = 0; i < G_N_ELEMENTS(makers); i++) {
        g_autoptr(StoreCall) call = makers[i]();
        g_autoptr(GError) error = NULL;

        start(body_then_success, NULL);
        error = script_store_failure(store, call);
        cr_assert(error_is(error, EACCES) && strstr(error->message, "not yours"), "%s",
                  text_of(error));
        cr_assert_eq(script_server_requests(server), 1);
        teardown();
    }
    store = NULL;
    server = NULL;
}

Test(s3_answers, a_200_that_says_nothing_is_no_success)
{
    static const char *const bodies[] = {"<CopyObjectResult/>", "<Other/>"};

    for (unsigned b = 0; b < G_N_ELEMENTS(bodies); b++)
        for (unsigned i = 0; i < G_N_ELEMENTS(makers); i++) {
            g_autoptr(StoreCall) call = makers[i]();
            g_autoptr(GError) error = NULL;

            first_body = bodies[b];
            start(body_then_success, NULL);
            error = script_store_failure(store, call);
            cr_assert(error_is(error, EIO), "%s", text_of(error));
            teardown();
        }
    store = NULL;
    server = NULL;
}

Test(s3_answers, a_cut_or_changed_answer_is_asked_for_again)
{
    static const char *const bodies[] = {"", "junk", "<CopyObjectResult><ETag>\"e\"</ETa",
                                         "<CopyObjectResult><ETag>\"e\"</ETaG></CopyObjectResult>"};

    for (unsigned b = 0; b < G_N_ELEMENTS(bodies); b++)
        for (unsigned i = 0; i < G_N_ELEMENTS(makers); i++) {
            g_autoptr(StoreCall) call = makers[i]();
            g_autoptr(GError) error = NULL;

            first_body = bodies[b];
            start(body_then_success, NULL);
            cr_assert(store_run(store, call, &error), "%s", text_of(error));
            cr_assert_eq(script_server_requests(server), 2);
            teardown();
        }
    store = NULL;
    server = NULL;
}

static void always_cut(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 200, NULL, "<ListBucketResult><Name>x</Na");
}

Test(s3_answers, an_answer_that_stays_broken_fails_soon)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_LIST, "");
    g_autoptr(GError) error = NULL;

    start(always_cut, NULL);
    error = script_store_failure(store, call);
    cr_assert(error_is(error, EIO) && strstr(error->message, "ListBucketResult"), "%s",
              text_of(error));
    cr_assert_eq(script_server_requests(server), 8);
}

static unsigned upload_status, commits, commits_to_fail;

static void stuck_commit(struct script_exchange *exchange, void *user)
{
    if (g_str_equal(exchange->method, "HEAD"))
        script_answer(exchange, 404, NULL, "");
    else if (g_str_equal(exchange->method, "GET"))
        script_answer(exchange, upload_status, NULL, "<ListPartsResult/>");
    else if (commits++ < commits_to_fail)
        script_answer(exchange, 500, NULL, "<Error><Code>InternalError</Code></Error>");
    else
        script_answer(exchange, 200, NULL,
                      "<CompleteMultipartUploadResult><ETag>\"e\"</ETag>"
                      "</CompleteMultipartUploadResult>");
}

/* Ceph says 500 for ever to the commit of an upload that was aborted. */
Test(s3_answers, a_commit_that_fails_again_and_again_looks_for_its_upload)
{
    g_autoptr(StoreCall) call = make_commit();
    g_autoptr(GError) error = NULL;

    upload_status = 404;
    commits_to_fail = UINT_MAX;
    start(stuck_commit, NULL);
    error = script_store_failure(store, call);
    cr_assert(error_is(error, ENOENT), "%s", text_of(error));
    cr_assert_eq(script_server_requests(server), 7);
}

Test(s3_answers, a_commit_goes_on_when_its_upload_is_there)
{
    g_autoptr(StoreCall) call = make_commit();
    g_autoptr(GError) error = NULL;

    upload_status = 200;
    commits_to_fail = 7;
    start(stuck_commit, NULL);
    cr_assert(store_run(store, call, &error), "%s", text_of(error));
    cr_assert_eq(script_server_requests(server), 9);
}

static void conflict_once(struct script_exchange *exchange, void *user)
{
    if (exchange->number == 1)
        script_answer(exchange, 409, NULL,
                      "<Error><Code>ConditionalRequestConflict</Code></Error>");
    else
        script_answer(exchange, 200, "ETag: \"e\"\r\n", "");
}

/* Another writer is at it, and may yet fail: nothing has been decided. */
Test(s3_answers, a_conflict_is_not_a_lost_condition)
{
    g_autoptr(GError) error = NULL;

    start(conflict_once, NULL);
    cr_assert(store_write(store, "k", "x", 1, "", NULL, &error), "%s", text_of(error));
}

static void broken_once(struct script_exchange *exchange, void *user)
{
    if (exchange->number == 1)
        script_answer(exchange, 400, NULL, "<Error><Code>BadDigest</Code></Error>");
    else
        script_answer(exchange, 200, "ETag: \"e\"\r\n", "");
}

Test(s3_answers, bytes_broken_on_the_way_are_sent_again)
{
    g_autoptr(GError) error = NULL;

    start(broken_once, NULL);
    cr_assert(store_write(store, "k", "x", 1, NULL, NULL, &error), "%s", text_of(error));
}

/* --- a clock that is off --- */

static int64_t off_s; /* the server's clock against ours */

static time_t signed_time(const struct script_exchange *exchange)
{
    g_autofree char *text = script_header(exchange, "x-amz-date");
    struct tm utc = {0};

    return text && strptime(text, "%Y%m%dT%H%M%SZ", &utc) ? timegm(&utc) : 0;
}

static void strict_clock(struct script_exchange *exchange, void *user)
{
    time_t now = time(NULL) + off_s;
    char date[64], header[100];
    struct tm utc;

    gmtime_r(&now, &utc);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &utc);
    g_snprintf(header, sizeof(header), "ETag: \"e\"\r\nDate: %s\r\n", date);
    if (llabs(signed_time(exchange) - now) > 900)
        script_answer(exchange, 403, header, "<Error><Code>RequestTimeTooSkewed</Code></Error>");
    else
        script_answer(exchange, 200, header, "");
}

Test(s3_answers, the_servers_clock_is_taken_over)
{
    static const int64_t offsets[] = {-7200, 7200, 86400 * 400};

    for (unsigned i = 0; i < G_N_ELEMENTS(offsets); i++) {
        g_autoptr(GError) error = NULL;

        off_s = offsets[i];
        start(strict_clock, NULL);
        cr_assert(store_write(store, "k", "x", 1, NULL, NULL, &error), "%s", text_of(error));
        cr_assert(store_write(store, "k", "x", 1, NULL, NULL, &error), "%s", text_of(error));
        cr_assert_eq(script_server_requests(server), 3);
        teardown();
    }
    store = NULL;
    server = NULL;
}

/* An answer to HEAD has no body to say what the 403 is about. */
Test(s3_answers, the_servers_clock_is_taken_over_from_a_head)
{
    struct store_object object = {0};
    g_autoptr(GError) error = NULL;

    off_s = 7200;
    start(strict_clock, NULL);
    cr_assert(store_head(store, "k", &object, &error), "%s", text_of(error));
    store_object_clear(&object);
}

static void never_in_time(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 403, "Date: Thu, 01 Jan 2015 00:00:00 GMT\r\n",
                  "<Error><Code>RequestTimeTooSkewed</Code><Message>late</Message></Error>");
}

Test(s3_answers, the_clock_is_set_once_a_call)
{
    g_autoptr(GError) error = NULL;

    start(never_in_time, NULL);
    cr_assert_not(store_write(store, "k", "x", 1, NULL, NULL, &error));
    cr_assert(error_is(error, EACCES) && strstr(error->message, "RequestTimeTooSkewed"), "%s",
              text_of(error));
    cr_assert_eq(script_server_requests(server), 2);
}

static void forbidden(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 403, "Date: Thu, 01 Jan 2015 00:00:00 GMT\r\n",
                  "<Error><Code>AccessDenied</Code></Error>");
}

Test(s3_answers, another_refusal_does_not_set_the_clock)
{
    g_autoptr(GError) error = NULL;

    start(forbidden, NULL);
    cr_assert_not(store_write(store, "k", "x", 1, NULL, NULL, &error));
    cr_assert_eq(script_server_requests(server), 1);
}

/* --- keys that expire --- */

static const char *const old_keys = "[default]\naws_access_key_id = old\n"
                                    "aws_secret_access_key = s\naws_session_token = t1\n";
static const char *const new_keys = "[default]\naws_access_key_id = new\n"
                                    "aws_secret_access_key = s\naws_session_token = t2\n";

static void wants_new_keys(struct script_exchange *exchange, void *user)
{
    g_autofree char *authorization = script_header(exchange, "authorization");
    g_autofree char *token = script_header(exchange, "x-amz-security-token");

    if (strstr(authorization, "Credential=new/") && g_str_equal(token, "t2"))
        script_answer(exchange, 200, "ETag: \"e\"\r\n",
                      "<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>");
    else
        script_answer(exchange, 400, NULL,
                      g_str_equal(exchange->method, "HEAD")
                          ? ""
                          : "<Error><Code>ExpiredToken</Code></Error>");
}

/* A store whose keys stand in a file, which is PATH's to free. */
static void start_with_file(char **path)
{
    int fd = g_file_open_tmp("keys-XXXXXX", path, NULL);

    cr_assert(fd >= 0 && close(fd) == 0);
    cr_assert(g_file_set_contents(*path, old_keys, -1, NULL));
    server = script_server_start(NULL, wants_new_keys, NULL);
    g_setenv("AWS_SHARED_CREDENTIALS_FILE", *path, TRUE);
    script_store_environment();
    g_unsetenv("AWS_ACCESS_KEY_ID");
    g_unsetenv("AWS_SECRET_ACCESS_KEY");
    g_autofree char *endpoint = g_strdup_printf("http://127.0.0.1:%u", script_server_port(server));
    struct store_options options = {.endpoint = endpoint};

    store = store_open("s3://tests", &options, NULL);
    cr_assert_not_null(store);
}

Test(s3_answers, keys_that_expired_are_read_anew)
{
    struct store_object object = {0};
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;

    start_with_file(&path);
    cr_assert_not(store_write(store, "k", "x", 1, NULL, NULL, &error));
    cr_assert(error_is(error, EACCES) && strstr(error->message, "ExpiredToken"), "%s",
              text_of(error));
    cr_assert_eq(script_server_requests(server), 1, "the same keys are not tried again");
    g_clear_error(&error);
    cr_assert(g_file_set_contents(path, new_keys, -1, NULL));
    g_usleep(1100000);
    cr_assert(store_head(store, "k", &object, &error), "%s", text_of(error));
    cr_assert(store_write(store, "k", "x", 1, NULL, NULL, &error), "%s", text_of(error));
    cr_assert_eq(script_server_requests(server), 4);
    store_object_clear(&object);
    unlink(path);
}

static struct store_call *make_copy_of_an_etag(void)
{
    struct store_call *call = make_copy();

    call->if_match = g_strdup("e");
    return call;
}

static struct store_call *make_get_of_nothing(void)
{
    return store_call_get("k", 0, NULL, 0);
}

/* Other calls look with a HEAD too, whose answer does not say why it refuses. */
Test(s3_answers, keys_that_expired_are_read_anew_by_every_look)
{
    struct store_call *(*const looks[])(void) = {make_copy_of_an_etag, make_get_of_nothing};

    for (unsigned i = 0; i < G_N_ELEMENTS(looks); i++) {
        g_autoptr(StoreCall) call = looks[i]();
        g_autoptr(GError) error = NULL;
        g_autofree char *path = NULL;

        start_with_file(&path);
        cr_assert(g_file_set_contents(path, new_keys, -1, NULL));
        cr_expect(store_run(store, call, &error), "%s", text_of(error));
        unlink(path);
        teardown();
    }
    store = NULL;
    server = NULL;
}

/* --- what a hostile or careless store may say of an object --- */

static void odd_headers(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 200,
                  "ETag: \"e\"\r\nLast-Modified: Fri, 31 Dec 9999 23:59:59 GMT\r\n"
                  "x-amz-meta-good: a b\r\nx-amz-meta-umlaut: \xc3\xbc\r\n"
                  "x-amz-meta-odd(name: x\r\nx-amz-meta-: x\r\n",
                  "");
}

/* Metadata that could not be sent again would make the object's next save fail. */
Test(s3_answers, metadata_and_times_that_cannot_be)
{
    struct store_object object = {0};
    g_autoptr(GError) error = NULL;

    start(odd_headers, NULL);
    cr_assert(store_head(store, "k", &object, &error), "%s", text_of(error));
    cr_assert_eq(object.mtime_ns, 0);
    cr_assert_eq(g_hash_table_size(object.metadata), 1);
    cr_assert_str_eq(g_hash_table_lookup(object.metadata, "good"), "a b");
    store_object_clear(&object);
}

static void odd_message(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 400, NULL,
                  "<Error><Code>X</Code><Message>a\x7f"
                  "b\n\xc2\x9b"
                  "31mred\xe2\x80\xae"
                  "</Message></Error>");
}

/* Escape sequences of terminals, also the one that is a single character (U+009B), and bidi marks.
 */
Test(s3_answers, messages_cannot_steer_a_terminal)
{
    g_autoptr(StoreCall) call = store_call_put("k\x1b[1m", "x", 1);
    g_autoptr(GError) error = NULL;

    start(odd_message, NULL);
    error = script_store_failure(store, call);
    cr_assert(strstr(error->message, ": a b  31mred "), "%s", error->message);
    cr_assert_null(strchr(error->message, '\x1b'));
}

/* --- addresses --- */

static void answer_ok(struct script_exchange *exchange, void *user)
{
    script_answer(exchange, 200, "ETag: \"e\"\r\n", "");
}

/* The server is the proxy, so that no name has to be resolved: its request line has the host too.
 */
static void expect_address(const char *endpoint, bool virtual_host, const char *line,
                           const char *host)
{
    struct store_options options = {.endpoint = endpoint, .virtual_host = virtual_host};
    g_autofree char *proxy = NULL, *seen_line = NULL, *seen_host = NULL;
    g_autoptr(GError) error = NULL;

    start(answer_ok, &options);
    proxy = g_strdup_printf("http://127.0.0.1:%u", script_server_port(server));
    g_setenv("http_proxy", proxy, TRUE);
    cr_assert(store_write(store, "a b/=+", "x", 1, NULL, NULL, &error), "%s", text_of(error));
    seen_line = script_server_line(server, 1);
    seen_host = script_server_header(server, 1, "host");
    cr_assert_str_eq(seen_line, line);
    cr_assert_str_eq(seen_host, host);
    g_unsetenv("http_proxy");
    teardown();
    store = NULL;
    server = NULL;
}

Test(s3_answers, buckets_in_the_path_and_in_the_host)
{
    expect_address("http://s3.example.com", false,
                   "PUT http://s3.example.com/tests/a%20b/%3D%2B HTTP/1.1", "s3.example.com");
    expect_address("http://s3.example.com", true,
                   "PUT http://tests.s3.example.com/a%20b/%3D%2B HTTP/1.1", "tests.s3.example.com");
    expect_address("http://s3.example.com:8080", true,
                   "PUT http://tests.s3.example.com:8080/a%20b/%3D%2B HTTP/1.1",
                   "tests.s3.example.com:8080");
}

/* --- deletes that half fail --- */

static void delete_some(struct script_exchange *exchange, void *user)
{
    if (g_str_equal(exchange->method, "POST"))
        script_answer(exchange, 200, NULL,
                      "<DeleteResult><Error><Key>a</Key><Code>InternalError</Code></Error>"
                      "<Error><Key>b</Key><Code>InternalError</Code></Error>"
                      "<Error><Key>c</Key><Code>InternalError</Code></Error></DeleteResult>");
    else if (g_str_has_suffix(exchange->target, "/b"))
        script_answer(exchange, 204, NULL, "");
    else
        script_answer(exchange, 403, NULL, "<Error><Code>AccessDenied</Code></Error>");
}

Test(s3_answers, every_key_that_was_not_deleted_is_named)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_DELETE_MANY, "");
    g_autoptr(GError) error = NULL;

    for (const char *key = "abcd"; *key; key++)
        g_ptr_array_add(call->keys, g_strndup(key, 1));
    start(delete_some, NULL);
    error = script_store_failure(store, call);
    cr_assert(error_is(error, EACCES), "%s", text_of(error));
    cr_assert_eq(script_server_requests(server), 4);
    cr_assert_eq(call->failed_keys->len, 2);
    for (guint i = 0; i < 2; i++)
        cr_assert_str_neq(call->failed_keys->pdata[i], "b");
}
