/* Finishing an upload: what is left of a file is sent, then all of it committed. Runs on the thread
 * that publishes, while inode->publishing is set; it blocks. */
#include "fusefs/upload.h"

#include <errno.h>
#include <string.h>

#define HOLE_STEP (1ull << 30)

/* The stretches of PART that are in the base object alone, cut to what a buffer holds. */
static GArray *list_gaps(const struct part *part, GArray *sizes)
{
    GArray *gaps = g_array_new(FALSE, FALSE, sizeof(struct extent));

    for (unsigned i = 0; i < layout_count(&part->sent); i++) {
        const struct extent *extent = layout_at(&part->sent, i);

        for (uint64_t at = extent->start; !extent->buffer && extent->in_object && at < extent->end;
             at += BUFFER_MAX) {
            struct extent gap = {.start = at, .end = MIN(at + BUFFER_MAX, extent->end)};
            size_t size = gap.end - gap.start;

            g_array_append_val(gaps, gap);
            g_array_append_val(sizes, size);
        }
    }
    return gaps;
}

/* Fetches what of PART's bytes is in the base object alone. No lock held. */
static int fetch_padding(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                         struct part *part)
{
    g_autoptr(GPtrArray) padding = g_ptr_array_new_with_free_func((GDestroyNotify)buffer_unref);
    g_autoptr(GArray) sizes = g_array_new(FALSE, FALSE, sizeof(size_t));
    g_autoptr(GArray) gaps = list_gaps(part, sizes);
    int error = take_padding(fs, caller, sizes, padding);

    for (guint i = 0; !error && i < gaps->len; i++) {
        struct extent *gap = &g_array_index(gaps, struct extent, i);
        struct buffer *buffer = padding->pdata[i];

        error = base_fetch(fs, caller, inode->base_key, inode->etag, gap->start, buffer->data,
                           gap->end - gap->start);
        atomic_fetch_add(&buffer->frozen, 1); /* thawed with the rest of the part */
        layout_put(&part->sent, gap->start, gap->end - gap->start, buffer, 0);
    }
    return error;
}

/* How much of SNAPSHOT from START may be one part: what is in memory is bounded by it, zeros are
 * not. */
static uint64_t most_bytes(struct fs *fs, const struct extent *extent, unsigned number)
{
    bool is_hole = !extent->buffer && !extent->in_object && !extent->in_part;

    return is_hole ? MIN(HOLE_STEP, store_caps(fs->store)->max_part_bytes)
                   : part_bytes_for(fs, number);
}

/* Where the next part of SNAPSHOT from START ends, and whether the store copies it. Stretches of
 * the base object shorter than GRAIN are fetched and sent with their neighbours. */
static uint64_t plan_part(struct fs *fs, const struct layout *snapshot, uint64_t start,
                          unsigned number, uint64_t grain, bool *copied)
{
    const struct store_caps *caps = store_caps(fs->store);
    uint64_t size = layout_size(snapshot);
    unsigned index = layout_find(snapshot, start);
    uint64_t end = start, most = most_bytes(fs, layout_at(snapshot, index), number);

    *copied = false;
    for (; index < layout_count(snapshot); index++) {
        const struct extent *extent = layout_at(snapshot, index);
        uint64_t run = extent->end - MAX(extent->start, start);
        bool copyable = caps->has_copy_part && extent->in_object && run >= grain;

        if (copyable && end == start) {
            *copied = true;
            return start + copied_part_bytes(fs, size, extent->end - start);
        }
        if (copyable && end - start >= caps->min_part_bytes)
            return end;
        most = MIN(most, MAX(most_bytes(fs, extent, number), end - start));
        end = extent->end;
        if (end - start >= most)
            return start + most;
    }
    return MIN(end, size);
}

/* The finest grain with which SNAPSHOT from START takes no more parts than there are numbers left
 * from NUMBER on; 0: none does. */
static uint64_t choose_grain(struct fs *fs, const struct layout *snapshot, uint64_t start,
                             unsigned number)
{
    const struct store_caps *caps = store_caps(fs->store);
    uint64_t size = layout_size(snapshot);

    for (uint64_t grain = caps->min_part_bytes; grain <= 2 * MAX(size, caps->min_part_bytes);
         grain *= 2) {
        uint64_t at = start;
        unsigned next = number;
        bool copied;

        while (at < size && next <= caps->max_parts)
            at = plan_part(fs, snapshot, at, next++, grain, &copied);
        if (at >= size)
            return grain;
    }
    return 0;
}

/* A file's short end, that an earlier publish sent before it failed, is no part to go on behind: it
 * is taken off, its bytes are in memory. inode->lock held. */
static int take_off_short_end(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                              uint64_t size)
{
    struct upload *upload = inode->upload;
    int error = 0;

    while (!error && upload->parts->len) {
        struct part *last = upload->parts->pdata[upload->parts->len - 1];

        if (!part_is_short(fs, last) || (last->end == size && !last->changed))
            break;
        if (last->state == PART_SENDING) {
            wait_changed(inode, 100);
            error = is_interrupted(caller) ? EINTR : 0;
            continue;
        }
        upload->end = last->start;
        g_ptr_array_set_size(upload->parts, (int)upload->parts->len - 1);
    }
    return error;
}

/* The parts that are still to be sent, in order; fills in their bytes. */
static int send_rest(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                     struct layout *snapshot)
{
    uint64_t size = layout_size(snapshot), grain = 0;
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    error = take_off_short_end(fs, caller, inode, size);
    if (!error) {
        grain = choose_grain(fs, snapshot, inode->upload->end, inode->upload->parts->len + 1);
        error = grain ? 0 : EFBIG;
    }
    for (guint i = 0; !error; i++) {
        g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(struct starting));
        struct upload *upload = inode->upload;
        struct part *part;
        bool copied;

        while (upload->sending >= SENDING_MAX && !error) {
            wait_changed(inode, 100);
            error = is_interrupted(caller) ? EINTR : upload->error;
        }
        if (error || (i >= upload->parts->len && upload->end >= size))
            break;
        if (i >= upload->parts->len) {
            uint64_t end =
                plan_part(fs, snapshot, upload->end, upload->parts->len + 1, grain, &copied);

            part = part_new(upload, inode, upload->end, end);
            part->copied = copied;
        }
        part = upload->parts->pdata[i];
        while (part->state == PART_SENDING && part->changed && !error) {
            wait_changed(inode, 100);
            error = is_interrupted(caller) ? EINTR : 0;
        }
        if (error || part->state == PART_SENDING || (part->state == PART_SENT && !part->changed))
            continue;
        if (!part->copied) {
            layout_copy(snapshot, part->start, part->end, &part->sent);
            layout_freeze(&part->sent);
            part->changed = false;
            pthread_mutex_unlock(&inode->lock);
            error = fetch_padding(fs, caller, inode, part);
            pthread_mutex_lock(&inode->lock);
            if (error) {
                part->state = PART_FAILED;
                part_forget_bytes(part);
                break;
            }
        }
        starting_add(list, fs, inode, part);
        pthread_mutex_unlock(&inode->lock);
        start_all(fs, inode, list);
        pthread_mutex_lock(&inode->lock);
    }
    while (inode->upload->sending && error != EINTR) {
        wait_changed(inode, 100);
        if (is_interrupted(caller))
            error = EINTR;
    }
    if (!error)
        error = inode->upload->error;
    pthread_mutex_unlock(&inode->lock);
    return error;
}

int wait_begun(struct fs_caller *caller, struct inode *inode)
{
    int error = 0;

    while (!error && inode->upload && inode->upload->beginning) {
        wait_changed(inode, 100);
        error = is_interrupted(caller) ? EINTR : 0;
    }
    return error;
}

/* The store has the upload no more: what is somewhere else too is sent once more, from the
 * beginning. inode->lock held. */
static int start_over(struct fs *fs, struct inode *inode, struct layout *snapshot)
{
    bool is_taken = layout_only_in_part(snapshot, 0, layout_size(snapshot));

    if (layout_only_in_part(&inode->layout, 0, inode->size)) {
        if (inode->upload->lost_copy)
            return ESTALE;
        if (!inode->upload->is_lost)
            log_error("%s: the store has lost its upload, and with it bytes that were nowhere "
                      "else; the file must be written anew",
                      inode->upload->key);
        inode->upload->is_lost = true;
        return EIO;
    }
    upload_discard(fs, inode);
    layout_forget_parts(snapshot);
    return is_taken ? EIO : 0; /* overwritten meanwhile: the next publish has it */
}

/* An upload that can be gone on with: there, begun, its failures forgotten. */
static int ensure_upload(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                         struct layout *snapshot, const char *key)
{
    g_autoptr(StoreCall) begin = NULL;
    int error;

    pthread_mutex_lock(&inode->lock);
    error = wait_begun(caller, inode);
    if (!error && inode->upload && inode->upload->error == ENOENT)
        error = start_over(fs, inode, snapshot);
    if (error) {
        pthread_mutex_unlock(&inode->lock);
        return error;
    }
    if (inode->upload && inode->upload->id) {
        inode->upload->error = 0;
        for (guint i = 0; i < inode->upload->parts->len; i++) {
            struct part *part = inode->upload->parts->pdata[i];

            if (part->state == PART_FAILED)
                part->state = PART_WAITING;
        }
        pthread_mutex_unlock(&inode->lock);
        return 0;
    }
    if (inode->upload)
        upload_free(inode->upload);
    begin = begin_prepare(fs, inode, key, 0);
    pthread_mutex_unlock(&inode->lock);
    error = run_call(fs, caller, begin);
    pthread_mutex_lock(&inode->lock);
    inode->upload->beginning = false;
    inode->upload->id = error ? NULL : g_strdup(begin->upload_id);
    upload_begun(fs, begin);
    journal_image(fs, inode);
    if (error && error != EINTR)
        upload_complain(fs, "begin the upload of", begin);
    pthread_mutex_unlock(&inode->lock);
    return error;
}

struct store_call *commit_prepare(const struct upload *upload)
{
    struct store_call *commit = store_call_commit(upload->key, upload->id);

    for (guint i = 0; i < upload->parts->len; i++) {
        struct part *part = upload->parts->pdata[i];

        store_call_add_part(commit, part->number, part->etag);
    }
    return commit;
}

/* *ETAG: what came of it. ENOENT: the store has no such upload. Then an earlier commit whose answer
 * never came may have been carried out. */
static int run_commit(struct fs *fs, struct fs_caller *caller, struct store_call *commit,
                      const char *lineage, uint64_t size, char **etag)
{
    int error = run_call(fs, caller, commit), unknown;

    if (!error)
        *etag = g_strdup(commit->object.etag);
    if (error != ENOENT)
        return error;
    unknown = find_landed(fs, caller, commit->key, lineage, size, etag);
    return unknown ? unknown : *etag ? 0 : ENOENT;
}

static int try_finish(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                      struct layout *snapshot, const char *key, char **etag)
{
    g_autoptr(StoreCall) commit = NULL;
    g_autofree char *lineage = NULL;
    int error = ensure_upload(fs, caller, inode, snapshot, key);

    if (!error)
        error = send_rest(fs, caller, inode, snapshot);
    if (error)
        return error;
    pthread_mutex_lock(&inode->lock);
    lineage = g_strdup(inode->upload->lineage);
    commit = commit_prepare(inode->upload);
    pthread_mutex_unlock(&inode->lock);
    error = run_commit(fs, caller, commit, lineage, layout_size(snapshot), etag);
    if (!error)
        upload_forget(fs, commit->key, commit->upload_id);
    pthread_mutex_lock(&inode->lock);
    if (error)
        inode->upload->error = error; /* nothing more is sent until the next publish */
    inode->upload->in_doubt = maybe_carried_out(error);
    if (error && error != EINTR)
        upload_complain(fs, "commit", commit);
    if (!error)
        g_clear_pointer(&inode->upload, upload_free);
    pthread_mutex_unlock(&inode->lock);
    return error;
}

int upload_finish(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                  struct layout *snapshot, const char *key, char **etag)
{
    int error = try_finish(fs, caller, inode, snapshot, key, etag);
    bool lost_copy;

    if (error == ENOENT) /* the upload is gone: once more from the beginning, if that can be */
        error = try_finish(fs, caller, inode, snapshot, key, etag);
    if (error != ENOENT)
        return error;
    pthread_mutex_lock(&inode->lock);
    lost_copy = inode->upload && inode->upload->lost_copy;
    pthread_mutex_unlock(&inode->lock);
    return lost_copy ? ESTALE : EIO; /* the base object, and not the upload, is gone */
}
