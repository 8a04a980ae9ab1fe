/* Taking names away: unlink, rmdir, and what a rename replaces. */
#include "fusefs/fs_internal.h"

#include <errno.h>
#include <string.h>

static bool must_wait(struct fs *fs, struct fs_caller *caller)
{
    return reopens_expect_any(fs->reopens) && !is_interrupted(caller);
}

/* INODE's turn to publish, at a time when nobody is about to open once more (reopen.h): who is may
 * need that turn. */
static int hold_name(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    bool is_open;
    int error = 0;

    for (;;) {
        while (must_wait(fs, caller))
            g_usleep(1000);
        pthread_mutex_lock(&inode->lock);
        is_open = inode->handles > 0;
        pthread_mutex_unlock(&inode->lock);
        if (is_open)
            error = inode_refresh_whole(fs, caller, inode); /* it may have to be written back */
        if (!error)
            error = inode_publish_hold(fs, caller, inode, true);
        if (error || !must_wait(fs, caller))
            return error;
        pthread_mutex_lock(&inode->lock);
        inode->vanished = false; /* not yet */
        pthread_mutex_unlock(&inode->lock);
        inode_publish_end(fs, inode);
    }
}

/* INODE is about to lose its name. While somebody has it open, its bytes move aside, to a staged
 * object, until the last close. On success its turn to publish is held: end with
 * inode_publish_end. */
int hide_open_file(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    g_autofree char *staged = staged_key_new(fs);
    g_autofree char *key = NULL, *etag = NULL, *new_etag = NULL;
    uint64_t size;
    bool move;
    int error = hold_name(fs, caller, inode);

    if (error)
        return error;
    pthread_mutex_lock(&inode->lock);
    if (inode->handles && inode->upload && !inode->upload->staged)
        upload_discard(fs, inode); /* all of it is in memory: it goes where it can be read */
    move = inode->handles > 0 && inode->etag && !key_is_staged(inode->base_key);
    key = g_strdup(inode->base_key);
    etag = g_strdup(inode->etag);
    size = inode->base_size;
    inode->vanished = !move; /* who opens it from now on waits */
    pthread_mutex_unlock(&inode->lock);
    if (move)
        error = object_copy(fs, caller, key, staged, size, etag, NULL, &new_etag);
    if (error) {
        late_undo(fs, staged);
        inode_publish_end(fs, inode);
        return error;
    }
    pthread_mutex_lock(&inode->lock);
    if (move) {
        g_free(inode->base_key);
        inode->base_key = g_steal_pointer(&staged);
        g_free(inode->etag);
        inode->etag = g_steal_pointer(&new_etag);
        streams_drop(inode);
    }
    inode->vanished = true;
    pthread_mutex_unlock(&inode->lock);
    return 0;
}

/* The name could not be taken away, as far as is known: the next look at it asks the store. A copy
 * aside is what the file is made of now, so the next publish writes it back where it was. */
void unhide_open_file(struct fs *fs, struct inode *inode)
{
    pthread_mutex_lock(&inode->lock);
    inode->vanished = false;
    inode->checked_ms = 0;
    if (key_is_staged(inode->base_key)) {
        inode->data_dirty = true;
        inode_mark_dirty(fs, inode);
    }
    journal_image(fs, inode);
    pthread_mutex_unlock(&inode->lock);
}

/* A name that is to be removed or renamed. */
static int find_to_change(struct fs *fs, struct fs_caller *caller, uint64_t parent,
                          const char *name, struct inode **inode)
{
    int error = fs_may_change(fs);

    return error ? error : find_child(fs, caller, parent, name, inode);
}

/* Inside the gate. */
static int unlink_file(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    g_autoptr(StoreCall) call = NULL;
    g_autofree char *key = NULL;
    int error = hide_open_file(fs, caller, inode);

    if (error)
        return error;
    key = inode_key(fs, inode);
    call = store_call_new(STORE_DELETE, key);
    error = fs_assure_lease(fs, caller, key);
    if (!error)
        error = run_call(fs, caller, call);
    if (!error)
        forget_name(fs, inode);
    else
        unhide_open_file(fs, inode);
    inode_publish_end(fs, inode);
    return error;
}

int fs_unlink(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name)
{
    struct inode *inode;
    int error = find_to_change(fs, caller, parent, name, &inode);

    if (error)
        return error;
    error = is_directory(inode) ? EISDIR : gate_enter(fs, caller);
    if (!error) {
        error = unlink_file(fs, caller, inode);
        gate_leave(fs);
    }
    inode_unpin(fs, inode);
    return error;
}

/* Whether names below INODE are in use here, or known here alone; or, where all are known, whether
 * there are any. fs->lock held. */
static bool has_names_here(struct fs *fs, struct inode *inode)
{
    GHashTableIter iter;
    gpointer child;

    if (inode->names)
        return g_hash_table_size(inode->children) || g_hash_table_size(inode->names);
    g_hash_table_iter_init(&iter, inode->children);
    while (g_hash_table_iter_next(&iter, NULL, &child))
        if (is_directory(child) || ((struct inode *)child)->pins > 0 ||
            inode_is_listed_dirty(fs, child))
            return true;
    return false;
}

int directory_is_empty(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    g_autofree char *prefix = inode_key(fs, inode);
    g_autoptr(StoreCall) list = store_call_new(STORE_LIST, prefix);
    bool occupied, known;
    int error;

    dir_let_go(fs, inode);
    pthread_mutex_lock(&fs->lock);
    occupied = has_names_here(fs, inode);
    known = inode->names != NULL;
    pthread_mutex_unlock(&fs->lock);
    if (occupied)
        return ENOTEMPTY;
    if (known && fs_is_authority(fs))
        return 0;
    list->limit = 2;
    error = run_call(fs, caller, list);
    for (guint i = 0; !error && i < list->objects->len; i++)
        if (strcmp(((struct store_object *)list->objects->pdata[i])->key, prefix) != 0)
            error = ENOTEMPTY;
    return error;
}

static int remove_directory(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    g_autoptr(StoreCall) call = NULL;
    g_autofree char *key = NULL;
    int error = is_directory(inode) ? directory_is_empty(fs, caller, inode) : ENOTDIR;

    if (error)
        return error;
    key = inode_key(fs, inode);
    call = store_call_new(STORE_DELETE, key);
    error = fs_assure_lease(fs, caller, key);
    if (!error)
        error = run_call(fs, caller, call);
    if (!error) {
        forget_name(fs, inode);
        index_forget_of(fs, inode, key);
    }
    return error;
}

int fs_rmdir(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name)
{
    struct inode *inode;
    int error = find_to_change(fs, caller, parent, name, &inode);

    if (error)
        return error;
    error = gate_enter(fs, caller);
    if (!error) {
        error = remove_directory(fs, caller, inode);
        gate_leave(fs);
    }
    inode_unpin(fs, inode);
    return error;
}
