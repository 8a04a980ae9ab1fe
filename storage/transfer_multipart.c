#include "storage/transfer_engine.h"

#include "config/error.h"
#include "config/log.h"
#include "storage/file_attrs.h"

#define ALIGN_BYTES (UINT64_C(1) << 20)

static void multipart_free(struct multipart *multipart)
{
    g_free(multipart->key);
    g_free(multipart->upload_id);
    g_ptr_array_unref(multipart->etags);
    g_free(multipart);
}

static uint64_t choose_part_bytes(const struct store_caps *caps, uint64_t size_bytes)
{
    uint64_t least = (size_bytes + caps->max_parts - 1) / caps->max_parts;
    uint64_t part = MAX(TRANSFER_PART_BYTES, caps->min_part_bytes);

    least = (least + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return MIN(MAX(part, least), caps->max_part_bytes);
}

static void begin_finished(struct transfer_task *task, void *user)
{
    struct multipart *multipart = user;

    multipart->begun = true;
    if (task->call->error) {
        multipart->failed = true;
        transfer_fail_call(multipart->transfer, task, "begin an upload of", multipart->key);
    } else {
        multipart->upload_id = g_strdup(task->call->upload_id);
    }
}

static bool check_size(const struct store_caps *caps, const char *key, uint64_t size_bytes,
                       uint64_t part_bytes, GError **error)
{
    if (size_bytes <= caps->max_object_bytes &&
        (size_bytes + part_bytes - 1) / part_bytes <= caps->max_parts)
        return true;
    return error_set(error, EFBIG, "%s: %" G_GUINT64_FORMAT " bytes are more than the store takes",
                     key, size_bytes);
}

struct multipart *multipart_begin(struct transfer *transfer, struct store *store, const char *key,
                                  GHashTable *metadata, uint64_t size_bytes)
{
    struct multipart *multipart = g_new0(struct multipart, 1);
    struct store_call *call;
    GError *error = NULL;

    multipart->transfer = transfer;
    multipart->store = store;
    multipart->key = g_strdup(key);
    multipart->size_bytes = size_bytes;
    multipart->part_bytes = choose_part_bytes(store_caps(store), size_bytes);
    multipart->etags = g_ptr_array_new_with_free_func(g_free);
    if (!check_size(store_caps(store), key, size_bytes, multipart->part_bytes, &error)) {
        transfer_fail(transfer, error);
        multipart_free(multipart);
        return NULL;
    }
    g_ptr_array_set_size(multipart->etags, (int)multipart_parts(multipart));
    call = store_call_new(STORE_BEGIN, key);
    call->metadata = metadata_copy(metadata);
    transfer_start(transfer, store, call, NULL, 0, begin_finished, multipart);
    while (!multipart->begun)
        transfer_step(transfer);
    if (!multipart->failed)
        return multipart;
    multipart_free(multipart);
    return NULL;
}

unsigned multipart_parts(const struct multipart *multipart)
{
    return (unsigned)((multipart->size_bytes + multipart->part_bytes - 1) / multipart->part_bytes);
}

uint64_t multipart_part_size(const struct multipart *multipart, unsigned index)
{
    return MIN(multipart->part_bytes, multipart->size_bytes - index * multipart->part_bytes);
}

static void abort_finished(struct transfer_task *task, void *user)
{
    struct multipart *multipart = user;

    if (task->call->error)
        log_warning("abort the upload of %s: %s", multipart->key, task->call->error->message);
    multipart_free(multipart);
}

static void start_abort(struct multipart *multipart)
{
    struct store_call *call = store_call_new(STORE_ABORT, multipart->key);

    call->upload_id = g_strdup(multipart->upload_id);
    transfer_start(multipart->transfer, multipart->store, call, NULL, 0, abort_finished, multipart);
}

/* The store says what it holds: its size must be what was sent. */
static void head_finished(struct transfer_task *task, void *user)
{
    struct multipart *multipart = user;
    GError *error = NULL;

    if (task->call->error) {
        transfer_fail_call(multipart->transfer, task, "check", multipart->key);
    } else if (task->call->object.size_bytes != multipart->size_bytes) {
        error_set(&error, EIO,
                  "%s: the store has %" G_GUINT64_FORMAT " bytes after an upload of "
                  "%" G_GUINT64_FORMAT,
                  multipart->key, task->call->object.size_bytes, multipart->size_bytes);
        transfer_fail(multipart->transfer, error);
    } else {
        transfer_file_done(multipart->transfer);
    }
    multipart_free(multipart);
}

static void commit_finished(struct transfer_task *task, void *user)
{
    struct multipart *multipart = user;

    if (task->call->error) {
        transfer_fail_call(multipart->transfer, task, "finish the upload of", multipart->key);
        start_abort(multipart);
        return;
    }
    transfer_start(multipart->transfer, multipart->store,
                   store_call_new(STORE_HEAD, multipart->key), NULL, 0, head_finished, multipart);
}

static void finish_if_last(struct multipart *multipart)
{
    struct store_call *call;

    if (!multipart->ended || multipart->pending)
        return;
    if (multipart->failed) {
        start_abort(multipart);
        return;
    }
    call = store_call_commit(multipart->key, multipart->upload_id);
    for (unsigned i = 0; i < multipart->etags->len; i++)
        store_call_add_part(call, i + 1, multipart->etags->pdata[i]);
    transfer_start(multipart->transfer, multipart->store, call, NULL, 0, commit_finished,
                   multipart);
}

void multipart_part_started(struct multipart *multipart)
{
    multipart->pending++;
}

void multipart_part_done(struct multipart *multipart, unsigned number, const char *etag)
{
    multipart->pending--;
    if (etag)
        multipart->etags->pdata[number - 1] = g_strdup(etag);
    else
        multipart->failed = true;
    finish_if_last(multipart);
}

void multipart_part_finished(struct transfer_task *task, void *user)
{
    struct multipart *multipart = user;
    struct store_call *call = task->call;
    GError *error = NULL;

    if (call->error) {
        transfer_fail_call(task->transfer, task, "upload", multipart->key);
    } else if (!call->part_etag || !*call->part_etag) {
        error_set(&error, EIO, "upload %s: the store gave no ETag for part %u", multipart->key,
                  call->part_number);
        transfer_fail(task->transfer, error);
    } else {
        transfer_bytes_done(task->transfer, multipart_part_size(multipart, call->part_number - 1));
        multipart_part_done(multipart, call->part_number, call->part_etag);
        return;
    }
    multipart_part_done(multipart, call->part_number, NULL);
}

void multipart_fail(struct multipart *multipart)
{
    multipart->failed = true;
}

void multipart_end(struct multipart *multipart)
{
    multipart->ended = true;
    finish_if_last(multipart);
}
