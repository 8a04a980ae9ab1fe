/* Reading the base object: parallel ranged GETs ahead of whoever reads in sequence.
 *
 * A stream is one place in a file where somebody reads onwards, up or down. It knows what was read,
 * and which bytes are kept in memory for it (segments.h): from a little behind the reader (requests
 * of one reader arrive out of order) to a window ahead. A read that continues no stream starts one,
 * which fetches no more than was asked for; from the second read on that does continue it, each
 * doubles the window, of which a segment is a quarter: scattered reads fetch what they ask for, and
 * a sequential reader soon keeps several large GETs in flight. How far a read may be from where it
 * is expected grows with the window. A read of what is there already, away from where a stream goes
 * on, is answered and widens nothing.
 *
 * What the kernel was given is in its page cache and is not fetched ahead again; it may have
 * dropped that since, and then it asks again, and all of it counts as dropped.
 *
 * When there is no memory for what a reader waits for, streams give way: the least used of this
 * file first, then those of others; if that does not help either, the bytes are fetched past them.
 *
 * threads: inode->lock guards streams.
 */
#include "fusefs/segments.h"

#include <string.h>

#define WINDOW_MAX        (64ull << 20)
#define WINDOW_MAPPED     (128ull << 20) /* of who comes back in order, from far ends it waits for */
#define GIVEN_MIN         SEGMENT_MIN /* what is less is fetched again rather than in small pieces */
#define BEHIND            (8ull << 20)   /* kept behind the furthest read */
#define JUMP_MIN          (128ull << 10) /* a read this far from its place still continues a stream */
#define JUMP_MAX          (8ull << 20)
#define FAULT_BYTES       (2ull << 20) /* what the kernel reads around a page of a mapping, in... */
#define FAULT_READ_BYTES  (FAULT_BYTES / 4) /* ...requests of this size or more, in any order */
#define PIECE_MIN         (4ull << 20)
#define IN_ORDER_MIN      (16ull << 20) /* a place where so much was read, and to which... */
#define IN_ORDER_AFTER    2   /* ...the reader came back so often, is where it reads everything */
#define ENDS_MET          2   /* pieces that went to the other end, until the next is believed to */
#define ENDS_MISSED       2   /* in a row: the far ends themselves, and pieces of one fault */
#define IDLE_MS           300 /* a stream that is not used this long gives way when memory is short */
#define DIRECT_AFTER      5   /* waits for memory, before bytes are fetched past all streams */
#define DIRECT_WAIT_MS    60000 /* as long as a request may take */
#define STREAMS_MAX       16
#define READ_TIMEOUT_MS   100
#define MEMORY_TIMEOUT_MS 20

struct stream {
    uint64_t begin;     /* of its first read */
    uint64_t entry;     /* of the first since the reader was last elsewhere */
    uint64_t low, high; /* what was read, more or less */
    uint64_t from, to;  /* what is kept for it */
    uint64_t other_end; /* where the reader was before, or went since: of a piece, perhaps */
    uint64_t window, segment_bytes;
    unsigned run;     /* reads that continued it */
    unsigned returns; /* of a reader that was elsewhere, and went on where it had left */
    bool is_down;     /* the last of them went on below the others */
    int64_t used_ms;
};

/* One that is still fetched may be waited for. */
static bool is_wanted(const struct inode *inode, const struct segment *segment)
{
    if (segment->state == SEGMENT_FETCHING)
        return true;
    for (const GList *link = inode->streams.head; link; link = link->next) {
        const struct stream *stream = link->data;

        if (segment->start < stream->to && segment->end > stream->from)
            return true;
    }
    return false;
}

void streams_drop(struct inode *inode)
{
    struct stream *stream;

    while ((stream = g_queue_pop_head(&inode->streams)))
        g_free(stream);
    segments_prune(inode, NULL);
    ranges_clear(&inode->given);
    inode->pieces[0] = inode->pieces[1] = 0;
    inode->ends_met = inode->ends_missed = 0;
}

void streams_trim(struct inode *inode)
{
    int64_t now = now_ms();
    struct stream *last;

    while ((last = g_queue_peek_tail(&inode->streams)) && now - last->used_ms > IDLE_MS)
        g_free(g_queue_pop_tail(&inode->streams));
    segments_prune(inode, is_wanted); /* those too that were still fetched the last time */
}

/* The kernel reads ahead, and around a page of a mapping, in several requests at once, which arrive
 * in any order. One small read alone may be anybody's. */
static uint64_t tolerance(const struct stream *stream, uint64_t size)
{
    if (!stream->run)
        return size < FAULT_READ_BYTES ? size : FAULT_BYTES;
    return CLAMP(MAX(stream->window / 2, 4 * size), JUMP_MIN, JUMP_MAX);
}

enum place { ELSEWHERE, INSIDE, BACKWARDS, ONWARDS };

/* Where a read is: about where the stream's reader goes on (behind what it finds in the page
 * cache), at the other end of what was read, or somewhere among what is kept. */
static enum place place_of(const struct inode *inode, const struct stream *stream, uint64_t offset,
                           uint64_t end)
{
    uint64_t ahead = tolerance(stream, end - offset), behind = MIN(BEHIND, ahead), any;
    uint64_t high = ranges_gap_above(&inode->given, stream->high, GIVEN_MIN, &any);
    uint64_t low = ranges_gap_below(&inode->given, stream->low, GIVEN_MIN, &any);
    bool is_above = offset + behind >= stream->high && offset <= high + ahead;
    bool is_below = offset <= stream->low + behind && end + ahead >= low;

    if (stream->is_down ? is_below : is_above)
        return ONWARDS;
    if (stream->is_down ? is_above : is_below && offset < stream->low)
        return BACKWARDS;
    return offset >= stream->from && end <= stream->to ? INSIDE : ELSEWHERE;
}

/* How much was read since the reader came to STREAM, in the direction in which it goes on. */
static uint64_t went_bytes(const struct stream *stream)
{
    return stream->is_down ? MAX(stream->entry, stream->low) - stream->low
                           : stream->high - MIN(stream->entry, stream->high);
}

/* The same of the piece that it is in: the other end is where another one begins. */
static uint64_t piece_bytes(const struct stream *stream)
{
    uint64_t went = went_bytes(stream);

    if (stream->is_down && stream->other_end >= stream->low && stream->other_end < stream->entry)
        return stream->other_end - stream->low;
    if (!stream->is_down && stream->other_end <= stream->high && stream->other_end > stream->entry)
        return stream->high - stream->other_end;
    return went;
}

/* Whether what was read, and what the kernel has around the other end, is all between the two. */
static bool has_met_end(const struct stream *stream)
{
    return stream->is_down ? stream->other_end < stream->entry &&
                                 stream->low <= stream->other_end + 2 * FAULT_BYTES
                           : stream->other_end > stream->entry &&
                                 stream->high + 2 * FAULT_BYTES >= stream->other_end;
}

/* The reader leaves LAST. */
static void note_end(struct inode *inode, const struct stream *last)
{
    if (last->run && has_met_end(last)) {
        inode->ends_met++;
        inode->ends_missed = 0;
    } else if (last->run && ++inode->ends_missed > ENDS_MISSED) {
        inode->ends_met = 0;
    }
}

/* The reader comes to STREAM, at OFFSET. What it reads is another piece, if it does not go on there
 * where it left. */
static void arrive(struct inode *inode, struct stream *stream, uint64_t offset, enum place place)
{
    struct stream *last = g_queue_peek_head(&inode->streams);

    stream->used_ms = now_ms();
    if (last == stream)
        return;
    if (place == ONWARDS && went_bytes(stream) > IN_ORDER_MIN)
        stream->returns = g_queue_peek_nth(&inode->streams, 1) == stream ? stream->returns + 1 : 0;
    if (place != ONWARDS) {
        stream->entry = offset;
        stream->other_end = last ? last->entry : offset;
    }
    if (last)
        note_end(inode, last);
    if (last && went_bytes(last) > PIECE_MIN) {
        inode->pieces[1] = inode->pieces[0];
        inode->pieces[0] = went_bytes(last);
    }
    if (last)
        last->other_end = offset;
    g_queue_remove(&inode->streams, stream);
    g_queue_push_head(&inode->streams, stream); /* most recent first */
}

/* The stream that a read continues, of several the one used last (a reader that comes down to where
 * another began is not the other); else one for which the bytes are kept. */
static struct stream *find_stream(struct inode *inode, uint64_t offset, uint64_t end,
                                  enum place *place)
{
    struct stream *inside = NULL;

    for (const GList *link = inode->streams.head; link; link = link->next) {
        struct stream *stream = link->data;

        *place = place_of(inode, stream, offset, end);
        if (*place == ONWARDS || *place == BACKWARDS)
            return stream;
        if (*place == INSIDE && !inside)
            inside = stream;
    }
    *place = inside ? INSIDE : ELSEWHERE;
    return inside;
}

static struct stream *new_stream(struct inode *inode, uint64_t offset, uint64_t end)
{
    struct stream *stream = g_new0(struct stream, 1);

    stream->begin = stream->low = stream->from = offset;
    stream->high = stream->to = end;
    stream->segment_bytes = MAX(end - offset, 4096);
    if (g_queue_get_length(&inode->streams) == STREAMS_MAX)
        g_free(g_queue_pop_tail(&inode->streams));
    return stream;
}

/* How far ahead to fetch. A file with several streams is read in pieces (tensors in any order), and
 * what is fetched beyond a piece's end is lost. Half as much as was read in one go, then; once that
 * is more than the kernel reads of itself, as far as the last pieces went, which are often alike;
 * and behind their end anew. Never beyond the other end, if there is one, and up to it faster:
 * memcpy touches both ends of what it copies before it goes on from one of them. Where it went on
 * to the other end the last times, it does again: all of that is fetched at once. */
static uint64_t next_window(const struct inode *inode, const struct stream *stream,
                            uint64_t most_ahead)
{
    uint64_t window_max = MIN(WINDOW_MAX, most_ahead);
    uint64_t read = piece_bytes(stream), piece = MIN(inode->pieces[0], inode->pieces[1]), most;
    uint64_t left = stream->is_down ? stream->low - MIN(stream->other_end, stream->low)
                                    : MAX(stream->other_end, stream->high) - stream->high;

    if (stream->returns >= IN_ORDER_AFTER)
        return CLAMP(stream->window * 2, SEGMENT_MIN, MIN(WINDOW_MAPPED, most_ahead));
    if (inode->streams.length == 1 && stream->begin == 0)
        return CLAMP(stream->window * 2, SEGMENT_MIN, window_max);
    if (left && inode->ends_met >= ENDS_MET)
        return CLAMP(left, SEGMENT_MIN, window_max);
    if (read <= PIECE_MIN)
        return CLAMP(MIN(stream->window * 2, read / 2), SEGMENT_MIN, window_max);
    if (piece && read < piece + PIECE_MIN)
        most = MAX(piece, read) - read;
    else
        most = left ? read - piece : (read - piece) / 2;
    return CLAMP(left ? MIN(most, left) : most, SEGMENT_MIN, window_max);
}

/* The reader went on: widen, and let go of what it has left behind. */
static void stream_advance(struct inode *inode, struct stream *stream, uint64_t offset,
                           uint64_t end, uint64_t most_ahead)
{
    uint64_t disorder =
        end - offset < FAULT_READ_BYTES ? end - offset : FAULT_BYTES - FAULT_READ_BYTES;
    bool is_above = end > stream->high, is_below = offset < stream->low;

    stream->low = MIN(stream->low, offset);
    stream->high = MAX(stream->high, end);
    if (is_above || is_below)
        stream->is_down = !is_above && stream->begin - stream->low > disorder;
    if (stream->run++ == 0)
        return;
    stream->window = next_window(inode, stream, most_ahead);
    stream->segment_bytes = CLAMP(stream->window / 4, SEGMENT_MIN, SEGMENT_MAX);
    if (stream->is_down)
        stream->to = MIN(stream->to, stream->low + BEHIND);
    else
        stream->from = MAX(stream->from, stream->high - MIN(BEHIND, stream->high));
}

/* How large a segment may be: the nearer to the reader, the sooner it must be there. */
static uint64_t segment_size(const struct stream *stream, uint64_t distance)
{
    return MIN(stream->segment_bytes, MAX(SEGMENT_MIN, distance));
}

/* What a reader waits for. False: no memory. */
static bool fetch_wanted(struct fs *fs, struct inode *inode, struct stream *stream, uint64_t offset,
                         uint64_t end, GPtrArray *to_start)
{
    uint64_t at, room;

    while ((at = segments_gap_above(inode, offset, end, &room)) < end) {
        uint64_t size = stream->is_down ? end - at : MAX(end - at, segment_size(stream, 0));
        struct segment *segment;

        size = MIN(MIN(size, room), SEGMENT_MAX);
        segment = segment_add(fs, inode, at, at + size, true);
        if (!segment && size > SEGMENT_MIN)
            segment = segment_add(fs, inode, at, at + SEGMENT_MIN, true);
        if (!segment)
            return false;
        stream->to = MAX(stream->to, segment->end);
        g_ptr_array_add(to_start, segment);
    }
    return true;
}

/* Where memory is short, streams that nobody uses any more give way. */
static struct segment *add_ahead(struct fs *fs, struct inode *inode, uint64_t start, uint64_t end)
{
    struct segment *segment = segment_add(fs, inode, start, end, false);

    if (segment)
        return segment;
    streams_trim(inode);
    return segment_add(fs, inode, start, end, false);
}

/* As segments_gap_above and segments_gap_below, of bytes that the kernel has not got either. */
static uint64_t gap_above(const struct inode *inode, uint64_t at, uint64_t end, uint64_t *room)
{
    uint64_t next = at, given;

    do {
        at = segments_gap_above(inode, next, end, room);
        next = ranges_gap_above(&inode->given, at, GIVEN_MIN, &given);
    } while (at < end && next > at);
    *room = MIN(*room, given - at);
    return MIN(at, end);
}

static uint64_t gap_below(const struct inode *inode, uint64_t from, uint64_t at, uint64_t *room)
{
    uint64_t next = at, given;

    do {
        at = segments_gap_below(inode, from, next, room);
        next = ranges_gap_below(&inode->given, at, GIVEN_MIN, &given);
    } while (at > from && next < at);
    *room = MIN(*room, at - given);
    return MAX(at, from);
}

/* On from END through the window, as memory allows. A segment is begun when there is room for all
 * of it, or no more to come. */
static void fetch_above(struct fs *fs, struct inode *inode, struct stream *stream, uint64_t end,
                        GPtrArray *to_start)
{
    uint64_t until = MIN(stream->high + stream->window, inode->base_size), at, room;
    bool is_last = until == inode->base_size || until == stream->other_end;

    while ((at = gap_above(inode, end, until, &room)) < until) {
        uint64_t size = MIN(room, segment_size(stream, at - MIN(at, stream->high)));
        struct segment *segment;

        if (until - at < size && !is_last)
            return;
        segment = add_ahead(fs, inode, at, at + MIN(size, until - at));
        if (!segment)
            return;
        stream->to = MAX(stream->to, segment->end);
        g_ptr_array_add(to_start, segment);
    }
}

/* The same, down from OFFSET. */
static void fetch_below(struct fs *fs, struct inode *inode, struct stream *stream, uint64_t offset,
                        GPtrArray *to_start)
{
    uint64_t until = stream->low - MIN(stream->window, stream->low), at, room;
    bool is_last = until == 0 || until == stream->other_end;

    while ((at = gap_below(inode, until, offset, &room)) > until) {
        uint64_t size = MIN(room, segment_size(stream, stream->low - MIN(at, stream->low)));
        struct segment *segment;

        if (at - until < size && !is_last)
            return;
        segment = add_ahead(fs, inode, at - MIN(size, at - until), at);
        if (!segment)
            return;
        stream->from = MIN(stream->from, segment->start);
        g_ptr_array_add(to_start, segment);
    }
}

/* Drops the stream that was used least, but not KEPT. False: there is no other. */
static bool drop_another(struct inode *inode, const struct stream *kept)
{
    struct stream *last = g_queue_peek_tail(&inode->streams);

    if (!last || last == kept)
        return false;
    g_free(g_queue_pop_tail(&inode->streams));
    segments_prune(inode, is_wanted);
    return true;
}

/* One try, with inode->lock held: 0 with HELD filled, EAGAIN to wait and try again, ENODATA when
 * something is gone again, ENOMEM when there is no memory to wait for. */
static int try_read(struct fs *fs, struct inode *inode, uint64_t offset, uint64_t end,
                    GPtrArray *to_start, GPtrArray *held, bool *advanced)
{
    uint64_t most_ahead = budget_limit_bytes(fs->budget) / 4;
    enum place place;
    struct stream *stream;

    if (end > inode->base_size)
        return ENODATA; /* another object, since */
    stream = find_stream(inode, offset, end, &place);
    if (!stream)
        stream = new_stream(inode, offset, end);
    arrive(inode, stream, offset, place);
    if (place >= BACKWARDS && !*advanced)
        stream_advance(inode, stream, offset, end, most_ahead);
    stream->from = MIN(stream->from, offset);
    stream->to = MAX(stream->to, end);
    if (!*advanced)
        segments_prune(inode, is_wanted);
    *advanced = true; /* the first read of a stream widens nothing either */
    while (!fetch_wanted(fs, inode, stream, offset, end, to_start))
        if (!drop_another(inode, stream))
            return ENOMEM;
    if (stream->window && stream->is_down)
        fetch_below(fs, inode, stream, offset, to_start);
    else if (stream->window)
        fetch_above(fs, inode, stream, end, to_start);
    return segments_collect(inode, offset, end, held);
}

static int fetch_direct(struct fs *fs, struct fs_caller *caller, struct inode *inode,
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

/* What is asked for and no more, into memory of the reply's own, a few readers at a time: the way
 * that always goes on. */
static int read_direct(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                       uint64_t offset, size_t size, fs_reply *reply, void *user)
{
    int error = turn_take(&fs->direct, caller, DIRECT_WAIT_MS);

    if (error)
        return error;
    error = fetch_direct(fs, caller, inode, offset, size, reply, user);
    turn_give(&fs->direct);
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
    bool advanced = false, waited = false;
    unsigned waits = 0, lost = 0;
    int error;

    do {
        error = try_read(fs, inode, offset, end, to_start, held, &advanced);
        if (to_start->len) {
            pthread_mutex_unlock(&inode->lock);
            segments_start(fs, inode, to_start);
            pthread_mutex_lock(&inode->lock);
            if (error == EAGAIN)
                continue;
        }
        if (error == EAGAIN || error == ENOMEM) {
            error = wait_for_bytes(fs, caller, inode, error, &waits);
            waited = true;
        } else if (error && (error == ENODATA || !waited) && lost++ < 3) {
            error = EAGAIN; /* what failed before anybody waited for it is fetched again */
        }
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
    if (offset < end && ranges_hold(&inode->given, offset, end))
        ranges_clear(&inode->given); /* it asks again */
    if (offset < end)
        error = fill(fs, caller, inode, offset, end, held);
    if (!error)
        ranges_add(&inode->given, offset, end);
    pthread_mutex_unlock(&inode->lock);
    if (error == ENOMEM)
        return read_direct(fs, caller, inode, offset, end - offset, reply, user);
    if (error)
        return error == ENODATA ? EAGAIN : error; /* the object has become another one */
    segments_reply(held, offset, end, reply, user);
    pthread_mutex_lock(&inode->lock);
    segments_release(held);
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
