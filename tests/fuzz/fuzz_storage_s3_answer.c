/* A whole answer of an S3 store: two bytes for the verb and the status, the headers' lines, an
 * empty line, the body. What the driver makes of it is a success or an error, never both or
 * neither. */
#include "storage/s3_op.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const unsigned statuses[] = {200, 206, 204, 400, 403, 404, 409, 412, 416, 301, 500, 503};

static char buffer[64];

static struct store_call *make_call(enum store_verb verb)
{
    struct store_call *call = store_call_new(verb, "key");
    struct iovec iov = {buffer, sizeof(buffer)};

    call->upload_id = g_strdup("upload");
    call->part_number = 1;
    store_call_set_iov(call, &iov, 1);
    store_call_add_part(call, 1, "0123456789abcdef0123456789abcdef");
    return call;
}

/* Takes the headers off TEXT; what is left is the body. */
static const char *take_headers(GHashTable *headers, const char *text)
{
    while (*text && *text != '\n') {
        size_t length = strcspn(text, "\n");
        g_autofree char *line = g_strndup(text, length);
        char *colon = strchr(line, ':');

        if (colon)
            g_hash_table_replace(headers, g_ascii_strdown(line, colon - line),
                                 g_strdup(g_strstrip(colon + 1)));
        text += length + (text[length] == '\n');
    }
    return *text ? text + 1 : text;
}

static void read_answer(struct s3_op *op)
{
    g_autofree char *why = NULL, *code = NULL;
    enum http_verdict verdict = s3_answer_judge(&op->http, HTTP_ACCEPT, &why);
    GError *error = NULL;
    bool ok;

    if (verdict == HTTP_RETRY)
        return;
    ok = s3_answer_take(op, &code, &error);
    g_assert(ok == !error);
    if (error)
        g_assert(g_utf8_validate(error->message, -1, NULL) && error->code);
    g_assert(!ok || op->call->received_bytes <= sizeof(buffer));
    g_assert(op->call->object.size_bytes <= INT64_MAX);
    g_clear_error(&error);
    s3_answer_landed(op);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct s3_store s3 = {.bucket = (char *)"bucket"};
    struct s3_op op = {.s3 = &s3, .has_checksum = true};
    g_autofree char *text = NULL;
    const char *body;

    if (size < 2)
        return 0;
    text = g_strndup((const char *)data + 2, size - 2);
    s3.uploads = s3_uploads_new();
    op.call = make_call(data[0] % STORE_VERBS);
    op.write_id = g_strdup("id");
    op.http.status = statuses[data[1] % G_N_ELEMENTS(statuses)];
    op.http.method = op.call->verb == STORE_HEAD ? "HEAD" : "GET";
    op.http.headers = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    body = take_headers(op.http.headers, text);
    op.http.body = g_string_new(body);
    if (op.call->verb == STORE_GET) {
        op.http.receive_iov = op.call->iov;
        op.http.received_bytes = MIN(strlen(body), sizeof(buffer));
    }
    if (op.call->verb == STORE_DELETE_MANY)
        op.odd_keys = g_ptr_array_new_with_free_func(g_free);
    read_answer(&op);
    s3_request_clear(&op);
    g_clear_pointer(&op.odd_keys, g_ptr_array_unref);
    g_free(op.write_id);
    store_call_unref(op.call);
    s3_uploads_free(s3.uploads);
    return 0;
}
