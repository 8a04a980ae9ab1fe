/* Open files: open, read, fsync, release. */
#include "fusefs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* An open asks the store, so that who opens a file after another client closed it sees what that
 * one wrote; unless the user said that things may be believed for long. */
static unsigned open_ttl_ms(struct fs *fs)
{
    return fs->options.attr_ttl_ms > ATTR_TTL_MS ? fs->options.attr_ttl_ms : 0;
}

/* inode->lock held. */
static struct fs_file *file_new(struct inode *inode, int flags)
{
    struct fs_file *file = g_new0(struct fs_file, 1);

    file->inode = inode;
    file->flags = flags;
    file->link.data = file;
    g_queue_push_tail_link(&inode->files, &file->link);
    inode->handles++;
    if ((flags & O_ACCMODE) != O_RDONLY)
        inode->writers++;
    if ((flags & O_ACCMODE) != O_WRONLY)
        inode->readers++;
    journal_state(inode);
    return file;
}

/* A handle of INODE, unless its name goes meanwhile to another file and nobody else has it open:
 * its bytes are gone then. The kernel opens once more (reopen.h). */
static int file_join(struct fs *fs, struct fs_caller *caller, struct inode *inode, int flags,
                     struct fs_file **file, bool *keep_cache)
{
    bool is_late = false;
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    while (!error && inode->vanished && inode->publishing && !inode->handles) {
        is_late = true;
        reopens_wait(fs->reopens, caller->task, inode->ino);
        wait_changed(inode, 100);
        error = is_interrupted(caller) ? EINTR : 0;
    }
    if (!error && ((inode->vanished && !inode->handles) || atomic_load(&inode->replaced)))
        error = ESTALE;
    if (!error) {
        *file = file_new(inode, flags);
        *keep_cache = !inode->grown && !(flags & O_TRUNC);
        inode->grown = false;
    }
    pthread_mutex_unlock(&inode->lock);
    if (error == ESTALE && is_late)
        reopens_tell(fs->reopens, inode->ino); /* as whoever took the name has, mostly */
    else if (error == ESTALE)
        reopens_add(fs->reopens, caller->task);
    else
        reopens_end(fs->reopens, caller->task);
    return error;
}

static bool writes(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

int fs_create(struct fs *fs, struct fs_caller *caller, uint64_t parent_ino, const char *name,
              mode_t mode, int flags, struct fs_file **file, struct stat *st)
{
    struct inode *inode;
    int error = fs_may_change(fs);

    if (error)
        return error;
    error = fs_lookup(fs, caller, parent_ino, name, st);
    if (!error) {
        bool keep;

        if (flags & O_EXCL)
            error = EEXIST;
        else
            error = fs_open(fs, caller, st->st_ino, flags, file, &keep);
        if (error)
            fs_forget(fs, st->st_ino, 1);
        return error;
    }
    if (error != ENOENT)
        return error;
    error = inode_make(fs, caller, parent_ino, name, S_IFREG | (mode & 07777), &inode);
    if (error == EEXIST && !(flags & O_EXCL)) /* somebody else was faster */
        return fs_create(fs, caller, parent_ino, name, mode, flags, file, st);
    if (error)
        return error;
    journal_start(fs, inode);
    pthread_mutex_lock(&inode->lock);
    inode->data_dirty = true;
    *file = file_new(inode, flags); /* takes the pin over */
    pthread_mutex_unlock(&inode->lock);
    pthread_mutex_lock(&fs->lock);
    inode->lookups++;
    pthread_mutex_unlock(&fs->lock);
    inode_stat(inode, st);
    return 0;
}

int fs_open(struct fs *fs, struct fs_caller *caller, uint64_t ino, int flags, struct fs_file **file,
            bool *keep_cache)
{
    struct inode *inode;
    int error = 0;

    if (writes(flags) && (error = fs_may_change(fs)))
        return error;
    inode = inode_get(fs, ino);
    if (!inode)
        return ESTALE;
    if (is_directory(inode))
        error = EISDIR;
    else if (atomic_load(&inode->replaced))
        error = ESTALE; /* the kernel looks the name up again */
    if (!error)
        error = inode_refresh_for(fs, caller, inode, open_ttl_ms(fs));
    if (!error && writes(flags))
        error = inode_refresh_whole(fs, caller, inode); /* what is saved keeps its metadata */
    inode_take_up(fs, inode);
    if (!error)
        error = file_join(fs, caller, inode, flags, file, keep_cache);
    if (error) {
        inode_unpin(fs, inode);
        return error;
    }
    if (writes(flags))
        journal_start(fs, inode);
    if (flags & O_TRUNC)
        error = inode_truncate(fs, caller, inode, 0);
    if (error)
        fs_release(fs, *file);
    return error;
}

static bool needs_base(const struct layout *view)
{
    bool needs = false;

    for (unsigned i = 0; i < layout_count(view); i++)
        needs = needs || (layout_at(view, i)->in_object && !layout_at(view, i)->buffer);
    return needs;
}

/* A read that is not simply of the base object: piece by piece into one buffer. Where the store is
 * asked meanwhile, or much is read, that is ROOM, of the budget; NULL: ENOBUFS tells that it is
 * needed. */
static int read_mixed(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                      const struct layout *view, struct buffer *room, uint64_t offset, uint64_t end,
                      fs_reply *reply, void *user)
{
    g_autofree char *key = NULL, *etag = NULL, *own = NULL;
    char *data = room ? (char *)room->data : NULL;
    struct iovec iov = {.iov_len = end - offset};
    int error = 0;

    g_assert(!room || iov.iov_len <= room->capacity);
    if (!room && (needs_base(view) || iov.iov_len > CHARGE_ABOVE))
        return ENOBUFS;
    if (!room)
        data = own = g_try_malloc(iov.iov_len);
    if (!data)
        return ENOMEM;
    iov.iov_base = memset(data, 0, iov.iov_len);
    pthread_mutex_lock(&inode->lock);
    key = g_strdup(inode->base_key);
    etag = g_strdup(inode->etag);
    pthread_mutex_unlock(&inode->lock);
    for (unsigned i = 0; !error && i < layout_count(view); i++) {
        const struct extent *extent = layout_at(view, i);
        char *to = data + (extent->start - offset);
        uint64_t size = extent->end - extent->start;

        if (extent->buffer)
            memcpy(to, extent->buffer->data + extent->buffer_offset, size);
        else if (extent->in_object)
            error = base_fetch(fs, caller, key, etag, extent->start, to, size);
    }
    if (!error)
        reply(user, &iov, 1);
    return error;
}

enum source { FROM_BASE, FROM_LAYOUT, FROM_UPLOAD, FROM_NOTHING };

/* Where [offset, end) is now; FROM_LAYOUT fills VIEW with a frozen copy. */
static enum source find_source(struct inode *inode, uint64_t offset, uint64_t *end,
                               struct layout *view)
{
    const struct extent *extent;
    unsigned index;

    *end = MIN(*end, inode->size);
    if (offset >= *end)
        return FROM_NOTHING;
    if (layout_only_in_part(&inode->layout, offset, *end))
        return FROM_UPLOAD;
    index = layout_find(&inode->layout, offset);
    extent = layout_at(&inode->layout, index);
    if (extent->in_object && !extent->buffer && extent->end >= *end)
        return FROM_BASE;
    layout_copy(&inode->layout, offset, *end, view);
    layout_freeze(view);
    return FROM_LAYOUT;
}

/* Another client may have replaced the object, or only added to it; or we have, unheard. */
static int after_stale(struct fs *fs, struct fs_caller *caller, struct fs_file *file)
{
    struct inode *inode = file->inode;
    bool in_doubt;

    pthread_mutex_lock(&inode->lock);
    inode->checked_ms = 0;
    in_doubt = inode->doubt && inode_is_dirty(inode);
    pthread_mutex_unlock(&inode->lock);
    if (in_doubt)
        return inode_settle(fs, caller, inode);
    inode_refresh(fs, caller, inode);
    return atomic_load(&inode->replaced) ? ESTALE : 0;
}

static int read_once(struct fs *fs, struct fs_caller *caller, struct fs_file *file,
                     struct buffer *room, uint64_t offset, size_t size, fs_reply *reply, void *user)
{
    struct inode *inode = file->inode;
    uint64_t end = offset + size;
    struct layout view = {0};
    enum source source;
    int error;

    pthread_mutex_lock(&inode->lock);
    error = atomic_load(&inode->replaced) ? ESTALE : 0;
    source = error ? FROM_NOTHING : find_source(inode, offset, &end, &view);
    pthread_mutex_unlock(&inode->lock);
    if (error)
        return error;
    switch (source) {
    case FROM_NOTHING:
        reply(user, NULL, 0);
        return 0;
    case FROM_BASE:
        return base_read(fs, caller, inode, offset, end - offset, reply, user);
    case FROM_UPLOAD:
        error = inode_settle(fs, caller, inode);
        return error ? error : EAGAIN;
    case FROM_LAYOUT:
        error = read_mixed(fs, caller, inode, &view, room, offset, end, reply, user);
        layout_thaw(&view);
        layout_clear(&view);
        return error;
    }
    return EIO;
}

int fs_read(struct fs *fs, struct fs_caller *caller, struct fs_file *file, uint64_t offset,
            size_t size, fs_reply *reply, void *user)
{
    struct buffer *room = NULL;
    int error = EAGAIN;

    for (int tries = 0; tries < 6 && error == EAGAIN; tries++) {
        error = read_once(fs, caller, file, room, offset, size, reply, user);
        if (error == ENOBUFS && !room) {
            room = wait_wanted(fs, caller, MIN(size, BUFFER_MAX), &error);
            error = error ? error : EAGAIN;
        } else if ((error == ESTALE || error == ENOENT) && tries < 5) {
            error = after_stale(fs, caller, file);
            error = error ? error : EAGAIN;
        }
    }
    buffer_unref(room);
    return error == EAGAIN ? EIO : error;
}

int fs_fsync(struct fs *fs, struct fs_caller *caller, struct fs_file *file)
{
    struct inode *inode = file->inode;
    bool dirty, lost;
    int error;

    pthread_mutex_lock(&inode->lock);
    dirty = (inode_is_dirty(inode) || inode->publishing) && !inode->vanished;
    lost = inode_is_dirty(inode) && atomic_load(&inode->replaced); /* no name to save it under */
    inode->syncing += dirty;
    journal_state(inode);
    pthread_mutex_unlock(&inode->lock);
    if (!dirty)
        return lost ? ESTALE : 0;
    error = publish_earlier_failures(fs, caller, inode);
    if (!error)
        error = inode_publish(fs, caller, inode);
    pthread_mutex_lock(&inode->lock);
    inode->syncing--;
    if (error && inode_is_dirty(inode) && !inode->failed_close) {
        inode->failed_close = atomic_fetch_add(&fs->failed_closes, 1) + 1;
        journal_image(fs, inode);
    }
    journal_state(inode);
    pthread_mutex_unlock(&inode->lock);
    return error;
}

char *inode_end_vanished(struct fs *fs, struct inode *inode)
{
    if (!inode->vanished || inode->handles || inode->publishing)
        return NULL;
    upload_discard(fs, inode);
    inode->data_dirty = inode->attrs_dirty = false;
    journal_clean(fs, inode);
    return key_is_staged(inode->base_key) ? g_steal_pointer(&inode->base_key) : NULL;
}

int fs_flush(struct fs *fs, struct fs_caller *caller, struct fs_file *file)
{
    bool unknown;

    pthread_mutex_lock(&file->inode->lock);
    unknown = !file->inode->etag; /* only its name is here: who closed it finds it in the store */
    pthread_mutex_unlock(&file->inode->lock);
    return writes(file->flags) || unknown ? fs_fsync(fs, caller, file) : 0;
}

void fs_release(struct fs *fs, struct fs_file *file)
{
    struct inode *inode = file->inode;
    g_autofree char *staged = NULL;

    pthread_mutex_lock(&inode->lock);
    g_queue_unlink(&inode->files, &file->link);
    inode->handles--;
    if ((file->flags & O_ACCMODE) != O_RDONLY)
        inode->writers--;
    if ((file->flags & O_ACCMODE) != O_WRONLY)
        inode->readers--;
    journal_state(inode);
    if (inode->handles == 0) {
        streams_drop(inode);
        if (!inode->publishing)
            journal_drop_clean(fs, inode);
        staged = inode_end_vanished(fs, inode);
    }
    pthread_mutex_unlock(&inode->lock);
    if (staged)
        staged_remove(fs, staged);
    leave_dirty_list(fs, inode);
    inode_unpin(fs, inode);
    g_free(file);
}
