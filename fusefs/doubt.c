/* A publish that failed without the store's own word may have been carried out all the same: a
 * signal or a deadline cut the answer off. Then the object is another version than the one that the
 * inode knows, from which nothing could be read or copied any more, and the upload is gone. So such
 * a publish is kept, and what came of it is found out before the next one.
 *
 * shape: what is found has the lineage and the size that it was to have. Nothing is sent for an
 *        upload whose commit is in doubt (its error is set): all that is in parts was committed.
 * owns:  the snapshot stays frozen, so that it still says what was to be saved.
 */
#include "fusefs/publish.h"
#include "fusefs/upload.h"

#include <errno.h>

void doubt_keep(struct publish *p)
{
    struct inode *inode = p->inode;
    const struct upload *upload = inode->upload;

    g_clear_pointer(&inode->doubt, doubt_free);
    if (upload && upload->in_doubt) {
        g_free(p->lineage);
        p->lineage = g_strdup(upload->lineage);
    }
    inode->doubt = g_memdup2(p, sizeof(*p));
    *p = (struct publish){.inode = inode}; /* it has nothing any more */
}

void doubt_free(struct publish *doubt)
{
    publish_clear(doubt);
    g_free(doubt);
}

int find_landed(struct fs *fs, struct fs_caller *caller, const char *key, const char *lineage,
                uint64_t bytes, char **etag)
{
    g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, key);
    int error = run_call(fs, caller, head);
    const char *told = !error && head->object.metadata
                           ? g_hash_table_lookup(head->object.metadata, LINEAGE)
                           : NULL;

    *etag = told && g_strcmp0(told, lineage) == 0 && head->object.size_bytes == bytes
                ? g_strdup(head->object.etag)
                : NULL;
    return error == ENOENT ? 0 : error;
}

/* The upload whose commit is in doubt. inode->lock held. */
static struct upload *doubtful_upload(const struct inode *inode)
{
    return inode->upload && inode->upload->in_doubt ? inode->upload : NULL;
}

/* Whether something is to be sent before UPLOAD's commit. inode->lock held. */
static bool has_more(const struct inode *inode, const struct upload *upload)
{
    bool more = upload->end != inode->size;

    for (guint i = 0; !more && i < upload->parts->len; i++) {
        const struct part *part = upload->parts->pdata[i];

        more = part->changed || part->state != PART_SENT;
    }
    return more;
}

bool doubt_is_open(const struct inode *inode, enum goal goal)
{
    const struct upload *upload = doubtful_upload(inode);
    bool commits_it_again = goal == GOAL_VISIBLE && upload && !has_more(inode, upload);

    return inode->doubt && !commits_it_again;
}

static bool is_same_metadata(GHashTable *a, GHashTable *b)
{
    GHashTableIter iter;
    gpointer name, value;
    bool same = g_hash_table_size(a) == g_hash_table_size(b);

    g_hash_table_iter_init(&iter, a);
    while (same && g_hash_table_iter_next(&iter, &name, &value))
        same = g_strcmp0(value, g_hash_table_lookup(b, name)) == 0;
    return same;
}

/* DOUBT is what everybody sees. What has changed since is dirty. inode->lock held. */
static void compare_with_seen(struct publish *doubt)
{
    struct inode *inode = doubt->inode;
    g_autoptr(GHashTable) metadata = inode_metadata(inode);

    inode->rewritten = inode->rewritten && g_strcmp0(inode->lineage, doubt->lineage) != 0;
    publish_compare(doubt);
    if (layout_is_saved(&inode->layout) && inode->size == inode->base_size) {
        inode->data_dirty = false;
        /* Lineage and size are the same before attributes were put right and after. */
        inode->attrs_dirty =
            !doubt->data || inode->attrs_explicit || !is_same_metadata(metadata, doubt->metadata);
    }
    inode->checked_ms = now_ms();
    inode_note_change(doubt->fs, inode);
    if (inode_is_dirty(inode))
        return;
    inode->failed_close = 0;
    inode->dirty_ms = 0;
}

/* What is in doubt was carried out: as if its answer had come. */
static void take_landed(struct fs *fs, struct inode *inode, const char *etag)
{
    struct publish *doubt;
    struct upload *upload;

    pthread_mutex_lock(&inode->lock);
    doubt = g_steal_pointer(&inode->doubt);
    upload = doubtful_upload(inode);
    if (upload) {
        upload_forget(fs, upload->key, upload->id);
        g_clear_pointer(&inode->upload, upload_free);
    }
    doubt->etag = g_strdup(etag);
    publish_take_over(doubt);
    if (!key_is_staged(doubt->to))
        compare_with_seen(doubt);
    journal_image(fs, inode);
    pthread_mutex_unlock(&inode->lock);
    complain_no_more(fs, doubt->key);
    publish_remove_leftovers(doubt);
    doubt_free(doubt);
}

/* Nothing was carried out, and nothing will be. */
static void take_nothing(struct inode *inode)
{
    struct publish *doubt;
    struct upload *upload;

    pthread_mutex_lock(&inode->lock);
    doubt = g_steal_pointer(&inode->doubt);
    upload = doubtful_upload(inode);
    if (upload) {
        upload->in_doubt = false;
        upload->error = ENOENT;
    }
    pthread_mutex_unlock(&inode->lock);
    doubt_free(doubt);
}

/* An upload is ended, so that its commit does not come later, by another commit: an abort beside a
 * commit that goes on may take the parts away from the object. ENOENT: it had ended. */
static int end_upload(struct fs *fs, struct fs_caller *caller, struct inode *inode, char **etag)
{
    g_autoptr(StoreCall) call = NULL;
    struct upload *upload;
    int error;

    pthread_mutex_lock(&inode->lock);
    upload = doubtful_upload(inode);
    if (upload)
        call = commit_prepare(upload);
    pthread_mutex_unlock(&inode->lock);
    error = call ? run_call(fs, caller, call) : 0;
    if (call && !error)
        *etag = g_strdup(call->object.etag);
    return error == ENOENT ? 0 : error;
}

int doubt_settle(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    const struct publish *doubt = inode->doubt; /* whose turn it is alone changes it */
    g_autofree char *etag = NULL;
    int error = late_wait(fs, caller, doubt->to);

    if (!error)
        error = end_upload(fs, caller, inode, &etag);

    if (!error && !etag)
        error = find_landed(fs, caller, doubt->to, doubt->lineage, doubt->size, &etag);
    if (error)
        return error;
    if (etag)
        take_landed(fs, inode, etag);
    else
        take_nothing(inode);
    return 0;
}
