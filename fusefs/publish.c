/* Publishing: making a file's present content the object that everybody sees, whole.
 *
 *   clean --write--> dirty --publish--> publishing --ok--> clean (or dirty: written to meanwhile)
 *                                                  --failed--> dirty, tried again
 *
 * One publish of an inode at a time. It works on a frozen copy of the layout, so the program goes
 * on writing. Publisher threads do it on a timer for files that grow slowly, and for what failed.
 */
#include "fusefs/fs_internal.h"

#include <signal.h>
#include <string.h>

#define TICK_MS      100
#define RETRY_MS     3000
#define SLOW_WINDOWS 10 /* intervals of slow writing after which a file is a log, not a bulk */
#define IDLE_MS      30000

bool inode_is_dirty(const struct inode *inode)
{
    return inode->data_dirty || inode->attrs_dirty;
}

struct publish {
    struct fs *fs;
    struct fs_caller *caller;
    struct inode *inode;
    char *key, *hidden, *etag;
    struct layout snapshot;
    GHashTable *metadata;
    bool data, rewritten, again;
    uint64_t size;
};

/* A whole object in one PUT; what is in the base object alone is fetched first. */
static int put_whole(struct publish *p)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_PUT, p->key);
    g_autoptr(GPtrArray) padding = g_ptr_array_new_with_free_func((GDestroyNotify)buffer_unref);
    g_autoptr(GArray) iov = g_array_new(FALSE, FALSE, sizeof(struct iovec));
    int error = 0;

    for (unsigned i = 0; i < layout_count(&p->snapshot); i++) {
        const struct extent *extent = layout_at(&p->snapshot, i);

        for (uint64_t at = extent->start; at < extent->end;) {
            uint64_t size = MIN(BUFFER_MAX, extent->end - at);
            struct buffer *buffer = NULL;
            struct iovec piece = {.iov_len = size};

            if (extent->buffer) {
                piece.iov_base =
                    extent->buffer->data + extent->buffer_offset + (at - extent->start);
            } else {
                while (!buffer) {
                    buffer = buffer_wait_new(p->fs->budget, size, BUDGET_WANTED, TICK_MS);
                    if (!buffer && is_interrupted(p->caller))
                        return EINTR;
                }
                g_ptr_array_add(padding, buffer);
                piece.iov_base = buffer->data;
                if (!extent->in_object)
                    memset(buffer->data, 0, size);
                else
                    error = base_fetch(p->fs, p->caller, p->inode->base_key, p->inode->etag, at,
                                       buffer->data, size);
            }
            if (error)
                return error;
            g_array_append_val(iov, piece);
            at += size;
        }
    }
    store_call_set_iov(call, (struct iovec *)(void *)iov->data, iov->len);
    call->metadata = metadata_copy(p->metadata);
    error = run_call(p->fs, p->caller, call);
    if (error && !p->inode->complained) {
        log_error("save %s: %s; it is kept and tried again", p->key, call->error->message);
        p->inode->complained = true;
    }
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

static int save(struct publish *p)
{
    struct inode *inode = p->inode;
    bool discard;

    if (is_directory(inode)) {
        g_autoptr(StoreCall) call = store_call_put(p->key, NULL, 0);

        call->metadata = metadata_copy(p->metadata);
        return run_call(p->fs, p->caller, call);
    }
    if (!p->data && inode->etag)
        return object_copy(p->fs, p->caller, p->key, p->key, p->size, inode->etag, p->metadata,
                           &p->etag);
    pthread_mutex_lock(&inode->lock);
    discard = inode->upload && !inode->upload->beginning &&
              (strcmp(inode->upload->key, p->key) != 0 || inode->upload->end > p->size);
    if (discard)
        upload_discard(p->fs, inode);
    pthread_mutex_unlock(&inode->lock);
    if (fits_one_put(p))
        return put_whole(p);
    return upload_finish(p->fs, p->caller, inode, &p->snapshot, p->key, &p->etag);
}

/* inode->lock held: takes the copy that will be published. */
static void begin_publish(struct publish *p)
{
    struct inode *inode = p->inode;

    inode->publishing = true;
    p->data = inode->data_dirty;
    p->rewritten = inode->rewritten;
    p->size = inode->size;
    p->hidden = g_strdup(inode->hidden_key);
    p->metadata = inode_metadata(inode);
    layout_copy(&inode->layout, 0, UINT64_MAX, &p->snapshot);
    layout_freeze(&p->snapshot);
    inode->data_dirty = inode->attrs_dirty = inode->rewritten = false;
}

static void end_publish(struct publish *p, int error, int64_t took_ms)
{
    struct inode *inode = p->inode;
    unsigned interval = p->fs->options.sync_interval_ms;

    if (error) {
        inode->data_dirty = inode->data_dirty || p->data;
        inode->attrs_dirty = true;
        inode->rewritten = inode->rewritten || p->rewritten;
        inode->next_publish_ms = now_ms() + RETRY_MS;
    } else {
        if (!is_directory(inode) && (p->data || p->etag)) {
            bool keep = p->size < store_caps(p->fs->store)->min_part_bytes && inode->writers;

            if (p->data) {
                layout_mark_saved(&inode->layout, &p->snapshot, keep);
                inode->base_size = p->size;
            }
            streams_drop(inode);
            g_free(inode->etag);
            inode->etag = g_strdup(p->etag);
            g_free(inode->base_key);
            inode->base_key = g_strdup(p->key);
        }
        /* The upload carries the attributes of when it began: one more copy puts them right. */
        p->again = inode->attrs_explicit;
        inode->attrs_dirty = inode->attrs_dirty || inode->attrs_explicit;
        inode->attrs_explicit = false;
        inode->complained = inode->failed_close = false;
        inode->checked_ms = now_ms();
        inode->dirty_ms = inode_is_dirty(inode) ? now_ms() : 0;
        inode->next_publish_ms = now_ms() + MAX((int64_t)interval * 4 / 5, 3 * took_ms);
        inode->slow_windows = 0;
    }
    inode->publishing = false;
    pthread_cond_broadcast(&inode->changed);
}

static void publish_clear(struct publish *p)
{
    layout_thaw(&p->snapshot);
    layout_clear(&p->snapshot);
    g_hash_table_unref(p->metadata);
    g_free(p->key);
    g_free(p->hidden);
    g_free(p->etag);
}

void leave_dirty_list(struct fs *fs, struct inode *inode)
{
    bool was_listed;

    pthread_mutex_lock(&inode->lock);
    pthread_mutex_lock(&fs->dirty_lock);
    was_listed =
        inode->dirty_link && ((inode->vanished && !inode->handles) || !inode_is_dirty(inode));
    if (was_listed) {
        g_queue_delete_link(&fs->dirty, inode->dirty_link);
        inode->dirty_link = NULL;
        pthread_cond_broadcast(&fs->dirty_changed);
    }
    pthread_mutex_unlock(&fs->dirty_lock);
    pthread_mutex_unlock(&inode->lock);
}

int inode_publish(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    struct publish p = {.fs = fs, .caller = caller, .inode = inode};
    int64_t began;
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    while (inode->publishing && !error) {
        wait_changed(inode, TICK_MS);
        error = is_interrupted(caller) ? EINTR : 0;
    }
    if (error || !inode_is_dirty(inode) || (inode->vanished && !inode->hidden_key)) {
        pthread_mutex_unlock(&inode->lock);
        if (!error)
            leave_dirty_list(fs, inode);
        return error;
    }
    begin_publish(&p);
    pthread_mutex_unlock(&inode->lock);

    gate_enter(fs);
    began = now_ms();
    p.key = p.hidden ? g_strdup(p.hidden) : inode_key(fs, inode);
    error = save(&p);
    gate_leave(fs);

    pthread_mutex_lock(&inode->lock);
    end_publish(&p, error, now_ms() - began);
    pthread_mutex_unlock(&inode->lock);
    publish_clear(&p);
    leave_dirty_list(fs, inode);
    if (!error && p.again)
        return inode_publish(fs, caller, inode);
    if (!error)
        upload_pump(fs, inode, false);
    return error;
}

/* A pinned inode of the dirty list for which WANTED says yes, the first one; NULL: none. */
typedef bool wanted_inode(struct fs *fs, struct inode *inode, void *user);

static GPtrArray *pin_dirty(struct fs *fs)
{
    GPtrArray *all = g_ptr_array_new();

    pthread_mutex_lock(&fs->lock);
    pthread_mutex_lock(&fs->dirty_lock);
    for (GList *link = fs->dirty.head; link; link = link->next) {
        ((struct inode *)link->data)->pins++;
        g_ptr_array_add(all, link->data);
    }
    pthread_mutex_unlock(&fs->dirty_lock);
    pthread_mutex_unlock(&fs->lock);
    return all;
}

static struct inode *find_dirty(struct fs *fs, wanted_inode *wanted, void *user)
{
    g_autoptr(GPtrArray) all = pin_dirty(fs);
    struct inode *found = NULL;

    for (guint i = 0; i < all->len; i++) {
        struct inode *inode = all->pdata[i];
        bool yes = false;

        if (!found) {
            pthread_mutex_lock(&inode->lock);
            yes = !inode->publishing && wanted(fs, inode, user);
            pthread_mutex_unlock(&inode->lock);
        }
        if (yes)
            found = inode;
        else
            inode_unpin(fs, inode);
    }
    return found;
}

static bool failed_before(struct fs *fs, struct inode *inode, void *user)
{
    return inode->failed_close && inode_is_dirty(inode) && !inode->vanished && inode != user;
}

int publish_earlier_failures(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    struct inode *earlier;
    int error = 0;

    while (!error && (earlier = find_dirty(fs, failed_before, inode))) {
        error = inode_publish(fs, caller, earlier);
        inode_unpin(fs, earlier);
    }
    return error;
}

/* Counts the intervals in which a file was written to slowly. inode->lock held. */
static void roll_window(struct fs *fs, struct inode *inode, int64_t now)
{
    if (now - inode->window_ms < fs->options.sync_interval_ms)
        return;
    if (inode->window_bytes >= fs->part_bytes)
        inode->slow_windows = 0;
    else if (inode->window_bytes)
        inode->slow_windows++;
    inode->window_bytes = 0;
    inode->window_ms = now;
}

/* Whether the timer publishes INODE now: what nobody will close, and what grows slowly. */
static bool is_due(struct fs *fs, struct inode *inode, void *user)
{
    int64_t now = now_ms();
    bool slow;

    roll_window(fs, inode, now);
    if (!inode_is_dirty(inode) || inode->vanished || now < inode->next_publish_ms)
        return false;
    if (inode->failed_close || inode->writers == 0 || atomic_load(&fs->draining))
        return true;
    if (now - inode->dirty_ms < fs->options.sync_interval_ms * 4 / 5)
        return false;
    if (inode->rewritten)
        return false; /* replaced as a whole, at close or fsync */
    slow = inode->slow_windows >= SLOW_WINDOWS || now - inode->dirty_ms > IDLE_MS;
    return inode->upload ? slow : inode->data_dirty;
}

/* Memory is short, nothing moves: the file with the most dirty bytes is published as it stands. */
static struct inode *find_victim(struct fs *fs)
{
    g_autoptr(GPtrArray) all = pin_dirty(fs);
    struct inode *victim = NULL;
    uint64_t most = 0;

    for (guint i = 0; i < all->len; i++) {
        struct inode *inode = all->pdata[i];
        uint64_t bytes;

        pthread_mutex_lock(&inode->lock);
        bytes = inode->publishing || (inode->upload && inode->upload->sending)
                    ? 0
                    : layout_dirty_bytes(&inode->layout);
        pthread_mutex_unlock(&inode->lock);
        if (bytes > most) {
            if (victim)
                inode_unpin(fs, victim);
            victim = inode;
            most = bytes;
        } else {
            inode_unpin(fs, inode);
        }
    }
    return victim;
}

static bool is_stopping(struct fs *fs)
{
    bool stopping;

    pthread_mutex_lock(&fs->dirty_lock);
    stopping = fs->stopping;
    pthread_mutex_unlock(&fs->dirty_lock);
    return stopping;
}

static void *publisher_main(void *user)
{
    struct fs *fs = user;
    unsigned tight = 0;

    while (!is_stopping(fs)) {
        struct inode *inode = find_dirty(fs, is_due, NULL);

        tight = budget_is_tight(fs->budget) ? tight + 1 : 0;
        if (!inode && tight > 5) {
            inode = find_victim(fs);
            tight = 0;
        }
        if (!inode) {
            struct timespec tick = {0, TICK_MS * 1000000l};

            nanosleep(&tick, NULL);
            continue;
        }
        inode_publish(fs, NULL, inode);
        inode_unpin(fs, inode);
    }
    return NULL;
}

void publishers_start(struct fs *fs)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; i < G_N_ELEMENTS(fs->publishers); i++)
        if (pthread_create(&fs->publishers[i], NULL, publisher_main, fs) != 0)
            g_error("cannot start a thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void publishers_stop(struct fs *fs)
{
    pthread_mutex_lock(&fs->dirty_lock);
    fs->stopping = true;
    pthread_cond_broadcast(&fs->dirty_changed);
    pthread_mutex_unlock(&fs->dirty_lock);
    for (unsigned i = 0; i < G_N_ELEMENTS(fs->publishers); i++)
        pthread_join(fs->publishers[i], NULL);
}
