#include "storage/transfer_engine.h"

#include "config/error.h"
#include "storage/file_attrs.h"
#include "storage/keys.h"

#include <inttypes.h>
#include <string.h>

struct copy {
    struct transfer transfer;
    struct store *from, *to;
    const char *from_prefix, *to_prefix;
    GQueue todo; /* struct copy_item */
};

struct copy_item {
    struct copy *copy;
    char *from_key, *to_key, *etag;
    uint64_t size_bytes;
    bool is_known; /* metadata were looked at */
    GHashTable *metadata;
    int64_t mtime_ns;
};

/* One part of a large object between its GET and its PART. */
struct copy_part {
    struct multipart *multipart;
    struct store *to;
    unsigned index;
};

static void item_free(struct copy_item *item)
{
    g_free(item->from_key);
    g_free(item->to_key);
    g_free(item->etag);
    g_clear_pointer(&item->metadata, g_hash_table_unref);
    g_free(item);
}

static bool is_server_side(const struct copy *copy)
{
    return copy->from == copy->to;
}

static void put_finished(struct transfer_task *task, void *user)
{
    struct copy_item *item = user;

    if (task->call->error) {
        transfer_fail_call(task->transfer, task, "copy to", item->to_key);
    } else {
        transfer_bytes_done(task->transfer, item->size_bytes);
        transfer_file_done(task->transfer);
    }
    item_free(item);
}

static void copy_whole(struct copy_item *item)
{
    struct store_call *call = store_call_new(STORE_COPY, item->to_key);

    call->source_key = g_strdup(item->from_key);
    call->if_match = g_strdup(item->etag);
    transfer_start(&item->copy->transfer, item->copy->to, call, NULL, 0, put_finished, item);
}

static void get_finished(struct transfer_task *task, void *user)
{
    struct copy_item *item = user;
    struct store_call *call;
    GError *error = NULL;

    if (!task->call->error && task->call->received_bytes != item->size_bytes)
        error_set(&error, EIO, "copy %s: %" PRIu64 " bytes came of %" PRIu64, item->from_key,
                  task->call->received_bytes, item->size_bytes);
    if (!task->call->error && !item->size_bytes && task->call->object.size_bytes)
        error_set(&error, ESTALE, "copy %s: the object has changed", item->from_key);
    if (task->call->error)
        transfer_fail_call(task->transfer, task, "copy", item->from_key);
    else if (error)
        transfer_fail(task->transfer, error);
    if (task->transfer->error) {
        item_free(item);
        return;
    }
    call = store_call_put(item->to_key, task->buffer, item->size_bytes);
    call->metadata = metadata_copy(task->call->object.metadata);
    transfer_start(task->transfer, item->copy->to, call, g_steal_pointer(&task->buffer),
                   task->bytes, put_finished, item);
}

static void copy_through(struct copy_item *item)
{
    struct transfer *transfer = &item->copy->transfer;
    void *buffer = transfer_buffer(transfer, item->size_bytes, item->from_key);
    struct store_call *call;

    if (!buffer) {
        item_free(item);
        return;
    }
    if (item->size_bytes) {
        call = store_call_get(item->from_key, 0, buffer, item->size_bytes);
        call->if_match = g_strdup(item->etag);
    } else {
        call = store_call_new(STORE_HEAD, item->from_key);
    }
    transfer_start(transfer, item->copy->from, call, buffer, item->size_bytes, get_finished, item);
}

/* --- large ones --- */

static void part_got(struct transfer_task *task, void *user)
{
    g_autofree struct copy_part *part = user;
    struct multipart *multipart = part->multipart;
    uint64_t size = multipart_part_size(multipart, part->index);
    struct store_call *call;
    GError *error = NULL;

    if (!task->call->error && task->call->received_bytes != size)
        error_set(&error, EIO, "copy %s: the object ended early", task->call->key);
    if (task->call->error)
        transfer_fail_call(task->transfer, task, "copy", task->call->key);
    else if (error)
        transfer_fail(task->transfer, error);
    if (task->transfer->error) {
        multipart_part_done(multipart, part->index + 1, NULL);
        return;
    }
    call =
        store_call_part(multipart->key, multipart->upload_id, part->index + 1, task->buffer, size);
    transfer_start(task->transfer, part->to, call, g_steal_pointer(&task->buffer), task->bytes,
                   multipart_part_finished, multipart);
}

static bool start_part(const struct copy_item *item, struct multipart *multipart, unsigned index)
{
    struct transfer *transfer = multipart->transfer;
    uint64_t size = multipart_part_size(multipart, index), offset = index * multipart->part_bytes;
    bool by_server = is_server_side(item->copy) && store_caps(item->copy->to)->has_copy_part;
    struct copy_part *part;
    struct store_call *call;
    void *buffer;

    if (!transfer_room(transfer, by_server ? 0 : size))
        return false;
    if (by_server) {
        call = store_call_new(STORE_COPY_PART, item->to_key);
        call->upload_id = g_strdup(multipart->upload_id);
        call->part_number = index + 1;
        call->source_key = g_strdup(item->from_key);
        call->if_match = g_strdup(item->etag);
        call->offset = offset;
        call->length = size;
        multipart_part_started(multipart);
        transfer_start(transfer, item->copy->to, call, NULL, 0, multipart_part_finished, multipart);
        return true;
    }
    buffer = transfer_buffer(transfer, size, item->from_key);
    if (!buffer)
        return false;
    part = g_new(struct copy_part, 1);
    *part = (struct copy_part){multipart, item->copy->to, index};
    call = store_call_get(item->from_key, offset, buffer, size);
    call->if_match = g_strdup(item->etag);
    multipart_part_started(multipart);
    transfer_start(transfer, item->copy->from, call, buffer, size, part_got, part);
    return true;
}

static void copy_parts(struct copy_item *item)
{
    struct multipart *multipart = multipart_begin(&item->copy->transfer, item->copy->to,
                                                  item->to_key, item->metadata, item->size_bytes);
    unsigned index = 0;

    if (multipart) {
        while (index < multipart_parts(multipart) && start_part(item, multipart, index))
            index++;
        if (index < multipart_parts(multipart))
            multipart_fail(multipart);
        multipart_end(multipart);
    }
    item_free(item);
}

/* --- looking first: for metadata, and for what is there already --- */

static bool is_same(const struct copy_item *item, const struct store_object *there)
{
    struct store_object here = {.metadata = item->metadata};
    struct file_attrs ours = {0}, theirs = {0};

    if (there->size_bytes != item->size_bytes || !there->metadata ||
        !g_hash_table_contains(there->metadata, "mtime") ||
        !g_hash_table_contains(item->metadata, "mtime"))
        return false;
    file_attrs_load(&ours, &here);
    file_attrs_load(&theirs, there);
    return ours.mtime_ns == theirs.mtime_ns && ours.mode == theirs.mode;
}

static void there_finished(struct transfer_task *task, void *user)
{
    struct copy_item *item = user;

    if (task->call->error && !error_is(task->call->error, ENOENT)) {
        transfer_fail_call(task->transfer, task, "look at", item->to_key);
        item_free(item);
    } else if (!task->call->error && is_same(item, &task->call->object)) {
        transfer_file_skipped(task->transfer, item->size_bytes);
        item_free(item);
    } else {
        g_queue_push_tail(&item->copy->todo, item);
    }
}

static void here_finished(struct transfer_task *task, void *user)
{
    struct copy_item *item = user;

    if (task->call->error) {
        transfer_fail_call(task->transfer, task, "look at", item->from_key);
        item_free(item);
        return;
    }
    item->is_known = true;
    item->metadata = metadata_copy(task->call->object.metadata);
    if (task->transfer->options->only_changed)
        transfer_start(task->transfer, item->copy->to, store_call_new(STORE_HEAD, item->to_key),
                       NULL, 0, there_finished, item);
    else
        g_queue_push_tail(&item->copy->todo, item);
}

static void copy_item(struct copy_item *item)
{
    struct transfer *transfer = &item->copy->transfer;
    bool by_server = is_server_side(item->copy) &&
                     item->size_bytes <= store_caps(item->copy->to)->max_copy_bytes;
    bool is_small = by_server || item->size_bytes <= TRANSFER_PART_BYTES;

    if (!transfer_room(transfer, is_small && !by_server ? item->size_bytes : 0))
        item_free(item);
    else if (!item->is_known && (!is_small || transfer->options->only_changed))
        transfer_start(transfer, item->copy->from, store_call_new(STORE_HEAD, item->from_key), NULL,
                       0, here_finished, item);
    else if (by_server)
        copy_whole(item);
    else if (is_small)
        copy_through(item);
    else
        copy_parts(item);
}

static void copy_todo(struct copy *copy)
{
    struct copy_item *item;

    while ((item = g_queue_pop_head(&copy->todo)))
        copy_item(item);
}

static bool each_object(const struct store_object *object, void *user, GError **error)
{
    struct copy *copy = user;
    struct copy_item *item;

    if (keys_is_of_mount(object->key))
        return transfer_goes_on(&copy->transfer);
    item = g_new0(struct copy_item, 1);
    item->copy = copy;
    item->from_key = g_strdup(object->key);
    item->to_key = g_strconcat(copy->to_prefix, object->key + strlen(copy->from_prefix), NULL);
    item->etag = g_strdup(object->etag);
    item->size_bytes = object->size_bytes;
    transfer_found(&copy->transfer, object->size_bytes);
    copy_item(item);
    copy_todo(copy);
    return transfer_goes_on(&copy->transfer);
}

bool transfer_copy(struct store *from, const char *from_prefix, struct store *to,
                   const char *to_prefix, const struct transfer_options *options,
                   struct transfer_result *result, GError **error)
{
    struct copy copy = {.from = from, .to = to, .from_prefix = from_prefix, .to_prefix = to_prefix};
    GError *failure = NULL;

    transfer_init(&copy.transfer, options,
                  MIN(store_caps(from)->parallel, store_caps(to)->parallel));
    transfer_count_list(&copy.transfer, from, from_prefix);
    if (!store_list(from, from_prefix, false, each_object, &copy, &failure))
        transfer_fail(&copy.transfer, failure);
    copy.transfer.progress.counting = false;
    do
        copy_todo(&copy);
    while (transfer_step(&copy.transfer));
    return transfer_end(&copy.transfer, result, error);
}
