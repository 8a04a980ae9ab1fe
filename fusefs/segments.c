#include "fusefs/segments.h"

static void segment_unref(struct segment *segment)
{
    if (--segment->refs)
        return;
    for (unsigned i = 0; i < segment->buffer_count; i++)
        buffer_unref(segment->buffers[i]);
    store_call_unref(segment->call);
    g_free(segment);
}

/* Memory for [start, end): all of it or none. */
static struct segment *segment_new(struct fs *fs, uint64_t start, uint64_t end, bool wanted)
{
    struct segment *segment = g_new0(struct segment, 1);

    segment->refs = 1;
    segment->fs = fs;
    segment->start = start;
    segment->end = end;
    for (uint64_t at = start; at < end; at += BUFFER_MAX) {
        size_t size = MIN(end - at, BUFFER_MAX);
        struct buffer *buffer =
            buffer_try_new(fs->budget, size, wanted ? BUDGET_WANTED : BUDGET_AHEAD);

        if (!buffer) {
            segment_unref(segment);
            return NULL;
        }
        segment->buffers[segment->buffer_count++] = buffer;
    }
    return segment;
}

static void prepare(struct inode *inode, struct segment *segment)
{
    struct iovec iov[SEGMENT_BUFFERS];
    uint64_t left = segment->end - segment->start;

    for (unsigned i = 0; i < segment->buffer_count; i++) {
        iov[i].iov_base = segment->buffers[i]->data;
        iov[i].iov_len = MIN(left, BUFFER_MAX);
        left -= iov[i].iov_len;
    }
    segment->inode = inode;
    segment->call = store_call_new(STORE_GET, inode->base_key);
    segment->call->offset = segment->start;
    segment->call->if_match = g_strdup(inode->etag);
    store_call_set_iov(segment->call, iov, segment->buffer_count);
    segment->refs++; /* segment_done's */
}

struct segment *segment_add(struct fs *fs, struct inode *inode, uint64_t start, uint64_t end,
                            bool wanted)
{
    struct segment *segment = segment_new(fs, start, end, wanted);
    GList *before = inode->segments.tail;

    if (!segment)
        return NULL;
    while (before && ((const struct segment *)before->data)->start > start)
        before = before->prev;
    if (before)
        g_queue_insert_after(&inode->segments, before, segment);
    else
        g_queue_push_head(&inode->segments, segment);
    prepare(inode, segment);
    return segment;
}

static void segment_done(struct store_call *call, void *user)
{
    struct segment *segment = user;
    struct inode *inode = segment->inode;
    struct fs *fs = segment->fs;

    pthread_mutex_lock(&inode->lock);
    segment->error = error_errno(call->error);
    if (!segment->error && call->received_bytes != segment->end - segment->start)
        segment->error = ESTALE; /* shorter than it was: not the object we knew */
    segment->state = segment->error ? SEGMENT_FAILED : SEGMENT_READY;
    segment_unref(segment);
    pthread_cond_broadcast(&inode->changed);
    pthread_mutex_unlock(&inode->lock);
    inode_unpin(fs, inode);
}

void segments_start(struct fs *fs, struct inode *inode, GPtrArray *segments)
{
    for (guint i = 0; i < segments->len; i++) {
        struct segment *segment = segments->pdata[i];

        inode_pin(fs, inode);
        store_start(fs->store, segment->call, segment_done, segment);
    }
    g_ptr_array_set_size(segments, 0);
}

uint64_t segments_gap_above(const struct inode *inode, uint64_t at, uint64_t end, uint64_t *room)
{
    *room = 0;
    for (const GList *link = inode->segments.head; link && at < end; link = link->next) {
        const struct segment *segment = link->data;

        if (segment->start > at) {
            *room = segment->start - at;
            return at;
        }
        at = MAX(at, segment->end);
    }
    if (at >= end)
        return end;
    *room = inode->base_size - at;
    return at;
}

uint64_t segments_gap_below(const struct inode *inode, uint64_t from, uint64_t at, uint64_t *room)
{
    *room = 0;
    for (const GList *link = inode->segments.tail; link && at > from; link = link->prev) {
        const struct segment *segment = link->data;

        if (segment->end < at) {
            *room = at - segment->end;
            return at;
        }
        at = MIN(at, segment->start);
    }
    if (at <= from)
        return from;
    *room = at;
    return at;
}

static int collect(struct inode *inode, uint64_t offset, uint64_t end, GPtrArray *held)
{
    for (GList *link = inode->segments.head; link && offset < end; link = link->next) {
        struct segment *segment = link->data;
        int error = segment->error;

        if (segment->end <= offset)
            continue;
        if (segment->start > offset)
            return ENODATA;
        if (segment->state == SEGMENT_FETCHING)
            return EAGAIN;
        if (segment->state == SEGMENT_FAILED) {
            g_queue_delete_link(&inode->segments, link);
            segment_unref(segment);
            return error;
        }
        segment->refs++;
        g_ptr_array_add(held, segment);
        offset = segment->end;
    }
    return offset < end ? ENODATA : 0;
}

int segments_collect(struct inode *inode, uint64_t offset, uint64_t end, GPtrArray *held)
{
    int error = collect(inode, offset, end, held);

    if (error)
        segments_release(held);
    return error;
}

void segments_release(GPtrArray *held)
{
    for (guint i = 0; i < held->len; i++)
        segment_unref(held->pdata[i]);
    g_ptr_array_set_size(held, 0);
}

void segments_reply(GPtrArray *held, uint64_t offset, uint64_t end, fs_reply *reply, void *user)
{
    GArray *iov = g_array_new(FALSE, FALSE, sizeof(struct iovec));

    for (guint i = 0; i < held->len; i++) {
        struct segment *segment = held->pdata[i];

        while (offset < MIN(end, segment->end)) {
            uint64_t inside = offset - segment->start;
            struct iovec piece;

            piece.iov_base = segment->buffers[inside / BUFFER_MAX]->data + inside % BUFFER_MAX;
            piece.iov_len = MIN(BUFFER_MAX - inside % BUFFER_MAX, MIN(end, segment->end) - offset);
            g_array_append_val(iov, piece);
            offset += piece.iov_len;
        }
    }
    reply(user, (struct iovec *)(void *)iov->data, iov->len);
    g_array_free(iov, TRUE);
}

void segments_prune(struct inode *inode,
                    bool (*is_wanted)(const struct inode *, const struct segment *))
{
    GList *next;

    for (GList *link = inode->segments.head; link; link = next) {
        struct segment *segment = link->data;

        next = link->next;
        if (is_wanted && is_wanted(inode, segment))
            continue;
        g_queue_delete_link(&inode->segments, link);
        segment_unref(segment);
    }
}
