/* Publishing: making a file's present content the object that everybody sees, whole.
 *
 *   clean --write--> dirty --publish--> publishing --ok--> clean (or dirty: written to meanwhile)
 *                                                  --failed--> dirty, tried again
 *
 * One publish of an inode at a time. It works on a frozen copy of the layout, so the program goes
 * on writing. Publisher threads do it on a timer for files that grow slowly, and for what failed.
 */
#include "fusefs/publish.h"

#include <errno.h>
#include <string.h>

#define TICK_MS  100
#define RETRY_MS 3000

bool inode_is_dirty(const struct inode *inode)
{
    return inode->data_dirty || inode->attrs_dirty;
}

/* inode->lock held: takes the copy that will be published. */
static void begin_publish(struct publish *p)
{
    struct inode *inode = p->inode;

    inode->publishing = true;
    inode->version++;
    if (inode->rewritten) /* should it land and nobody know, its lineage tells that it was ours */
        journal_image(p->fs, inode);
    p->data = inode->data_dirty;
    p->rewritten = inode->rewritten;
    p->attrs_explicit = inode->attrs_explicit;
    p->size = inode->size;
    p->metadata = inode_metadata(inode);
    p->lineage = g_strdup(inode->lineage);
    p->leftovers = g_ptr_array_new_with_free_func(g_free);
    layout_copy(&inode->layout, 0, UINT64_MAX, &p->snapshot);
    layout_freeze(&p->snapshot);
    inode->data_dirty = inode->attrs_dirty = inode->rewritten = inode->attrs_explicit = false;
}

void publish_take_over(struct publish *p)
{
    struct inode *inode = p->inode;
    bool keep = p->size < store_caps(p->fs->store)->min_part_bytes && inode->writers;

    if (p->data) {
        layout_mark_saved(&inode->layout, &p->snapshot, keep);
        inode->base_size = p->size;
    }
    if (key_is_staged(inode->base_key) && strcmp(inode->base_key, p->to) != 0 &&
        !g_ptr_array_find_with_equal_func(p->leftovers, inode->base_key, g_str_equal, NULL))
        g_ptr_array_add(p->leftovers, g_strdup(inode->base_key));
    streams_drop(inode);
    g_free(inode->etag);
    inode->etag = g_strdup(p->etag);
    g_free(inode->base_key);
    inode->base_key = g_strdup(p->to);
    g_free(inode->base_lineage);
    inode->base_lineage = g_strcmp0(p->lineage, inode->lineage) != 0 ? g_strdup(p->lineage) : NULL;
}

/* What was to be published still is: dirty as before. inode->lock held. */
static void stay_dirty(struct publish *p)
{
    struct inode *inode = p->inode;

    if (atomic_load(&inode->replaced) && !p->data)
        return;
    inode->data_dirty = inode->data_dirty || p->data;
    inode->attrs_dirty = true;
    inode->rewritten = inode->rewritten || p->rewritten;
    inode->attrs_explicit = inode->attrs_explicit || p->attrs_explicit;
}

/* The store will say the same again, whenever it is asked. */
static bool is_refusal(int error)
{
    return error == EINVAL || error == ENAMETOOLONG || error == EILSEQ || error == EFBIG ||
           error == ESTALE;
}

/* Whether INODE still is what was published, or that and more behind it. */
static bool only_grew(const struct inode *inode, uint64_t published_bytes)
{
    for (unsigned i = 0; i < layout_count(&inode->layout); i++) {
        const struct extent *extent = layout_at(&inode->layout, i);

        if (extent->start >= published_bytes)
            break;
        if (!extent->in_object)
            return false;
    }
    return inode->size >= published_bytes;
}

void publish_compare(struct publish *p)
{
    if (p->data && !only_grew(p->inode, p->size))
        inode_rewritten(p->inode); /* while it was published; whoever wrote could not know */
}

void publish_remove_leftovers(struct publish *p)
{
    for (guint i = 0; i < p->leftovers->len; i++)
        staged_remove(p->fs, p->leftovers->pdata[i]);
}

/* inode->lock held. */
static void end_publish(struct publish *p, int error, int64_t took_ms)
{
    struct inode *inode = p->inode;
    int64_t interval_ms = p->fs->options.sync_interval_ms;

    inode->version++;
    if (p->etag && !is_directory(inode))
        publish_take_over(p);
    if (error || p->goal == GOAL_STAGED)
        stay_dirty(p);
    if (error)
        upload_compare(inode, &p->snapshot);
    inode->refused = is_refusal(error) || (error && inode->upload && inode->upload->is_lost);
    if (error) {
        inode->next_publish_ms = now_ms() + RETRY_MS;
        return;
    }
    complain_no_more(p->fs, p->key);
    if (p->goal == GOAL_STAGED)
        return;
    publish_compare(p);
    /* A line that just missed a publish waits for it, the pause and its own: 2.5 times as long. */
    inode->next_publish_ms = now_ms() + MAX(interval_ms * 4 / 5, took_ms / 2);
    inode->attrs_dirty = inode->attrs_dirty || p->again;
    inode->failed_close = 0;
    inode->checked_ms = now_ms();
    inode_note_change(p->fs, inode);
    inode->dirty_ms = inode_is_dirty(inode) ? now_ms() : 0;
    inode->slow_windows = 0;
}

void publish_clear(struct publish *p)
{
    if (p->snapshot.extents) {
        layout_thaw(&p->snapshot);
        layout_clear(&p->snapshot);
    }
    g_clear_pointer(&p->metadata, g_hash_table_unref);
    g_free(p->lineage);
    g_free(p->key);
    g_free(p->to);
    g_free(p->etag);
    g_clear_pointer(&p->leftovers, g_ptr_array_unref);
}

void leave_dirty_list(struct fs *fs, struct inode *inode)
{
    bool was_listed;

    pthread_mutex_lock(&inode->lock);
    pthread_mutex_lock(&fs->dirty_lock);
    /* While it is published it only looks clean: if that fails, it is not. */
    was_listed = inode->dirty_link && !inode->publishing &&
                 ((inode->vanished && !inode->handles) || !inode_is_dirty(inode));
    if (was_listed) {
        g_queue_delete_link(&fs->dirty, inode->dirty_link);
        inode->dirty_link = NULL;
        pthread_cond_broadcast(&fs->dirty_changed);
    }
    pthread_mutex_unlock(&fs->dirty_lock);
    pthread_mutex_unlock(&inode->lock);
}

void inode_publish_end(struct fs *fs, struct inode *inode)
{
    g_autofree char *staged = NULL;

    pthread_mutex_lock(&inode->lock);
    inode->publishing = false;
    inode->version++;
    if (journal_tells_of(inode) && !inode_is_dirty(inode))
        journal_clean(fs, inode); /* told anew of, where its turn was held for a new name */
    if (inode->vanished)
        reopens_tell(fs->reopens, inode->ino);
    staged = inode_end_vanished(fs, inode);
    pthread_cond_broadcast(&inode->changed);
    pthread_mutex_unlock(&inode->lock);
    if (staged)
        staged_remove(fs, staged);
    leave_dirty_list(fs, inode);
}

/* Another client replaced or removed the file whose attributes were to be changed: they are of no
 * use any more. */
static void give_up_attributes(struct publish *p, bool is_there)
{
    atomic_store(&p->inode->replaced, true);
    if (is_there)
        forget_version(p->fs, p->inode);
    else
        forget_name(p->fs, p->inode);
}

/* Finds out what an earlier publish has made. inode->lock held; dropped inside. */
static int settle_doubt(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    struct publish p = {.fs = fs, .caller = caller, .inode = inode, .key = inode->doubt->key};
    int error;

    inode->publishing = true;
    inode->version++;
    pthread_mutex_unlock(&inode->lock);
    error = fs_assure_lease(fs, caller, p.key);
    if (!error)
        error = doubt_settle(fs, caller, inode);
    pthread_mutex_lock(&inode->lock);
    if (error) {
        inode->refused = is_refusal(error);
        inode->next_publish_ms = now_ms() + RETRY_MS;
    }
    pthread_mutex_unlock(&inode->lock);
    inode_publish_end(fs, inode);
    pthread_mutex_lock(&inode->lock);
    return error;
}

/* Waits until nobody else publishes INODE, and nothing is in doubt. inode->lock held. */
static int wait_turn(struct fs *fs, struct fs_caller *caller, struct inode *inode, enum goal goal)
{
    int error = 0;

    while (!error && (inode->publishing || doubt_is_open(inode, goal))) {
        if (!inode->publishing) {
            error = settle_doubt(fs, caller, inode);
            continue;
        }
        wait_changed(inode, TICK_MS);
        error = is_interrupted(caller) ? EINTR : 0;
    }
    return error;
}

/* One publish, from a turn that the caller has: inode->publishing is set, inode->lock is held when
 * it is called, and not when it returns. */
static int publish_once(struct publish *p)
{
    struct inode *inode = p->inode;
    struct fs *fs = p->fs;
    int64_t began;
    int error;

    begin_publish(p);
    pthread_mutex_unlock(&inode->lock);

    began = now_ms();
    p->key = inode_key(fs, inode);
    error = fs_assure_lease(fs, p->caller, p->key);
    if (!error)
        error = is_directory(inode) ? save_directory(p) : save_file(p);
    if ((error == ESTALE || error == ENOENT) && !p->data && !is_directory(inode) &&
        !fs_has_lost_lease(fs))
        give_up_attributes(p, error == ESTALE);

    pthread_mutex_lock(&inode->lock);
    end_publish(p, error, now_ms() - began);
    /* Before the snapshot gives up memory that the journal tells of. */
    journal_published(fs, inode, !error && p->goal == GOAL_VISIBLE);
    if (error && !p->etag && p->to && (p->in_doubt || (inode->upload && inode->upload->in_doubt)))
        doubt_keep(p);
    else if (p->etag)
        g_clear_pointer(&inode->doubt, doubt_free);
    pthread_mutex_unlock(&inode->lock);
    if (p->leftovers)
        publish_remove_leftovers(p);
    publish_clear(p);
    return error;
}

/* Whether there is something to do for GOAL. inode->lock held. */
static bool has_work(const struct inode *inode, enum goal goal)
{
    if (goal == GOAL_STAGED)
        return !is_directory(inode) && inode->data_dirty;
    return inode_is_dirty(inode) && !inode->vanished;
}

/* Inside the gate: no directory above INODE is renamed meanwhile. */
static int publish_in_gate(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                           enum goal goal)
{
    int error;

    do {
        struct publish p = {.fs = fs, .caller = caller, .inode = inode, .goal = goal};

        pthread_mutex_lock(&inode->lock);
        error = wait_turn(fs, caller, inode, goal);
        if (error || !has_work(inode, goal)) {
            pthread_mutex_unlock(&inode->lock);
            if (!error)
                leave_dirty_list(fs, inode);
            return error;
        }
        error = publish_once(&p);
        inode_publish_end(fs, inode);
        if (!p.again)
            break;
    } while (!error);
    return error;
}

static int publish_to(struct fs *fs, struct fs_caller *caller, struct inode *inode, enum goal goal)
{
    int error = gate_enter(fs, caller);

    if (error)
        return error;
    error = publish_in_gate(fs, caller, inode, goal);
    gate_leave(fs);
    if (!error)
        upload_pump(fs, inode, false);
    return error;
}

int inode_publish(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    return publish_to(fs, caller, inode, GOAL_VISIBLE);
}

/* Whether bytes of INODE can be read only when its own object is committed. inode->lock held. */
static bool must_show(const struct inode *inode)
{
    return inode->upload && !inode->upload->staged && !inode->vanished &&
           layout_only_in_part(&inode->layout, 0, inode->size);
}

int inode_settle(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    bool show;

    pthread_mutex_lock(&inode->lock);
    show = must_show(inode);
    pthread_mutex_unlock(&inode->lock);
    return publish_to(fs, caller, inode, show ? GOAL_VISIBLE : GOAL_STAGED);
}

/* The turn to publish a file that may be removed: what is in doubt is nobody's business when none
 * has it open. inode->lock held. */
static int wait_last_turn(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    int error = wait_turn(fs, caller, inode, GOAL_STAGED);

    if (!error || error == EINTR || fs_has_lost_lease(fs))
        return error;
    while (inode->publishing) {
        wait_changed(inode, TICK_MS);
        if (is_interrupted(caller))
            return EINTR;
    }
    return inode->handles ? error : 0;
}

int inode_publish_hold(struct fs *fs, struct fs_caller *caller, struct inode *inode, bool settle)
{
    int error;

    pthread_mutex_lock(&inode->lock);
    error = settle ? wait_last_turn(fs, caller, inode) : wait_turn(fs, caller, inode, GOAL_VISIBLE);
    if (error) { /* the turn may be another one's */
        pthread_mutex_unlock(&inode->lock);
        return error;
    }
    do {
        struct publish p = {.fs = fs, .caller = caller, .inode = inode};

        inode->publishing = true; /* from here on no upload begins */
        inode->version++;
        if (settle && !inode->handles)
            inode->vanished = true; /* nobody needs its bytes; who opens it from now on waits */
        if (settle ? inode->vanished || !must_show(inode) : !has_work(inode, GOAL_VISIBLE))
            break;
        error = publish_once(&p);
        pthread_mutex_lock(&inode->lock);
        if (!p.again)
            break;
    } while (!error);
    pthread_mutex_unlock(&inode->lock);
    if (error)
        inode_publish_end(fs, inode);
    return error;
}
