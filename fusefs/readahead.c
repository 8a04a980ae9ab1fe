/* Reading the base object: parallel ranged GETs ahead of whoever reads in sequence.
 *
 * A stream is one place in a file where somebody reads onwards, or downwards, as memcpy does of a
 * mapping at times. It keeps segments, each one GET into buffers of the budget, from a little
 * behind the reader (requests of one reader arrive out of order) to a window ahead. A read that
 * continues no stream starts one, with a segment as large as itself; from the second read on that
 * does continue it, each doubles the window, of which a segment is a quarter: scattered reads fetch
 * what they ask for, and a sequential reader soon keeps several large GETs in flight. How far a
 * read may be from where it is expected grows with the window. A read of what a stream has fetched
 * is answered from there, wherever it is, and widens nothing.
 *
 * When there is no memory for what a reader waits for, streams give way: the least used of this
 * file first, then those of others; if that does not help either, the bytes are fetched past them.
 *
 * threads: inode->lock guards streams and segments; a segment's memory is written by the store's
 *          threads while FETCHING and read-only afterwards.
 */
#include "fusefs/fs_internal.h"

#include <string.h>

#define SEGMENT_MIN       (1u << 20)
#define SEGMENT_MAX       (8u << 20)
#define SEGMENT_BUFFERS   (SEGMENT_MAX / BUFFER_MAX)
#define WINDOW_MAX        (64ull << 20)
#define BEHIND            (4ull << 20)   /* kept behind the furthest read */
#define JUMP_MIN          (128ull << 10) /* a read this far from its place still continues a stream */
#define JUMP_MAX          (8ull << 20)
#define IDLE_MS           300 /* a stream that is not used this long gives way when memory is short */
#define DIRECT_AFTER      5   /* waits for memory, before bytes are fetched past all streams */
#define STREAMS_MAX       16
#define RECENT            4
#define READ_TIMEOUT_MS   100
#define MEMORY_TIMEOUT_MS 20

enum segment_state { SEGMENT_FETCHING, SEGMENT_READY, SEGMENT_FAILED };

struct segment {
    struct fs *fs;
    struct inode *inode; /* pinned while FETCHING */
    uint64_t start, end;
    struct buffer *buffers[SEGMENT_BUFFERS];
    unsigned buffer_count;
    enum segment_state state;
    int error;
    unsigned refs;
    struct store_call *call;
};

struct stream {
    uint64_t begin;          /* where it was begun; of one downwards its upper end */
    uint64_t start, fetched; /* what the segments hold */
    uint64_t position;       /* the furthest end of a read; downwards the lowest begin */
    uint64_t window, segment_bytes;
    unsigned run; /* reads that continued it */
    bool is_down;
    int64_t used_ms;
    GQueue segments;
};

static void segment_unref(struct segment *segment)
{
    if (--segment->refs)
        return;
    for (unsigned i = 0; i < segment->buffer_count; i++)
        buffer_unref(segment->buffers[i]);
    store_call_unref(segment->call);
    g_free(segment);
}

static void stream_free(struct stream *stream)
{
    struct segment *segment;

    while ((segment = g_queue_pop_head(&stream->segments)))
        segment_unref(segment);
    g_free(stream);
}

void streams_drop(struct inode *inode)
{
    struct stream *stream;

    while ((stream = g_queue_pop_head(&inode->streams)))
        stream_free(stream);
}

void streams_trim(struct inode *inode)
{
    int64_t now = now_ms();
    struct stream *last;

    while ((last = g_queue_peek_tail(&inode->streams)) && now - last->used_ms > IDLE_MS)
        stream_free(g_queue_pop_tail(&inode->streams));
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

/* inode->lock held; the caller starts the call after dropping it. */
static void segment_prepare(struct inode *inode, struct segment *segment)
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

/* The kernel reads ahead in several requests at once, which arrive in any order. One read alone may
 * be anybody's. */
static uint64_t tolerance(const struct stream *stream, uint64_t size)
{
    if (!stream->run)
        return size;
    return CLAMP(MAX(stream->window / 2, 4 * size), JUMP_MIN, JUMP_MAX);
}

static bool has_fetched(const struct stream *stream, uint64_t offset, uint64_t end)
{
    return offset >= stream->start && end <= stream->fetched;
}

/* Whether a read is about where the stream's reader is. */
static bool continues(const struct stream *stream, uint64_t offset, uint64_t end)
{
    uint64_t ahead = tolerance(stream, end - offset), behind = MIN(BEHIND, ahead);

    if (stream->is_down)
        return offset < stream->position &&
               end + MAX(ahead, 2 * (end - offset)) >= stream->position;
    return offset + behind >= stream->position && offset <= stream->position + ahead &&
           offset >= stream->start && offset <= stream->fetched + ahead;
}

/* How well a stream suits a read; 0: not at all. One that has the bytes goes first, else a second
 * stream beside it would fetch them again, and all that follows too. */
static unsigned suits(const struct stream *stream, uint64_t offset, uint64_t end)
{
    return has_fetched(stream, offset, end) * 2u + continues(stream, offset, end);
}

static struct stream *find_stream(struct inode *inode, uint64_t offset, uint64_t end)
{
    GList *found = NULL;
    struct stream *stream;
    unsigned best = 0;

    for (GList *link = inode->streams.head; link; link = link->next) {
        unsigned here = suits(link->data, offset, end);

        if (here > best) {
            best = here;
            found = link;
        }
    }
    if (!found)
        return NULL;
    stream = found->data;
    stream->used_ms = now_ms();
    g_queue_unlink(&inode->streams, found); /* most recent first */
    g_queue_push_head_link(&inode->streams, found);
    return stream;
}

/* The stream, of those used last, that begins close above where a read begins. */
static const struct stream *stream_above(const struct inode *inode, uint64_t offset, uint64_t end)
{
    const GList *link = inode->streams.head->next;

    for (unsigned i = 0; link && i < RECENT; i++, link = link->next) {
        const struct stream *stream = link->data;

        if (!stream->is_down && stream->begin > offset && stream->begin <= end + 2 * (end - offset))
            return stream;
    }
    return NULL;
}

/* One that begins close below another goes downwards, from there. */
static struct stream *new_stream(struct inode *inode, uint64_t offset, uint64_t end)
{
    struct stream *stream = g_new0(struct stream, 1);
    const struct stream *above;

    stream->used_ms = now_ms();
    g_queue_init(&stream->segments);
    g_queue_push_head(&inode->streams, stream);
    above = stream_above(inode, offset, end);
    stream->is_down = above != NULL;
    stream->segment_bytes = MAX(end - offset, 4096);
    stream->begin = above ? MAX(above->begin, end) : offset;
    stream->start = stream->fetched = stream->begin;
    stream->position = above ? offset : end;
    if (g_queue_get_length(&inode->streams) > STREAMS_MAX)
        stream_free(g_queue_pop_tail(&inode->streams));
    return stream;
}

/* How far ahead to fetch. A file with several streams is read in pieces (tensors in any order), and
 * what is fetched behind a piece's end is lost: there, half as much as was read in one go. */
static uint64_t next_window(const struct inode *inode, const struct stream *stream,
                            uint64_t window_max)
{
    uint64_t read =
        stream->is_down ? stream->begin - stream->position : stream->position - stream->begin;
    uint64_t most = inode->streams.length > 1 ? read / 2 : window_max;

    return MIN(MAX(stream->window * 2, SEGMENT_MIN), CLAMP(most, SEGMENT_MIN, window_max));
}

/* Of what lies well behind the reader. */
static void let_go_below(struct stream *stream)
{
    struct segment *first;

    while ((first = g_queue_peek_head(&stream->segments)) &&
           first->end + BEHIND <= stream->position && first->state != SEGMENT_FETCHING) {
        stream->start = first->end;
        segment_unref(g_queue_pop_head(&stream->segments));
    }
}

static void let_go_above(struct stream *stream)
{
    struct segment *last;

    while ((last = g_queue_peek_tail(&stream->segments)) &&
           last->start >= stream->position + BEHIND && last->state != SEGMENT_FETCHING) {
        stream->fetched = last->start;
        segment_unref(g_queue_pop_tail(&stream->segments));
    }
}

/* The reader went on: widen, and let go of what it has left behind. */
static void stream_advance(const struct inode *inode, struct stream *stream, uint64_t offset,
                           uint64_t end, uint64_t window_max)
{
    stream->position = stream->is_down ? MIN(stream->position, offset) : MAX(stream->position, end);
    if (stream->run++ == 0 && !stream->is_down)
        return;
    stream->window = next_window(inode, stream, window_max);
    stream->segment_bytes = CLAMP(stream->window / 4, SEGMENT_MIN, SEGMENT_MAX);
    if (stream->is_down)
        let_go_above(stream);
    else
        let_go_below(stream);
}

/* A segment of SIZE bytes, or of the least size where a reader waits for it, behind all of STREAM's
 * or below them. NULL: no memory. */
static struct segment *add_segment(struct fs *fs, struct inode *inode, struct stream *stream,
                                   bool below, uint64_t size, bool wanted)
{
    uint64_t at = below ? stream->start - size : stream->fetched;
    struct segment *segment = segment_new(fs, at, at + size, wanted);

    if (!segment)
        return wanted && size > SEGMENT_MIN
                   ? add_segment(fs, inode, stream, below, SEGMENT_MIN, true)
                   : NULL;
    segment_prepare(inode, segment);
    if (below) {
        g_queue_push_head(&stream->segments, segment);
        stream->start = segment->start;
    } else {
        g_queue_push_tail(&stream->segments, segment);
        stream->fetched = segment->end;
    }
    return segment;
}

/* Adds segments for [OFFSET, END), which a reader waits for, and on through the window as memory
 * allows. False: no memory for what is waited for. */
static bool stream_extend(struct fs *fs, struct inode *inode, struct stream *stream,
                          uint64_t offset, uint64_t end, GPtrArray *to_start)
{
    uint64_t ahead = stream->is_down ? 0 : stream->position + stream->window;
    uint64_t until = MIN(MAX(end, ahead), inode->base_size), from = stream->start;

    if (stream->is_down)
        from = MIN(offset, stream->position - MIN(stream->window, stream->position));
    while (stream->fetched < until || stream->start > from) {
        bool below = stream->fetched >= until;
        bool wanted = below ? stream->start > offset : stream->fetched < end;
        uint64_t left = below ? stream->start - from : inode->base_size - stream->fetched;
        struct segment *segment =
            add_segment(fs, inode, stream, below, MIN(stream->segment_bytes, left), wanted);

        if (!segment)
            return !wanted;
        g_ptr_array_add(to_start, segment);
    }
    return true;
}

static void start_segments(struct fs *fs, struct inode *inode, GPtrArray *segments)
{
    for (guint i = 0; i < segments->len; i++) {
        struct segment *segment = segments->pdata[i];

        inode_pin(fs, inode);
        store_start(fs->store, segment->call, segment_done, segment);
    }
    g_ptr_array_set_size(segments, 0);
}

/* References to the segments that hold [offset, end), in order; 0 when all are there and ready,
 * EAGAIN when one is still fetched, ENODATA when one is gone, else its error. */
static int collect(struct stream *stream, uint64_t offset, uint64_t end, GPtrArray *held)
{
    for (GList *link = stream->segments.head; link && offset < end; link = link->next) {
        struct segment *segment = link->data;

        if (segment->end <= offset)
            continue;
        if (segment->start > offset)
            return ENODATA;
        if (segment->state == SEGMENT_FETCHING)
            return EAGAIN;
        if (segment->state == SEGMENT_FAILED)
            return segment->error;
        segment->refs++;
        g_ptr_array_add(held, segment);
        offset = segment->end;
    }
    return offset < end ? ENODATA : 0;
}

static void release_held(GPtrArray *held)
{
    for (guint i = 0; i < held->len; i++)
        segment_unref(held->pdata[i]);
    g_ptr_array_set_size(held, 0);
}

static void reply_segments(GPtrArray *held, uint64_t offset, uint64_t end, fs_reply *reply,
                           void *user)
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

/* Drops the stream that was used least, but not KEPT. False: there is no other. */
static bool drop_another(struct inode *inode, const struct stream *kept)
{
    struct stream *last = g_queue_peek_tail(&inode->streams);

    if (!last || last == kept)
        return false;
    stream_free(g_queue_pop_tail(&inode->streams));
    return true;
}

/* One try, with inode->lock held: 0 with HELD filled, EAGAIN to wait and try again, ENOMEM when
 * there is no memory to wait for. */
static int try_read(struct fs *fs, struct inode *inode, uint64_t offset, uint64_t end,
                    GPtrArray *to_start, GPtrArray *held, bool *advanced)
{
    struct stream *stream = find_stream(inode, offset, end);
    uint64_t window_max = MIN(WINDOW_MAX, budget_limit_bytes(fs->budget) / 4);
    int error;

    if (!stream) {
        stream = new_stream(inode, offset, end);
        *advanced = true; /* the first read of a stream widens nothing */
    }
    if (!*advanced && continues(stream, offset, end))
        stream_advance(inode, stream, offset, end, window_max);
    *advanced = true;
    while (!stream_extend(fs, inode, stream, offset, end, to_start))
        if (!drop_another(inode, stream))
            return ENOMEM;
    error = collect(stream, offset, end, held);
    if (error && error != EAGAIN) {
        release_held(held);
        g_queue_remove(&inode->streams, stream);
        stream_free(stream);
    } else if (error) {
        release_held(held);
    }
    return error;
}

/* What is asked for and no more, into memory of the reply's own: the way that always goes on. */
static int read_direct(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                       uint64_t offset, size_t size, fs_reply *reply, void *user)
{
    g_autofree char *data = g_try_malloc(size), *key = NULL, *etag = NULL;
    struct iovec iov = {data, size};
    int error;

    if (!data)
        return ENOMEM;
    pthread_mutex_lock(&inode->lock);
    key = g_strdup(inode->base_key);
    etag = g_strdup(inode->etag);
    pthread_mutex_unlock(&inode->lock);
    error = base_fetch(fs, caller, key, etag, offset, data, size);
    if (!error)
        reply(user, &iov, 1);
    return error;
}

/* Waits for what try_read said is missing. inode->lock held. */
static int wait_for_bytes(struct fs *fs, struct fs_caller *caller, struct inode *inode, int error,
                          unsigned *waits)
{
    if (is_interrupted(caller))
        return EINTR;
    if (error == ENOMEM) {
        if (++*waits > DIRECT_AFTER)
            return ENOMEM;
        pthread_mutex_unlock(&inode->lock);
        make_room(fs);
        pthread_mutex_lock(&inode->lock);
    }
    wait_changed(inode, error == ENOMEM ? MEMORY_TIMEOUT_MS : READ_TIMEOUT_MS);
    return EAGAIN;
}

/* Fills HELD with the segments of [offset, end). inode->lock held, and dropped meanwhile. */
static int fill(struct fs *fs, struct fs_caller *caller, struct inode *inode, uint64_t offset,
                uint64_t end, GPtrArray *held)
{
    g_autoptr(GPtrArray) to_start = g_ptr_array_new();
    bool advanced = false;
    unsigned waits = 0, lost = 0;
    int error;

    do {
        error = try_read(fs, inode, offset, end, to_start, held, &advanced);
        if (to_start->len) {
            pthread_mutex_unlock(&inode->lock);
            start_segments(fs, inode, to_start);
            pthread_mutex_lock(&inode->lock);
            if (error == EAGAIN)
                continue;
        }
        if (error == ENODATA && lost++ < 3)
            error = EAGAIN;
        else if (error == EAGAIN || error == ENOMEM)
            error = wait_for_bytes(fs, caller, inode, error, &waits);
    } while (error == EAGAIN);
    return error;
}

int base_read(struct fs *fs, struct fs_caller *caller, struct inode *inode, uint64_t offset,
              size_t size, fs_reply *reply, void *user)
{
    g_autoptr(GPtrArray) held = g_ptr_array_new();
    uint64_t end;
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    end = MAX(MIN(offset + size, inode->base_size), offset);
    if (offset < end)
        error = fill(fs, caller, inode, offset, end, held);
    pthread_mutex_unlock(&inode->lock);
    if (error == ENOMEM)
        return read_direct(fs, caller, inode, offset, end - offset, reply, user);
    if (error)
        return error == ENODATA ? EAGAIN : error; /* the object has become another one */
    reply_segments(held, offset, end, reply, user);
    pthread_mutex_lock(&inode->lock);
    release_held(held);
    pthread_mutex_unlock(&inode->lock);
    return 0;
}

int base_fetch(struct fs *fs, struct fs_caller *caller, const char *key, const char *etag,
               uint64_t offset, void *data, size_t size)
{
    g_autoptr(StoreCall) call = store_call_get(key, offset, data, size);
    int error;

    call->if_match = g_strdup(etag);
    error = run_call(fs, caller, call);
    if (error == ENOENT || (!error && call->received_bytes != size))
        error = ESTALE; /* it was removed, or is another one */
    return error;
}
