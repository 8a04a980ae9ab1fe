/* Writing: bytes into the layout, and what must be settled first. */
#include "fusefs/fs_internal.h"

#include <fcntl.h>
#include <string.h>

#define ROOM_TIMEOUT_MS 100
#define SMALL_WRITE     (BUFFER_MAX / 2) /* fits into the room of a buffer, which was made for more */

void inode_mark_dirty(struct fs *fs, struct inode *inode)
{
    inode->version++;
    if (!inode->dirty_ms)
        inode->dirty_ms = now_ms();
    pthread_mutex_lock(&fs->dirty_lock);
    if (!inode->dirty_link) {
        g_queue_push_tail(&fs->dirty, inode);
        inode->dirty_link = fs->dirty.tail;
    }
    pthread_cond_broadcast(&fs->dirty_changed);
    pthread_mutex_unlock(&fs->dirty_lock);
}

/* Whoever holds clean bytes lets go, whoever has half a part sends it. */
void make_room(struct fs *fs)
{
    g_autoptr(GPtrArray) inodes = g_ptr_array_new();

    pthread_mutex_lock(&fs->lock);
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, fs->inodes);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct inode *inode = value;

        if (inode->pins) { /* open or dirty */
            inode->pins++;
            g_ptr_array_add(inodes, inode);
        }
    }
    pthread_mutex_unlock(&fs->lock);
    for (guint i = 0; i < inodes->len; i++) {
        struct inode *inode = inodes->pdata[i];

        if (is_directory(inode)) {
            inode_unpin(fs, inode);
            continue;
        }
        pthread_mutex_lock(&inode->lock);
        if (!inode->publishing)
            journal_drop_clean(fs, inode);
        streams_trim(inode);
        pthread_mutex_unlock(&inode->lock);
        upload_pump(fs, inode, true);
        inode_unpin(fs, inode);
    }
}

struct buffer *wait_buffer(struct fs *fs, struct fs_caller *caller, size_t size, int *error)
{
    struct buffer *buffer = buffer_try_new(fs->budget, size, BUDGET_DIRTY);

    *error = 0;
    while (!buffer) {
        if (atomic_load(&fs->draining))
            *error = EROFS;
        else if (is_interrupted(caller))
            *error = EINTR;
        if (*error)
            return NULL;
        make_room(fs);
        buffer = buffer_wait_new(fs->budget, size, BUDGET_DIRTY, ROOM_TIMEOUT_MS);
    }
    return buffer;
}

static struct buffer *wait_lane(struct fs *fs, struct fs_caller *caller, size_t size,
                                enum budget_lane lane, int *error)
{
    struct buffer *buffer = buffer_try_new(fs->budget, size, lane);

    *error = 0;
    while (!buffer && !(*error = is_interrupted(caller) ? EINTR : 0)) {
        make_room(fs);
        buffer = buffer_wait_new(fs->budget, size, lane, ROOM_TIMEOUT_MS);
    }
    return buffer;
}

struct buffer *wait_wanted(struct fs *fs, struct fs_caller *caller, size_t size, int *error)
{
    return wait_lane(fs, caller, size, BUDGET_WANTED, error);
}

int turn_take(struct turns *turns, struct fs_caller *caller, unsigned wait_ms)
{
    int64_t end_ms = now_ms() + wait_ms;
    int error = 0;

    pthread_mutex_lock(&turns->lock);
    while (!error && turns->taken >= turns->most) {
        struct timespec until;

        timespec_in(&until, ROOM_TIMEOUT_MS);
        pthread_cond_timedwait(&turns->given, &turns->lock, &until);
        if (is_interrupted(caller))
            error = EINTR;
        else if (wait_ms && now_ms() >= end_ms)
            error = ETIMEDOUT;
    }
    turns->taken += !error;
    pthread_mutex_unlock(&turns->lock);
    return error;
}

void turn_give(struct turns *turns)
{
    pthread_mutex_lock(&turns->lock);
    turns->taken--;
    pthread_cond_signal(&turns->given);
    pthread_mutex_unlock(&turns->lock);
}

int take_padding(struct fs *fs, struct fs_caller *caller, GArray *sizes, GPtrArray *padding)
{
    int error = sizes->len ? turn_take(&fs->padding, caller, 0) : 0;

    if (error || !sizes->len)
        return error;
    for (guint i = 0; !error && i < sizes->len; i++) {
        struct buffer *buffer =
            wait_lane(fs, caller, g_array_index(sizes, size_t, i), BUDGET_PADDING, &error);

        if (buffer)
            g_ptr_array_add(padding, buffer);
    }
    turn_give(&fs->padding);
    return error;
}

/* How large a buffer the next bytes deserve: a file that grows gets larger ones, scattered writes
 * what they need. inode->lock held. */
static size_t buffer_size_for(struct inode *inode, uint64_t offset, size_t size)
{
    unsigned count = layout_count(&inode->layout);
    const struct extent *last = count ? layout_at(&inode->layout, count - 1) : NULL;

    if (offset != layout_size(&inode->layout) || (last && !last->buffer))
        return MAX(size, 4096);
    return CLAMP(last ? 2 * (uint64_t)last->buffer->capacity : size, MAX(size, 4096), BUFFER_MAX);
}

/* An upload that has no numbers left is made an object, of which the next upload begins as a copy.
 * One that goes straight to where it is seen shows as it stands then, which a file that takes
 * another's place must not. */
static int compact(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    bool hidden, replaces;

    pthread_mutex_lock(&inode->lock);
    hidden = inode->upload && inode->upload->staged;
    replaces = inode->etag && inode->rewritten;
    pthread_mutex_unlock(&inode->lock);
    return replaces && !hidden ? EFBIG : inode_settle(fs, caller, inode);
}

/* Whether [start, end) can be written without first making the open upload readable: no byte of a
 * part that it touches may be in the upload alone. inode->lock held. */
static bool must_settle(struct inode *inode, uint64_t start, uint64_t end)
{
    struct upload *upload = inode->upload;

    for (guint i = 0; upload && i < upload->parts->len; i++) {
        struct part *part = upload->parts->pdata[i];

        if (part->end <= start || part->start >= end)
            continue;
        if (part->copied || layout_only_in_part(&inode->layout, part->start, part->end))
            return true;
    }
    return false;
}

/* Whether [start, end) touches bytes that the base object alone has: a publish under way may have
 * planned to let the store copy them. inode->lock held. */
static bool touches_base(const struct inode *inode, uint64_t start, uint64_t end)
{
    for (unsigned i = layout_find(&inode->layout, start); i < layout_count(&inode->layout); i++) {
        const struct extent *extent = layout_at(&inode->layout, i);

        if (extent->start >= end)
            break;
        if (extent->in_object && !extent->buffer)
            return true;
    }
    return false;
}

/* The file is another one than its base from now on, for who finds it after a crash too. */
static void note_rewrite(struct fs *fs, struct inode *inode)
{
    bool is_told = inode->base_lineage != NULL; /* and what is published now may be looked for */

    inode_rewritten(inode);
    if (!is_told && journal_tells_of(inode))
        journal_image(fs, inode);
}

static void note_write(struct fs *fs, struct inode *inode, uint64_t offset, uint64_t size)
{
    if (inode->etag && offset < inode->base_size)
        note_rewrite(fs, inode);
    upload_changed(inode, offset, offset + size);
    inode->size = layout_size(&inode->layout);
    inode->attrs.mtime_ns = inode->attrs.ctime_ns = now_ns();
    inode->attrs_dirty = inode->data_dirty = true;
    inode->window_bytes += size;
    inode_mark_dirty(fs, inode);
    journal_ensure(fs, inode);
}

/* One piece of at most BUFFER_MAX bytes. */
static int write_piece(struct fs *fs, struct fs_caller *caller, struct inode *inode, bool append,
                       uint64_t offset, const uint8_t *data, size_t size)
{
    struct buffer *buffer = NULL;
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    for (;;) {
        size_t want;

        if (append)
            offset = inode->size;
        if (upload_is_full(fs, inode) || must_settle(inode, offset, offset + size)) {
            bool is_full = upload_is_full(fs, inode);

            pthread_mutex_unlock(&inode->lock);
            error = is_full ? compact(fs, caller, inode) : inode_settle(fs, caller, inode);
            pthread_mutex_lock(&inode->lock);
            if (error)
                break;
            continue;
        }
        if (inode->publishing && touches_base(inode, offset, offset + size)) {
            wait_changed(inode, ROOM_TIMEOUT_MS);
            error = is_interrupted(caller) ? EINTR : 0;
            if (error)
                break;
            continue;
        }
        if (size <= SMALL_WRITE && layout_write_in_place(&inode->layout, offset, data, size)) {
            journal_put_in_place(fs, inode, offset, size);
            break;
        }
        if (buffer) {
            journal_put(fs, inode, offset, size, buffer, 0);
            layout_put(&inode->layout, offset, size, buffer, 0);
            break;
        }
        want = buffer_size_for(inode, offset, size);
        pthread_mutex_unlock(&inode->lock);
        buffer = wait_buffer(fs, caller, want, &error);
        if (buffer) {
            memcpy(buffer->data, data, size);
            buffer->filled = size;
        }
        pthread_mutex_lock(&inode->lock);
        if (!buffer)
            break;
    }
    if (!error)
        note_write(fs, inode, offset, size);
    pthread_mutex_unlock(&inode->lock);
    buffer_unref(buffer);
    return error;
}

static int write_all(struct fs *fs, struct fs_caller *caller, struct fs_file *file, bool append,
                     uint64_t offset, const void *data, size_t size)
{
    struct inode *inode = file->inode;
    bool is_charged = size > CHARGE_ABOVE;
    size_t done = 0;
    int error = fs_may_change(fs);

    if (error)
        return error;
    if (offset + size > store_caps(fs->store)->max_object_bytes || offset + size < offset)
        return EFBIG;
    if (atomic_load(&inode->replaced))
        return ESTALE;
    if (is_charged)
        budget_charge(fs->budget, size);
    while (!error && done < size) {
        size_t piece = MIN(size - done, BUFFER_MAX);

        error = write_piece(fs, caller, inode, append, offset + done, (const uint8_t *)data + done,
                            piece);
        done += piece;
    }
    if (is_charged)
        budget_uncharge(fs->budget, size);
    if (!error)
        upload_pump(fs, inode, false);
    return error;
}

int fs_write(struct fs *fs, struct fs_caller *caller, struct fs_file *file, uint64_t offset,
             const void *data, size_t size)
{
    return write_all(fs, caller, file, file->flags & O_APPEND, offset, data, size);
}

int fs_write_back(struct fs *fs, struct fs_caller *caller, struct fs_file *file, uint64_t offset,
                  const void *data, size_t size)
{
    return write_all(fs, caller, file, false, offset, data, size);
}

/* Until no part of an open upload reaches beyond SIZE, and none is about to. inode->lock held. */
static int settle_for_cut(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                          uint64_t size)
{
    int error = 0;

    while (!error && inode->upload && (inode->publishing || (size && size < inode->upload->end))) {
        if (inode->publishing) {
            wait_changed(inode, 100);
            error = is_interrupted(caller) ? EINTR : 0;
            continue;
        }
        pthread_mutex_unlock(&inode->lock);
        error = inode_settle(fs, caller, inode);
        pthread_mutex_lock(&inode->lock);
    }
    return error;
}

int inode_truncate(struct fs *fs, struct fs_caller *caller, struct inode *inode, uint64_t size)
{
    int error = 0;

    if (size > store_caps(fs->store)->max_object_bytes)
        return EFBIG;
    journal_start(fs, inode);
    pthread_mutex_lock(&inode->lock);
    error = settle_for_cut(fs, caller, inode, size);
    if (!error && size != inode->size) {
        if (inode->etag && size < inode->base_size)
            note_rewrite(fs, inode);
        journal_resize(fs, inode, size);
        layout_resize(&inode->layout, size);
        inode->size = size;
        inode->data_dirty = true;
        streams_drop(inode);
        if (size == 0)
            upload_discard(fs, inode);
    }
    if (!error) { /* also when the size stays: ": > stamp" is for the time */
        inode->attrs.mtime_ns = inode->attrs.ctime_ns = now_ns();
        inode->attrs_dirty = true;
        inode_mark_dirty(fs, inode);
        journal_ensure(fs, inode);
    }
    pthread_mutex_unlock(&inode->lock);
    return error;
}
