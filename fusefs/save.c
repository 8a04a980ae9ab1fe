/* Saving a snapshot: in one PUT, as an upload's parts, or as a copy of what is in the store
 * already. Runs on the thread that publishes; it blocks. */
#include "fusefs/publish.h"

#include <errno.h>
#include <string.h>

/* The pieces of the snapshot that are in no memory, each at most BUFFER_MAX. */
static GArray *list_missing(const struct layout *snapshot)
{
    GArray *sizes = g_array_new(FALSE, FALSE, sizeof(size_t));

    for (unsigned i = 0; i < layout_count(snapshot); i++) {
        const struct extent *extent = layout_at(snapshot, i);

        for (uint64_t at = extent->start; !extent->buffer && at < extent->end; at += BUFFER_MAX) {
            size_t size = MIN(BUFFER_MAX, extent->end - at);

            g_array_append_val(sizes, size);
        }
    }
    return sizes;
}

/* Bytes of the base object, or zeros. */
static int fill_missing(struct publish *p, const struct extent *extent, uint64_t at, size_t size,
                        struct buffer *buffer)
{
    if (extent->in_object)
        return base_fetch(p->fs, p->caller, p->inode->base_key, p->inode->etag, at, buffer->data,
                          size);
    memset(buffer->data, 0, size);
    return 0;
}

/* The snapshot as pieces of memory; PADDING is what was missing, in order. */
static int gather(struct publish *p, GPtrArray *padding, GArray *iov)
{
    guint used = 0;
    int error = 0;

    for (unsigned i = 0; !error && i < layout_count(&p->snapshot); i++) {
        const struct extent *extent = layout_at(&p->snapshot, i);

        for (uint64_t at = extent->start; !error && at < extent->end; at += BUFFER_MAX) {
            struct iovec piece = {.iov_len = MIN(BUFFER_MAX, extent->end - at)};

            if (extent->buffer) {
                piece.iov_base =
                    extent->buffer->data + extent->buffer_offset + (at - extent->start);
            } else {
                struct buffer *buffer = padding->pdata[used++];

                piece.iov_base = buffer->data;
                error = fill_missing(p, extent, at, piece.iov_len, buffer);
            }
            g_array_append_val(iov, piece);
        }
    }
    return error;
}

/* A whole object in one PUT; what is in the base object alone is fetched first. */
static int put_whole(struct publish *p)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_PUT, p->to);
    g_autoptr(GPtrArray) padding = g_ptr_array_new_with_free_func((GDestroyNotify)buffer_unref);
    g_autoptr(GArray) iov = g_array_new(FALSE, FALSE, sizeof(struct iovec));
    g_autoptr(GArray) missing = list_missing(&p->snapshot);
    int error = take_padding(p->fs, p->caller, missing, padding);

    if (!error)
        error = gather(p, padding, iov);
    if (error)
        return error;
    store_call_set_iov(call, (struct iovec *)(void *)iov->data, iov->len);
    call->metadata = metadata_copy(p->metadata);
    error = run_call(p->fs, p->caller, call);
    p->in_doubt = error && strcmp(p->to, p->key) == 0;
    if (error && error != EINTR)
        complain(p->fs, p->key, "save %s: %s; it is kept and tried again", p->key,
                 call->error->message);
    if (!error)
        p->etag = g_strdup(call->object.etag);
    return error;
}

/* Whether one PUT is the way: small, and no long stretch that the store could copy instead. */
static bool fits_one_put(struct publish *p)
{
    const struct store_caps *caps = store_caps(p->fs->store);

    if (p->inode->upload || p->size > p->fs->part_bytes)
        return false;
    for (unsigned i = 0; caps->has_copy_part && i < layout_count(&p->snapshot); i++) {
        const struct extent *extent = layout_at(&p->snapshot, i);

        if (extent->in_object && !extent->buffer &&
            extent->end - extent->start >= MAX(caps->min_part_bytes, BUFFER_MAX))
            return false;
    }
    return true;
}

int save_directory(struct publish *p)
{
    g_autoptr(StoreCall) call = store_call_put(p->key, NULL, 0);

    call->metadata = metadata_copy(p->metadata);
    return run_call(p->fs, p->caller, call);
}

static int save_attributes(struct publish *p)
{
    int error;

    p->to = g_strdup(p->key);
    error = object_copy(p->fs, p->caller, p->key, p->key, p->size, p->inode->etag, p->metadata,
                        &p->etag);
    p->in_doubt = error;
    return error;
}

/* Everything is in the staged object KEY: the store copies it to where it is seen. */
static int promote(struct publish *p, const char *key, const char *etag)
{
    char *new_etag = NULL;
    int error = object_copy(p->fs, p->caller, key, p->key, p->size, etag, p->metadata, &new_etag);

    if (error)
        return error;
    g_ptr_array_add(p->leftovers, g_strdup(key));
    g_free(p->to);
    p->to = g_strdup(p->key);
    g_free(p->etag);
    p->etag = new_etag;
    return 0;
}

/* Whether the open upload is none that this publish can go on with. inode->lock held. */
static bool is_other_upload(const struct publish *p, const struct upload *upload)
{
    if (upload->end > p->size)
        return true;
    return !upload->staged && (p->goal == GOAL_STAGED || strcmp(upload->key, p->key) != 0);
}

/* Where the open upload goes is not where this one is to go: it is given up, if every byte of it is
 * somewhere else too. So is one that began as the growing of what has been rewritten since. */
static int drop_other_upload(struct publish *p)
{
    struct inode *inode = p->inode;
    struct upload *upload;
    bool other, relined, only;
    int error;

    pthread_mutex_lock(&inode->lock);
    error = wait_begun(p->caller, inode);
    upload = inode->upload;
    only = layout_only_in_part(&p->snapshot, 0, p->size);
    other = !error && upload && is_other_upload(p, upload);
    relined = !error && upload && !upload->staged && g_strcmp0(upload->lineage, p->lineage) != 0;
    if (other && only) {
        complain(p->fs, p->key, "%s: what was sent for %s cannot be read back", p->key,
                 upload->key);
        error = EIO;
    } else if (other || (relined && !only)) {
        upload_discard(p->fs, inode);
        layout_forget_parts(&p->snapshot);
    } else if (relined) {
        p->attrs_explicit = true; /* its metadata are put right behind the commit */
    }
    p->to = inode->upload            ? g_strdup(inode->upload->key)
            : p->goal == GOAL_STAGED ? staged_key_new(p->fs)
                                     : g_strdup(p->key);
    pthread_mutex_unlock(&inode->lock);
    return error;
}

int save_file(struct publish *p)
{
    struct inode *inode = p->inode;
    int error;

    if (!p->data && inode->etag)
        return save_attributes(p);
    if (p->goal == GOAL_VISIBLE && key_is_staged(inode->base_key) && !inode->upload &&
        inode->base_size == p->size && layout_is_saved(&p->snapshot))
        return promote(p, inode->base_key, inode->etag);
    error = drop_other_upload(p);
    if (error)
        return error;
    if (fits_one_put(p))
        return put_whole(p);
    error = upload_finish(p->fs, p->caller, inode, &p->snapshot, p->to, &p->etag);
    if (!error && p->goal == GOAL_VISIBLE && key_is_staged(p->to)) {
        g_autofree char *staged = g_strdup(p->to), *etag = g_strdup(p->etag);

        error = promote(p, staged, etag);
    } else if (!error && p->goal == GOAL_VISIBLE) {
        p->again = p->attrs_explicit; /* it carries the attributes of when it began */
    }
    return error;
}
