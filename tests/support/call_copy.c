#include "tests/support/call_copy.h"

struct store_call *call_copy_request(const struct store_call *call)
{
    struct store_call *copy = store_call_new(call->verb, call->key);

    copy->source_key = g_strdup(call->source_key);
    copy->if_match = g_strdup(call->if_match);
    copy->if_absent = call->if_absent;
    copy->upload_id = g_strdup(call->upload_id);
    copy->part_number = call->part_number;
    store_call_set_iov(copy, call->iov, call->iov_count);
    copy->offset = call->offset;
    copy->length = call->length;
    copy->metadata = call->metadata ? g_hash_table_ref(call->metadata) : NULL;
    for (unsigned i = 0; call->keys && i < call->keys->len; i++)
        g_ptr_array_add(copy->keys, g_strdup(call->keys->pdata[i]));
    for (unsigned i = 0; call->parts && i < call->parts->len; i++) {
        const struct store_part *part = &g_array_index(call->parts, struct store_part, i);

        store_call_add_part(copy, part->number, part->etag);
    }
    copy->delimiter = call->delimiter;
    copy->token = g_strdup(call->token);
    copy->start_after = g_strdup(call->start_after);
    copy->limit = call->limit;
    copy->deadline_ms = call->deadline_ms;
    copy->once = call->once;
    return copy;
}

#define MOVE(field)                                                                                \
    do {                                                                                           \
        void *moved = to->field;                                                                   \
        to->field = from->field;                                                                   \
        from->field = moved;                                                                       \
    } while (0)

void call_move_answer(struct store_call *to, struct store_call *from)
{
    struct store_object object = to->object;

    to->object = from->object;
    from->object = object;
    to->received_bytes = from->received_bytes;
    to->answered_ns = from->answered_ns;
    MOVE(upload_id);
    MOVE(part_etag);
    MOVE(failed_keys);
    MOVE(objects);
    MOVE(prefixes);
    MOVE(uploads);
    MOVE(next_token);
}
