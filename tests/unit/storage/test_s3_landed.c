/* A conditional write whose answer is lost, and which is sent again: whose is what is there? */
#include "config/error.h"
#include "tests/support/script_store.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#define WRITE_ID "x-amz-meta-dstack-write"

/* A store of one object that keeps what is put, and can lose its answers. */
struct one_object {
    pthread_mutex_t lock;
    char *write_id; /* of what is there; NULL: it has none */
    const char *etag;
    bool exists;
    bool is_somebody_elses; /* the first try does not land: another writer's same bytes do */
    unsigned puts;
    unsigned ids;         /* that the last PUT carried */
    unsigned head_status; /* of the look; 0: as it is */
    char *begun_id;
    unsigned stuck; /* so many commits are answered 500, and what lands does so behind them */
    bool leaves;    /* when the first answer is lost, nobody listens for a while */
};

static struct one_object object = {.etag = "old"};
static struct script_server *server;
static struct store *store;

static void land(const char *write_id)
{
    g_free(object.write_id);
    object.write_id =
        g_strdup(object.is_somebody_elses ? "00112233445566778899aabbccddeeff" : write_id);
    object.etag = "not-an-md5";
    object.exists = true;
}

static void answer_head(struct script_exchange *exchange)
{
    g_autofree char *headers = NULL;

    if (object.head_status) {
        script_answer(exchange, object.head_status, NULL, "");
        return;
    }
    headers =
        g_strdup_printf("ETag: \"%s\"\r\nx-amz-meta-mode: 33188\r\n%s%s%s", object.etag,
                        object.write_id ? WRITE_ID ": " : "",
                        object.write_id ? object.write_id : "", object.write_id ? "\r\n" : "");
    script_answer(exchange, object.exists ? 200 : 404, headers, "");
}

static void lose_answer(struct script_exchange *exchange)
{
    if (object.leaves)
        script_leave(exchange, 300);
    object.leaves = false;
    script_reset(exchange);
}

/* The first PUT is carried out and its answer lost; later ones meet the condition. */
static void answer_put(struct script_exchange *exchange)
{
    g_autofree char *write_id = script_header(exchange, WRITE_ID);
    g_auto(GStrv) around = g_strsplit(exchange->head, WRITE_ID ":", -1);

    object.ids = g_strv_length(around) - 1;
    if (object.puts++ == 0) {
        script_read_body(exchange, UINT64_MAX);
        land(write_id);
        lose_answer(exchange);
        return;
    }
    script_answer(exchange, 412, NULL,
                  "<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>");
}

static void answer_stuck(struct script_exchange *exchange)
{
    if (object.puts < object.stuck) {
        script_answer(exchange, 500, NULL, "<Error><Code>InternalError</Code></Error>");
        return;
    }
    land(object.begun_id);
    script_answer(exchange, 404, NULL, "<Error><Code>NoSuchUpload</Code></Error>");
}

static void answer_upload(struct script_exchange *exchange)
{
    if (g_str_has_suffix(exchange->target, "?uploads=")) {
        if (object.leaves) {
            lose_answer(exchange);
            return;
        }
        object.begun_id = script_header(exchange, WRITE_ID);
        script_answer(exchange, 200, NULL,
                      "<InitiateMultipartUploadResult><UploadId>u1</UploadId>"
                      "</InitiateMultipartUploadResult>");
    } else if (g_str_equal(exchange->method, "PUT")) {
        script_answer(exchange, 200, "ETag: \"part\"\r\n", "");
    } else if (g_str_equal(exchange->method, "GET")) {
        script_answer(exchange, 200, NULL, "<ListPartsResult/>");
    } else if (object.stuck) {
        answer_stuck(exchange);
        object.puts++;
    } else if (object.puts++ == 0) {
        script_read_body(exchange, UINT64_MAX);
        land(object.begun_id);
        script_reset(exchange);
    } else {
        script_answer(exchange, 404, NULL, "<Error><Code>NoSuchUpload</Code></Error>");
    }
}

static void answer(struct script_exchange *exchange, void *user)
{
    pthread_mutex_lock(&object.lock);
    if (g_str_equal(exchange->method, "HEAD"))
        answer_head(exchange);
    else if (strchr(exchange->target, '?'))
        answer_upload(exchange);
    else
        answer_put(exchange);
    pthread_mutex_unlock(&object.lock);
}

static void setup(void)
{
    struct store_options options = {.deadline_ms = 5000, .threads = 1};

    pthread_mutex_init(&object.lock, NULL);
    server = script_server_start(NULL, answer, NULL);
    store = script_store_open(server, &options);
}

static void teardown(void)
{
    store_unref(store);
    script_server_stop(server);
    g_clear_pointer(&object.write_id, g_free);
    g_clear_pointer(&object.begun_id, g_free);
}

TestSuite(s3_landed, .init = setup, .fini = teardown);

Test(s3_landed, ours_is_a_success_whatever_the_etag_is)
{
    g_autofree char *etag = NULL;
    g_autoptr(GError) error = NULL;

    cr_assert(store_write(store, "lease", "bytes", 5, "", &etag, &error), "%s",
              error ? error->message : "");
    cr_assert_str_eq(etag, "not-an-md5");
    cr_assert_eq(script_server_requests(server), 3);
}

Test(s3_landed, ours_over_an_etag)
{
    g_autoptr(GError) error = NULL;

    cr_assert(store_write(store, "lease", "bytes", 5, "old", NULL, &error), "%s",
              error ? error->message : "");
}

Test(s3_landed, somebody_elses_same_bytes_are_not_ours)
{
    g_autoptr(GError) error = NULL;

    object.is_somebody_elses = true;
    cr_assert_not(store_write(store, "lease", "bytes", 5, "", NULL, &error));
    cr_assert(error_is(error, EEXIST), "%s", error->message);
}

Test(s3_landed, somebody_elses_over_an_etag)
{
    g_autoptr(GError) error = NULL;

    object.is_somebody_elses = true;
    cr_assert_not(store_write(store, "lease", "bytes", 5, "old", NULL, &error));
    cr_assert(error_is(error, ESTALE), "%s", error->message);
}

Test(s3_landed, not_knowing_is_not_losing)
{
    g_autoptr(GError) error = NULL;

    object.head_status = 403;
    cr_assert_not(store_write(store, "lease", "bytes", 5, "", NULL, &error));
    cr_assert(error_is(error, EIO), "%s", error->message);
    cr_assert(strstr(error->message, "lease") && strstr(error->message, "may have been"), "%s",
              error->message);
}

Test(s3_landed, each_write_has_an_id_of_its_own)
{
    g_autofree char *first = NULL, *again = NULL, *second = NULL;
    g_autoptr(GError) error = NULL;

    cr_assert(store_write(store, "lease", "bytes", 5, "", NULL, &error));
    cr_assert_not(store_write(store, "lease", "bytes", 5, "", NULL, NULL));
    first = script_server_header(server, 1, WRITE_ID);
    again = script_server_header(server, 2, WRITE_ID);
    second = script_server_header(server, 4, WRITE_ID);
    cr_assert(first && again && second && strlen(first) == 32);
    cr_assert_str_eq(first, again);
    cr_assert_str_neq(first, second);
}

Test(s3_landed, callers_do_not_see_the_id_and_cannot_set_it)
{
    struct store_object seen = {0};
    g_autoptr(StoreCall) put = store_call_put("k", "1", 1);
    g_autoptr(GError) error = NULL;

    cr_assert(store_write(store, "k", "1", 1, "", NULL, NULL));
    cr_assert(store_head(store, "k", &seen, NULL));
    cr_assert_eq(g_hash_table_size(seen.metadata), 1);
    cr_assert(g_hash_table_contains(seen.metadata, "mode"));
    store_object_clear(&seen);
    store_call_set_metadata(put, "dstack-write", "mine");
    cr_assert_not(store_run(store, put, &error));
    cr_assert(error_is(error, EINVAL), "%s", error->message);
}

/* New metadata for an object over its old ones, as whoever looked at it knows them. */
static struct store_call *make_copy(void)
{
    struct store_call *copy = store_call_new(STORE_COPY, "k");

    object.exists = true;
    object.write_id = g_strdup("fedcba98765432100123456789abcdef"); /* of an earlier write */
    cr_assert(store_head(store, "k", &copy->object, NULL));
    copy->source_key = g_strdup("k");
    copy->if_match = g_strdup(copy->object.etag);
    copy->metadata = g_hash_table_ref(copy->object.metadata);
    return copy;
}

/* By the copy the object's ETag becomes another one, where it was uploaded in parts. */
Test(s3_landed, a_copy_of_ours_onto_itself)
{
    g_autoptr(StoreCall) copy = make_copy();
    g_autoptr(GError) error = NULL;

    cr_assert(store_run(store, copy, &error), "%s", error ? error->message : "");
    cr_assert_str_eq(copy->object.etag, "not-an-md5");
    cr_assert_eq(object.ids, 1);
    cr_assert_eq(script_server_requests(server), 5);
}

Test(s3_landed, a_copy_that_was_overtaken)
{
    g_autoptr(StoreCall) copy = make_copy();
    g_autoptr(GError) error = NULL;

    object.is_somebody_elses = true;
    cr_assert_not(store_run(store, copy, &error));
    cr_assert(error_is(error, ESTALE), "%s", error->message);
    cr_assert_eq(script_server_requests(server), 5);
}

/* The source's metadata are the server's to copy: it can carry no id. */
Test(s3_landed, a_copy_that_keeps_the_metadata_is_not_known_again)
{
    g_autoptr(StoreCall) copy = make_copy();
    g_autoptr(GError) error = NULL;

    g_clear_pointer(&copy->metadata, g_hash_table_unref);
    cr_assert_not(store_run(store, copy, &error));
    cr_assert(error_is(error, ESTALE), "%s", error->message);
    cr_assert_eq(object.ids, 0);
    cr_assert_eq(script_server_requests(server), 4);
}

static bool commit(GError **error)
{
    g_autoptr(StoreCall) begin = store_call_new(STORE_BEGIN, "large");
    g_autoptr(StoreCall) part = NULL, end = NULL;

    cr_assert(store_run(store, begin, error));
    part = store_call_part("large", begin->upload_id, 1, "x", 1);
    cr_assert(store_run(store, part, error));
    end = store_call_commit("large", begin->upload_id);
    store_call_add_part(end, 1, part->part_etag);
    return store_run(store, end, error);
}

Test(s3_landed, a_commit_of_ours)
{
    g_autoptr(GError) error = NULL;

    cr_assert(commit(&error), "%s", error ? error->message : "");
}

Test(s3_landed, a_commit_that_was_overtaken)
{
    g_autoptr(GError) error = NULL;

    object.is_somebody_elses = true;
    cr_assert_not(commit(&error));
    cr_assert(error_is(error, ENOENT), "%s", error->message);
}

/* Behind the look for the upload the commit is begun anew, as the same one. */
Test(s3_landed, a_commit_of_ours_that_was_stuck)
{
    g_autoptr(GError) error = NULL;

    object.stuck = 5;
    cr_assert(commit(&error), "%s", error ? error->message : "");
    cr_assert_eq(script_server_requests(server), 10);
}

/* curl sends once more by itself when a kept-alive connection ends without an answer. That nobody
 * can be reached then says nothing of the first sending. */
static void keep_a_connection(void)
{
    cr_assert_not(store_head(store, "other", &(struct store_object){0}, NULL));
    object.leaves = true;
}

Test(s3_landed, ours_when_nobody_could_be_reached_again)
{
    g_autoptr(GError) error = NULL;

    keep_a_connection();
    cr_assert(store_write(store, "lease", "bytes", 5, "", NULL, &error), "%s",
              error ? error->message : "");
}

Test(s3_landed, an_upload_may_be_begun_twice_when_nobody_could_be_reached_again)
{
    g_autoptr(StoreCall) begin = store_call_new(STORE_BEGIN, "large");
    g_autoptr(GError) error = NULL;

    keep_a_connection();
    cr_assert(store_run(store, begin, &error), "%s", error ? error->message : "");
    cr_expect(begin->maybe_twice);
}
