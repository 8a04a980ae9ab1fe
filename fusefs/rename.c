/* Renames. The store has none: a file is copied by the store and its old key deleted; a directory
 * is that for everything below it, copies first and deletes after the last copy, so that a crash in
 * the middle loses nothing and the same rename again finishes it. */
#include "fusefs/fs_internal.h"

#include <linux/fs.h>
#include <string.h>

#define COPIES 16

/* In the tree. */
static void change_place(struct fs *fs, struct inode *inode, struct inode *new_parent,
                         const char *new_name)
{
    pthread_mutex_lock(&fs->lock);
    if (inode->parent)
        touch_directory(inode->parent);
    inode_detach(inode);
    inode_attach(fs, inode, new_parent, new_name);
    journal_moved(fs, inode);
    touch_directory(new_parent);
    pthread_mutex_unlock(&fs->lock);
}

/* INODE's bytes are read from KEY from now on. */
static void set_base(struct fs *fs, struct inode *inode, const char *key, const char *etag)
{
    pthread_mutex_lock(&inode->lock);
    streams_drop(inode);
    g_free(inode->base_key);
    inode->base_key = g_strdup(key);
    g_free(inode->etag);
    inode->etag = g_strdup(etag);
    inode->checked_ms = now_ms();
    journal_set_path(fs, inode, key);
    inode_note_change(fs, inode);
    pthread_mutex_unlock(&inode->lock);
}

/* Whether KEY, whose removal failed, is surely there. Its removal may not have been heard. */
static bool is_there(struct fs *fs, const char *key)
{
    g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, key);

    return run_call(fs, NULL, head) == 0;
}

/* On success SOURCE's turn to publish is held: its publishes go on, under the new name, after
 * inode_publish_end. */
static int rename_file(struct fs *fs, struct fs_caller *caller, struct inode *inode, const char *to,
                       bool is_new)
{
    g_autofree char *from = NULL, *etag = NULL, *new_etag = NULL;
    g_autoptr(StoreCall) remove = NULL;
    uint64_t size;
    int error;

    error = inode_publish_hold(fs, caller, inode, false);
    if (error)
        return error;
    from = inode_key(fs, inode);
    pthread_mutex_lock(&inode->lock);
    etag = g_strdup(inode->etag);
    size = inode->base_size;
    pthread_mutex_unlock(&inode->lock);
    error = fs_assure_lease(fs, caller, to);
    if (!error && etag) {
        error = object_copy(fs, caller, from, to, size, etag, NULL, &new_etag);
        if (error == EINTR && is_new)
            late_undo(fs, to);
    }
    if (!error && etag)
        set_base(fs, inode, to, new_etag); /* before the old one goes: readers go on */
    if (!error) {
        remove = store_call_new(STORE_DELETE, from);
        error = run_call(fs, NULL, remove); /* past the point of turning back */
        if (error && !is_there(fs, from)) {
            log_warning("%s was renamed to %s; it may come back under the old name too: %s", from,
                        to, remove->error->message);
            error = 0;
        } else if (error && etag) {
            set_base(fs, inode, from, etag);
        }
    }
    if (error)
        inode_publish_end(fs, inode);
    return error;
}

struct copying {
    struct fs *fs;
    const char *from, *to;
    GPtrArray *keys;   /* all below FROM */
    GHashTable *etags; /* new key -> new ETag */
};

static int list_keys(struct copying *c, struct fs_caller *caller)
{
    g_autofree char *token = NULL;
    int error;

    do {
        g_autoptr(StoreCall) list = store_call_new(STORE_LIST, c->from);

        list->token = g_steal_pointer(&token);
        error = run_call(c->fs, caller, list);
        for (guint i = 0; !error && i < list->objects->len; i++)
            g_ptr_array_add(c->keys,
                            g_strdup(((struct store_object *)list->objects->pdata[i])->key));
        token = error ? NULL : g_strdup(list->next_token);
    } while (!error && token);
    return error;
}

/* One copy under way. */
struct copy {
    struct store_call *call;
    struct waiter *waiter;
};

static int wait_copy(struct copying *c, struct fs_caller *caller, GQueue *sending)
{
    g_autofree struct copy *copy = g_queue_pop_head(sending);
    struct store_call *call = copy->call;
    int error = finish_call(c->fs, caller, call, copy->waiter);

    if (error == EFBIG) { /* larger than one copy request takes */
        g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, call->source_key);
        char *etag = NULL;

        error = run_call(c->fs, caller, head);
        if (!error)
            error = object_copy(c->fs, caller, call->source_key, call->key, head->object.size_bytes,
                                head->object.etag, head->object.metadata, &etag);
        if (!error)
            g_hash_table_replace(c->etags, g_strdup(call->key), etag);
    } else if (error && error != EINTR) {
        complain(c->fs, call->source_key, "copy %s to %s: %s", call->source_key, call->key,
                 call->error->message);
    } else if (!error) {
        g_hash_table_replace(c->etags, g_strdup(call->key), g_strdup(call->object.etag));
    }
    if (error && !late_undo(c->fs, call->key)) /* it may have been carried out */
        g_hash_table_replace(c->etags, g_strdup(call->key), NULL);
    store_call_unref(call);
    return error;
}

static int copy_keys(struct copying *c, struct fs_caller *caller)
{
    GQueue sending = G_QUEUE_INIT;
    int error = 0, first = 0;

    for (guint i = 0; i < c->keys->len && !first; i++) {
        const char *key = c->keys->pdata[i];
        g_autofree char *to = g_strconcat(c->to, key + strlen(c->from), NULL);
        struct copy *copy = g_new0(struct copy, 1);

        copy->call = store_call_new(STORE_COPY, to);
        copy->call->source_key = g_strdup(key);
        copy->waiter = start_call(c->fs, copy->call);
        g_queue_push_tail(&sending, copy);
        if (g_queue_get_length(&sending) >= COPIES)
            first = wait_copy(c, caller, &sending);
        if (!first && is_interrupted(caller))
            first = EINTR;
    }
    while (!g_queue_is_empty(&sending)) {
        error = wait_copy(c, caller, &sending);
        first = first ? first : error;
    }
    return first;
}

static int delete_keys(struct copying *c)
{
    unsigned batch = MAX(store_caps(c->fs->store)->max_delete_keys, 1);
    int error = 0;

    for (guint i = 0; i < c->keys->len && !error; i += batch) {
        g_autoptr(StoreCall) call = store_call_new(STORE_DELETE_MANY, "");

        for (guint j = i; j < MIN(i + batch, c->keys->len); j++)
            g_ptr_array_add(call->keys, g_strdup(c->keys->pdata[j]));
        error = run_call(c->fs, NULL, call);
    }
    return error;
}

/* What was copied before a copy failed. */
static void undo_copies(struct copying *c)
{
    GHashTableIter iter;
    gpointer key;

    g_ptr_array_set_size(c->keys, 0);
    g_hash_table_iter_init(&iter, c->etags);
    while (g_hash_table_iter_next(&iter, &key, NULL))
        g_ptr_array_add(c->keys, g_strdup(key));
    if (delete_keys(c))
        log_warning("copies of %s stay below %s", c->from, c->to);
}

int prefix_copy(struct fs *fs, struct fs_caller *caller, const char *from, const char *to,
                GPtrArray *keys, GHashTable *etags)
{
    struct copying c = {fs, from, to, keys, etags};
    int error = late_wait(fs, caller, to);

    if (!error)
        error = list_keys(&c, caller);

    if (!error)
        error = copy_keys(&c, caller);
    if (error)
        undo_copies(&c);
    return error;
}

void prefix_delete(struct fs *fs, GPtrArray *keys)
{
    struct copying c = {.fs = fs, .keys = keys};

    if (keys->len && delete_keys(&c))
        log_warning("%s and others were renamed; some stay there under the old name too",
                    (const char *)keys->pdata[0]);
}

/* The dirty files below DIR, pinned. */
static GPtrArray *find_dirty_below(struct fs *fs, const struct inode *dir)
{
    GPtrArray *below = g_ptr_array_new();

    pthread_mutex_lock(&fs->lock);
    pthread_mutex_lock(&fs->dirty_lock);
    for (GList *link = fs->dirty.head; link; link = link->next) {
        struct inode *inode = link->data, *up = inode->parent;

        while (up && up != dir)
            up = up->parent;
        if (up) {
            inode->pins++;
            g_ptr_array_add(below, inode);
        }
    }
    pthread_mutex_unlock(&fs->dirty_lock);
    pthread_mutex_unlock(&fs->lock);
    return below;
}

static void release_below(struct fs *fs, GPtrArray *held)
{
    for (guint i = 0; i < held->len; i++) {
        inode_publish_end(fs, held->pdata[i]);
        inode_unpin(fs, held->pdata[i]);
    }
    g_ptr_array_unref(held);
}

/* Saves what is dirty below DIR, so that only objects are left to move, and keeps the turns of
 * these files, so that no upload to an old key begins. With the gate closed. */
static int hold_below(struct fs *fs, struct fs_caller *caller, struct inode *dir, GPtrArray **held)
{
    g_autoptr(GPtrArray) dirty = find_dirty_below(fs, dir);
    int error = 0;

    *held = g_ptr_array_new();
    for (guint i = 0; i < dirty->len; i++) {
        if (!error)
            error = inode_publish_hold(fs, caller, dirty->pdata[i], false);
        if (error)
            inode_unpin(fs, dirty->pdata[i]);
        else
            g_ptr_array_add(*held, dirty->pdata[i]);
    }
    if (error)
        release_below(fs, *held);
    return error;
}

/* The known files below DIR now are the objects under their new keys. fs->lock held. */
static void rebase(struct fs *fs, struct inode *dir, GHashTable *etags)
{
    GHashTableIter iter;
    gpointer value;

    names_rebase(fs, dir, etags);
    questions_void(dir);
    g_hash_table_iter_init(&iter, dir->children);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct inode *inode = value;
        g_autofree char *key = NULL;
        const char *etag;

        if (is_directory(inode)) {
            rebase(fs, inode, etags);
            continue;
        }
        key = inode_key_locked(inode);
        etag = g_hash_table_lookup(etags, key);
        pthread_mutex_lock(&inode->lock);
        if (etag && inode->etag) {
            streams_drop(inode);
            g_free(inode->etag);
            inode->etag = g_strdup(etag);
            g_free(inode->base_key);
            inode->base_key = g_steal_pointer(&key);
            inode->version++;
            journal_image(fs, inode);
            inode_note_change(fs, inode);
        }
        pthread_mutex_unlock(&inode->lock);
    }
}

/* Copies first, then the tree changes, so that readers go on, and the old keys go last: whatever
 * interrupts it, doing it again ends it. */
static int move_directory(struct fs *fs, struct fs_caller *caller, struct inode *dir,
                          struct inode *target, struct inode *new_parent, const char *new_name,
                          const char *to)
{
    g_autoptr(GHashTable) etags = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *from = inode_key(fs, dir);
    int error = prefix_copy(fs, caller, from, to, keys, etags);

    if (error)
        return error;
    if (target) {
        forget_name(fs, target);
        index_forget_of(fs, target, to);
    }
    change_place(fs, dir, new_parent, new_name);
    pthread_mutex_lock(&fs->lock);
    rebase(fs, dir, etags);
    pthread_mutex_unlock(&fs->lock);
    prefix_delete(fs, keys);
    index_forget(fs, from, true);
    return 0;
}

/* With the gate closed. Written down before, and crossed out after, for who finds it unfinished. */
static int rename_closed(struct fs *fs, struct fs_caller *caller, struct inode *dir,
                         struct inode *target, struct inode *new_parent, const char *new_name)
{
    g_autofree char *from = inode_key(fs, dir), *bare = child_key(fs, new_parent, new_name);
    g_autofree char *to = g_strconcat(bare, "/", NULL);
    struct lease *lease = fs->options.lease;
    g_autoptr(GError) why = NULL;
    GPtrArray *held;
    int error;

    if (g_str_has_prefix(to, from))
        return EINVAL;
    error = hold_below(fs, caller, dir, &held);
    if (error)
        return error;
    if (lease && !lease_add_rename(lease, from, to, caller_is_over, caller, &why)) {
        error = error_errno(why);
        if (error != EINTR)
            log_error("rename %s to %s: %s", from, to, why->message);
    } else {
        error = move_directory(fs, caller, dir, target, new_parent, new_name, to);
        if (lease)
            lease_remove_rename(lease, from);
    }
    release_below(fs, held);
    return error;
}

static int rename_directory(struct fs *fs, struct fs_caller *caller, struct inode *dir,
                            struct inode *target, struct inode *new_parent, const char *new_name)
{
    int error = gate_close(fs, caller);

    if (error)
        return error;
    error = rename_closed(fs, caller, dir, target, new_parent, new_name);
    gate_open(fs);
    return error;
}

/* What stands in the way at the target, if anything. */
static int check_target(struct fs *fs, struct fs_caller *caller, struct inode *source,
                        struct inode *target, unsigned flags)
{
    if (flags & RENAME_NOREPLACE)
        return EEXIST;
    if (is_directory(target) && !is_directory(source))
        return EISDIR;
    if (!is_directory(target) && is_directory(source))
        return ENOTDIR;
    return is_directory(target) ? directory_is_empty(fs, caller, target) : 0;
}

/* A rename that failed may have made the name, or left it: the directory is listed again. */
static void unlearn(struct fs *fs, struct inode *dir)
{
    pthread_mutex_lock(&fs->lock);
    names_forget(fs, dir);
    pthread_mutex_unlock(&fs->lock);
}

static int move_in_gate(struct fs *fs, struct fs_caller *caller, struct inode *source,
                        struct inode *target, struct inode *new_parent, const char *new_name)
{
    g_autofree char *to = child_key(fs, new_parent, new_name);
    int error = target ? hide_open_file(fs, caller, target) : 0;

    if (error)
        return error;
    error = rename_file(fs, caller, source, to, !target);
    if (!error) {
        if (target)
            forget_name(fs, target);
        change_place(fs, source, new_parent, new_name);
        inode_publish_end(fs, source);
    } else {
        unlearn(fs, new_parent);
        if (target)
            unhide_open_file(fs, target);
    }
    if (target)
        inode_publish_end(fs, target);
    return error;
}

static int move_file(struct fs *fs, struct fs_caller *caller, struct inode *source,
                     struct inode *target, struct inode *new_parent, const char *new_name)
{
    int error = gate_enter(fs, caller);

    if (error)
        return error;
    error = move_in_gate(fs, caller, source, target, new_parent, new_name);
    gate_leave(fs);
    return error;
}

int fs_rename(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name,
              uint64_t new_parent_ino, const char *new_name, unsigned flags)
{
    struct inode *source, *target = NULL, *new_parent = NULL;
    int error;

    if ((error = fs_may_change(fs)))
        return error;
    if (flags & ~RENAME_NOREPLACE)
        return EINVAL;
    if (name_is_hidden(fs, new_parent_ino, new_name))
        return EPERM;
    error = find_child(fs, caller, parent, name, &source);
    if (error)
        return error;
    error = find_child(fs, caller, new_parent_ino, new_name, &target);
    if (error)
        target = NULL;
    if (!error && source != target)
        error = check_target(fs, caller, source, target, flags);
    else if (error == ENOENT)
        error = 0;
    if (!error && source != target) {
        new_parent = inode_get(fs, new_parent_ino);
        error = new_parent ? name_check(fs, new_parent, new_name, is_directory(source)) : ENOENT;
        if (!error)
            error = publish_earlier_failures(fs, caller, source);
    }
    if (new_parent && !error) {
        if (is_directory(source)) {
            error = rename_directory(fs, caller, source, target, new_parent, new_name);
        } else {
            error = move_file(fs, caller, source, target, new_parent, new_name);
        }
    }
    if (new_parent)
        inode_unpin(fs, new_parent);
    if (target)
        inode_unpin(fs, target);
    inode_unpin(fs, source);
    return error;
}
