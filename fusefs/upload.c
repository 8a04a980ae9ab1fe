/* The upload pipeline: parts go up while the program still writes.
 *
 *   part  WAITING -> SENDING -> SENT            bytes frozen while SENDING, let go of when SENT
 *                            -> FAILED -> WAITING   its bytes are still in memory
 *   SENT and then written to: `changed`, sent again under the same number when the file is finished
 *
 * An upload begins when a file has a whole part of new bytes in one piece, either from its start or
 * behind a prefix that the store can copy by itself. upload_pump never blocks; upload_finish does:
 * it sends what is left, waits, and commits.
 *
 * threads: part_done and begin_done run on the store's threads.
 */
#include "fusefs/upload.h"

#include <errno.h>
#include <string.h>

#define ZEROS_BYTES (64 * 1024)
#define COPY_STEP   (256ull << 20)

static const uint8_t zeros[ZEROS_BYTES];

/* Parts grow with the file: small first ones go up early and side by side, larger ones cost the
 * store less for each byte, and its number of parts is enough for large files. */
uint64_t part_bytes_for(struct fs *fs, unsigned number)
{
    uint64_t most = budget_limit_bytes(fs->budget) / 8;
    unsigned times = number > 2000 ? 16 : number > 1000 ? 8 : number > 16 ? 4 : number > 8 ? 2 : 1;

    return MAX(MIN(fs->part_bytes * times, most),
               MAX(fs->part_bytes, store_caps(fs->store)->min_part_bytes));
}

uint64_t fs_max_upload_bytes(struct fs *fs)
{
    const struct store_caps *caps = store_caps(fs->store);
    uint64_t bytes = 0;

    for (unsigned number = 1; number <= caps->max_parts && bytes < caps->max_object_bytes; number++)
        bytes += part_bytes_for(fs, number);
    return MIN(bytes, caps->max_object_bytes);
}

uint64_t copied_part_bytes(struct fs *fs, uint64_t size, uint64_t left)
{
    const struct store_caps *caps = store_caps(fs->store);
    uint64_t step = MIN(MAX(COPY_STEP, size / (caps->max_parts / 4)), caps->max_part_bytes / 2);
    uint64_t parts = MAX((left + step / 2) / step, 1);

    return (left + parts - 1) / parts;
}

bool upload_is_full(struct fs *fs, const struct inode *inode)
{
    unsigned most = store_caps(fs->store)->max_parts;
    unsigned in_memory = budget_limit_bytes(fs->budget) / part_bytes_for(fs, most) + 2;
    unsigned spare = MIN(MAX(most / 10, in_memory), most / 2);

    return inode->upload && inode->upload->parts->len >= most - spare;
}

struct part *part_new(struct upload *upload, struct inode *inode, uint64_t start, uint64_t end)
{
    struct part *part = g_new0(struct part, 1);

    part->inode = inode;
    part->start = start;
    part->end = end;
    part->number = upload->parts->len + 1;
    g_ptr_array_add(upload->parts, part);
    upload->end = end;
    return part;
}

void part_forget_bytes(struct part *part)
{
    if (part->sent.extents) {
        layout_thaw(&part->sent);
        layout_clear(&part->sent);
    }
}

static void part_free(void *data)
{
    struct part *part = data;

    part_forget_bytes(part);
    g_free(part->etag);
    g_free(part);
}

void upload_free(struct upload *upload)
{
    g_ptr_array_unref(upload->parts);
    g_free(upload->key);
    g_free(upload->lineage);
    g_free(upload->id);
    g_free(upload);
}

struct upload *upload_new(const char *key)
{
    struct upload *upload = g_new0(struct upload, 1);

    upload->key = g_strdup(key);
    upload->parts = g_ptr_array_new_with_free_func(part_free);
    return upload;
}

void upload_complain(struct fs *fs, const char *what, const struct store_call *call)
{
    complain(fs, call->key, "%s %s: %s; it is kept and tried again", what, call->key,
             call->error->message);
}

bool part_is_short(struct fs *fs, const struct part *part)
{
    return !part->copied && part->end - part->start < store_caps(fs->store)->min_part_bytes;
}

/* No file's any more, and nothing of it is under way: a part that came behind the abort would stay
 * in the store. One whose commit goes on is left to that. */
static void end_orphan(struct fs *fs, struct upload *upload)
{
    if (upload->id && !late_is(fs, upload->key))
        upload_abort(fs, upload->key, upload->id);
    upload_free(upload);
}

static void part_done(struct store_call *call, void *user)
{
    g_autofree struct fs_part *context = user;
    struct part *part = context->part;
    struct inode *inode = part->inode;
    struct fs *fs = context->fs;
    bool orphan, is_last;

    pthread_mutex_lock(&inode->lock);
    orphan = inode->upload != context->upload;
    context->upload->sending--;
    if (call->error) {
        part->state = PART_FAILED;
        if (!context->upload->error)
            context->upload->error = error_errno(call->error);
        if (call->verb == STORE_COPY_PART && error_is(call->error, ENOENT))
            context->upload->lost_copy = true;
        if (!orphan)
            upload_complain(fs, "upload", call);
    } else {
        bool keep = budget_used_bytes(fs->budget) < budget_limit_bytes(fs->budget) / 2;

        part->state = PART_SENT;
        g_free(part->etag);
        part->etag = g_strdup(call->part_etag);
        /* One that changed meanwhile is sent again: its memory stays what it is, dirty. */
        if (!orphan && !part->copied && !part_is_short(fs, part) && !part->changed &&
            layout_is_unchanged(&inode->layout, &part->sent, part->start, part->end))
            layout_mark_part(&inode->layout, &part->sent, part->start, part->end, keep);
        if (!orphan)
            journal_image(fs, inode);
    }
    part_forget_bytes(part);
    is_last = orphan && context->upload->sending == 0;
    pthread_cond_broadcast(&inode->changed);
    pthread_mutex_unlock(&inode->lock);
    if (is_last)
        end_orphan(fs, context->upload);
    if (!orphan && !call->error)
        upload_pump(fs, inode, false);
    inode_unpin(fs, inode);
}

static void add_iov(GArray *iov, const void *data, uint64_t size)
{
    struct iovec piece = {.iov_base = (void *)data, .iov_len = size};

    g_array_append_val(iov, piece);
}

/* The bytes of a copied stretch of layout as pieces of memory: holes are shared zeros, and what is
 * in the base object alone was fetched into PADDING before. */
static void layout_to_iov(const struct layout *layout, GArray *iov)
{
    for (unsigned i = 0; i < layout_count(layout); i++) {
        const struct extent *extent = layout_at(layout, i);
        uint64_t left = extent->end - extent->start;

        if (extent->buffer) {
            add_iov(iov, extent->buffer->data + extent->buffer_offset, left);
            continue;
        }
        for (; left; left -= MIN(left, ZEROS_BYTES))
            add_iov(iov, zeros, MIN(left, ZEROS_BYTES));
    }
}

/* inode->lock held: the call that sends PART, whose state becomes SENDING. */
static struct store_call *part_prepare(struct inode *inode, struct upload *upload,
                                       struct part *part)
{
    struct store_call *call =
        store_call_new(part->copied ? STORE_COPY_PART : STORE_PART, upload->key);

    call->upload_id = g_strdup(upload->id);
    call->part_number = part->number;
    if (part->copied) {
        call->source_key = g_strdup(inode->base_key);
        call->if_match = g_strdup(inode->etag);
        call->offset = part->start;
        call->length = part->end - part->start;
    } else {
        g_autoptr(GArray) iov = g_array_new(FALSE, FALSE, sizeof(struct iovec));

        layout_to_iov(&part->sent, iov);
        store_call_set_iov(call, (struct iovec *)(void *)iov->data, iov->len);
    }
    part->state = PART_SENDING;
    upload->sending++;
    return call;
}

void starting_add(GArray *list, struct fs *fs, struct inode *inode, struct part *part)
{
    struct starting starting = {part_prepare(inode, inode->upload, part),
                                g_new0(struct fs_part, 1)};

    *starting.context = (struct fs_part){fs, inode->upload, part};
    g_array_append_val(list, starting);
}

/* No lock held. */
void start_all(struct fs *fs, struct inode *inode, GArray *list)
{
    for (guint i = 0; i < list->len; i++) {
        struct starting *starting = &g_array_index(list, struct starting, i);

        inode_pin(fs, inode);
        store_start(fs->store, starting->call, part_done, starting->context);
        store_call_unref(starting->call);
    }
}

static void freeze_part(struct inode *inode, struct part *part)
{
    layout_copy(&inode->layout, part->start, part->end, &part->sent);
    layout_freeze(&part->sent);
    part->changed = false;
}

/* Length of the base object's prefix that the store can copy into an upload. */
static uint64_t copyable_prefix(struct fs *fs, struct inode *inode)
{
    const struct store_caps *caps = store_caps(fs->store);
    const struct extent *first;

    if (!caps->has_copy_part || !layout_count(&inode->layout))
        return 0;
    first = layout_at(&inode->layout, 0);
    return first->in_object && first->end >= caps->min_part_bytes ? first->end : 0;
}

static void add_copied_parts(struct fs *fs, struct inode *inode, struct upload *upload,
                             uint64_t end)
{
    while (upload->end < end) {
        uint64_t bytes = copied_part_bytes(fs, end, end - upload->end);
        struct part *part = part_new(upload, inode, upload->end, upload->end + bytes);

        part->copied = true;
    }
}

void upload_begun(struct fs *fs, const struct store_call *begin)
{
    if (begin->maybe_twice)
        leftovers_note_lost(fs, begin->key);
    if (!begin->error && fs->options.lease)
        lease_add_upload(fs->options.lease, begin->key, begin->upload_id);
}

void upload_forget(struct fs *fs, const char *key, const char *id)
{
    if (fs->options.lease)
        lease_remove_upload(fs->options.lease, key, id);
}

static void aborted(struct store_call *call, void *user)
{
    if (call->error)
        log_info("an upload to %s stays until the next mount: %s", call->key, call->error->message);
    else
        upload_forget(user, call->key, call->upload_id);
}

void upload_abort(struct fs *fs, const char *key, const char *id)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_ABORT, key);

    call->upload_id = g_strdup(id);
    store_start(fs->store, call, aborted, fs);
}

static void begin_done(struct store_call *call, void *user)
{
    struct fs_part *context = user;
    struct inode *inode = context->part->inode;
    struct fs *fs = context->fs;
    struct upload *upload = context->upload;
    bool orphan;

    pthread_mutex_lock(&inode->lock);
    orphan = inode->upload != upload;
    upload->beginning = false;
    if (call->error) {
        upload->error = error_errno(call->error);
        if (!orphan)
            upload_complain(fs, "begin the upload of", call);
    } else {
        upload->id = g_strdup(call->upload_id);
        if (!orphan)
            journal_image(fs, inode);
    }
    upload_begun(fs, call);
    pthread_cond_broadcast(&inode->changed);
    pthread_mutex_unlock(&inode->lock);
    if (!orphan && !call->error)
        upload_pump(fs, inode, false);
    if (orphan)
        end_orphan(fs, upload);
    g_free(context->part);
    g_free(context);
    inode_unpin(fs, inode);
}

/* inode->lock held: an upload with its prefix planned, and the call that begins it. */
struct store_call *begin_prepare(struct fs *fs, struct inode *inode, const char *key,
                                 uint64_t prefix)
{
    struct store_call *call = store_call_new(STORE_BEGIN, key);

    inode->upload = upload_new(key);
    inode->upload->beginning = true;
    inode->upload->staged = key_is_staged(key);
    add_copied_parts(fs, inode, inode->upload, prefix);
    call->metadata = inode_metadata(inode);
    inode->upload->lineage = g_strdup(inode->lineage);
    journal_state(inode);
    return call;
}

static void begin_start(struct fs *fs, struct inode *inode, struct upload *upload,
                        struct store_call *call)
{
    struct fs_part *context = g_new0(struct fs_part, 1);

    *context = (struct fs_part){fs, upload, g_new0(struct part, 1)};
    context->part->inode = inode;
    inode_pin(fs, inode);
    store_start(fs->store, call, begin_done, context);
    store_call_unref(call);
}

/* How many bytes of the file are ready to be the next part; 0: not enough. inode->lock held. */
static uint64_t next_part_bytes(struct fs *fs, struct inode *inode, uint64_t from, bool flush)
{
    unsigned number = inode->upload ? inode->upload->parts->len + 1 : 1;
    uint64_t ready = layout_memory_end(&inode->layout, from) - from;
    uint64_t whole = part_bytes_for(fs, number);

    if (inode->upload && upload_is_full(fs, inode))
        return 0; /* the next write makes it an object, to go on behind */
    if (ready >= whole)
        return whole;
    if (number > store_caps(fs->store)->max_parts / 2)
        return 0; /* short parts would use up the numbers */
    return flush && ready >= store_caps(fs->store)->min_part_bytes && ready >= BUFFER_MAX ? ready
                                                                                          : 0;
}

static void pump_parts(struct fs *fs, struct inode *inode, bool flush, GArray *list)
{
    struct upload *upload = inode->upload;
    struct part *last = upload->parts->len ? upload->parts->pdata[upload->parts->len - 1] : NULL;
    uint64_t bytes;

    if (last && part_is_short(fs, last))
        return; /* a file's end, of a publish that failed: the next one takes it off */

    for (guint i = 0; i < upload->parts->len && upload->sending < SENDING_MAX; i++) {
        struct part *part = upload->parts->pdata[i];

        if (part->state == PART_WAITING && part->copied)
            starting_add(list, fs, inode, part);
    }
    while (upload->sending < SENDING_MAX &&
           (bytes = next_part_bytes(fs, inode, upload->end, flush))) {
        struct part *part = part_new(upload, inode, upload->end, upload->end + bytes);

        freeze_part(inode, part);
        starting_add(list, fs, inode, part);
    }
}

/* Whether what is sent may have to be read before the file is finished; or copied, since one upload
 * is not enough for what takes the place of an object as large. */
static bool wants_staged(const struct fs *fs, const struct inode *inode)
{
    return inode->readers || inode->vanished || key_is_staged(inode->base_key) ||
           (inode->rewritten && inode->base_size > fs->max_upload_bytes / 2);
}

/* Begins an upload if there is enough for one. The tree's lock is held too, so that the key is the
 * one under which the file will be published: whoever changes it has the file's turn. */
static struct store_call *try_begin(struct fs *fs, struct inode *inode, bool flush,
                                    struct upload **upload)
{
    g_autofree char *key = NULL;
    struct store_call *begin = NULL;
    uint64_t prefix;

    pthread_mutex_lock(&fs->lock);
    pthread_mutex_lock(&inode->lock);
    prefix = copyable_prefix(fs, inode);
    if (!inode->upload && !inode->publishing && next_part_bytes(fs, inode, prefix, flush)) {
        key = wants_staged(fs, inode) ? staged_key_new(fs) : inode_key_locked(inode);
        begin = begin_prepare(fs, inode, key, prefix);
        *upload = inode->upload;
    }
    pthread_mutex_unlock(&inode->lock);
    pthread_mutex_unlock(&fs->lock);
    return begin;
}

void upload_pump(struct fs *fs, struct inode *inode, bool flush)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(struct starting));
    struct store_call *begin = NULL;
    struct upload *upload;
    bool may_begin;

    pthread_mutex_lock(&inode->lock);
    may_begin = !inode->upload && !inode->publishing &&
                next_part_bytes(fs, inode, copyable_prefix(fs, inode), flush);
    if (inode->upload && inode->upload->id && !inode->upload->error && !inode->publishing)
        pump_parts(fs, inode, flush, list);
    pthread_mutex_unlock(&inode->lock);
    start_all(fs, inode, list);
    if (may_begin && gate_is_open(fs)) /* else under a key that is about to change */
        begin = try_begin(fs, inode, flush, &upload);
    if (begin)
        begin_start(fs, inode, upload, begin);
}

void upload_changed(struct inode *inode, uint64_t start, uint64_t end)
{
    struct upload *upload = inode->upload;

    for (guint i = 0; upload && i < upload->parts->len; i++) {
        struct part *part = upload->parts->pdata[i];

        if (part->start >= end || part->end <= start)
            continue;
        part->changed = true;
        layout_unmark_part(&inode->layout, part->start, part->end);
    }
}

void upload_compare(struct inode *inode, const struct layout *sent)
{
    struct upload *upload = inode->upload;

    for (guint i = 0; upload && i < upload->parts->len; i++) {
        struct part *part = upload->parts->pdata[i];

        if (part->copied || layout_is_unchanged(&inode->layout, sent, part->start, part->end))
            continue;
        part->changed = true;
        layout_unmark_part(&inode->layout, part->start, part->end);
    }
}

void upload_discard(struct fs *fs, struct inode *inode)
{
    struct upload *upload = inode->upload;

    if (!upload)
        return;
    inode->upload = NULL;
    if (layout_forget_parts(&inode->layout)) {
        journal_image(fs, inode);
    } else {
        log_debug("bytes of a discarded upload are gone: %s", upload->key);
        journal_clean(fs, inode);
    }
    if (upload->sending || upload->beginning)
        return; /* the last one under way ends it */
    pthread_mutex_unlock(&inode->lock);
    end_orphan(fs, upload);
    pthread_mutex_lock(&inode->lock);
}
