/* Publishing: making a file's present content the object that everybody sees, whole.
 *
 *   clean --write--> dirty --publish--> publishing --ok--> clean (or dirty: written to meanwhile)
 *                                                  --failed--> dirty, tried again
 *
 * One publish of an inode at a time. It works on a frozen copy of the layout, so the program goes
 * on writing. Publisher threads do it on a timer for files that grow slowly, and for what failed.
 */
#include "fusefs/fs_internal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define TICK_MS      100
#define RETRY_MS     3000
#define SLOW_WINDOWS 10 /* intervals of slow writing after which a file is a log, not a bulk */
#define IDLE_MS      30000
#define TIGHT_TICKS  3
#define GRACE_MS     1000

bool inode_is_dirty(const struct inode *inode)
{
    return inode->data_dirty || inode->attrs_dirty;
}

enum goal {
    GOAL_VISIBLE, /* the file's own object */
    GOAL_STAGED,  /* a staged object: readable here, out of everybody else's sight */
};

struct publish {
    struct fs *fs;
    struct fs_caller *caller;
    struct inode *inode;
    enum goal goal;
    char *key; /* the file's own */
    struct layout snapshot;
    GHashTable *metadata;
    char *lineage;
    bool data, rewritten, attrs_explicit;
    uint64_t size;
    /* what came of it */
    char *to, *etag;      /* where the snapshot is saved now; NULL: nowhere */
    GPtrArray *leftovers; /* char*, staged objects that are not needed any more */
    bool again;           /* the object carries older attributes */
};

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

/* Who lost its lease writes nothing any more. */
static int check_lease(struct publish *p)
{
    struct lease *lease = p->fs->options.lease;
    g_autoptr(GError) why = NULL;

    if (!lease || lease_assure(lease, &why))
        return 0;
    if (!p->inode->complained)
        log_error("save %s: %s", p->key, why->message);
    p->inode->complained = true;
    return error_is(why, ESTALE) ? ESTALE : EIO;
}

static int save_directory(struct publish *p)
{
    g_autoptr(StoreCall) call = store_call_put(p->key, NULL, 0);

    call->metadata = metadata_copy(p->metadata);
    return run_call(p->fs, p->caller, call);
}

static int save_attributes(struct publish *p)
{
    p->to = g_strdup(p->key);
    return object_copy(p->fs, p->caller, p->key, p->key, p->size, p->inode->etag, p->metadata,
                       &p->etag);
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
        log_error("%s: what was sent for %s cannot be read back", p->key, upload->key);
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

static int save_file(struct publish *p)
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

/* inode->lock held: takes the copy that will be published. */
static void begin_publish(struct publish *p)
{
    struct inode *inode = p->inode;

    inode->publishing = true;
    inode->version++;
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

/* The snapshot is the object P->to now. inode->lock held. */
static void take_over_object(struct publish *p)
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

/* inode->lock held. */
static void end_publish(struct publish *p, int error, int64_t took_ms)
{
    struct inode *inode = p->inode;
    int64_t interval_ms = p->fs->options.sync_interval_ms;

    inode->version++;
    if (p->etag && !is_directory(inode))
        take_over_object(p);
    if (error || p->goal == GOAL_STAGED)
        stay_dirty(p);
    if (error)
        upload_compare(inode, &p->snapshot);
    inode->refused = is_refusal(error);
    if (error) {
        inode->next_publish_ms = now_ms() + RETRY_MS;
        return;
    }
    inode->complained = false;
    if (p->goal == GOAL_STAGED)
        return;
    inode->next_publish_ms = now_ms() + MAX(interval_ms * 4 / 5, 3 * took_ms);
    inode->attrs_dirty = inode->attrs_dirty || p->again;
    inode->failed_close = 0;
    inode->checked_ms = now_ms();
    inode->dirty_ms = inode_is_dirty(inode) ? now_ms() : 0;
    inode->slow_windows = 0;
}

static void publish_clear(struct publish *p)
{
    layout_thaw(&p->snapshot);
    layout_clear(&p->snapshot);
    g_hash_table_unref(p->metadata);
    g_free(p->lineage);
    g_free(p->key);
    g_free(p->to);
    g_free(p->etag);
    g_ptr_array_unref(p->leftovers);
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

/* Waits until nobody else publishes INODE. inode->lock held. */
static int wait_turn(struct inode *inode, struct fs_caller *caller)
{
    int error = 0;

    while (inode->publishing && !error) {
        wait_changed(inode, TICK_MS);
        error = is_interrupted(caller) ? EINTR : 0;
    }
    return error;
}

void inode_publish_end(struct fs *fs, struct inode *inode)
{
    g_autofree char *staged = NULL;

    pthread_mutex_lock(&inode->lock);
    inode->publishing = false;
    inode->version++;
    staged = inode_end_vanished(fs, inode);
    pthread_cond_broadcast(&inode->changed);
    pthread_mutex_unlock(&inode->lock);
    if (staged)
        staged_remove(fs, staged);
    leave_dirty_list(fs, inode);
}

/* Another client replaced the file whose attributes were to be changed: they are of no use any
 * more. */
static void give_up_attributes(struct publish *p)
{
    atomic_store(&p->inode->replaced, true);
    forget_name(p->fs, p->inode);
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
    error = check_lease(p);
    if (!error)
        error = is_directory(inode) ? save_directory(p) : save_file(p);
    if ((error == ESTALE || error == ENOENT) && !p->data && !is_directory(inode) &&
        !fs_has_lost_lease(fs))
        give_up_attributes(p);

    pthread_mutex_lock(&inode->lock);
    end_publish(p, error, now_ms() - began);
    pthread_mutex_unlock(&inode->lock);
    for (guint i = 0; i < p->leftovers->len; i++)
        staged_remove(fs, p->leftovers->pdata[i]);
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
        error = wait_turn(inode, caller);
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

int inode_publish_hold(struct fs *fs, struct fs_caller *caller, struct inode *inode, bool settle)
{
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    error = wait_turn(inode, caller);
    while (!error) {
        struct publish p = {.fs = fs, .caller = caller, .inode = inode};

        inode->publishing = true; /* from here on no upload begins */
        inode->version++;
        if (settle ? !must_show(inode) : !has_work(inode, GOAL_VISIBLE))
            break;
        error = publish_once(&p);
        pthread_mutex_lock(&inode->lock);
        if (!error && !p.again)
            break;
    }
    pthread_mutex_unlock(&inode->lock);
    if (error)
        inode_publish_end(fs, inode);
    return error;
}

/* A pinned inode of the dirty list for which WANTED says yes, the first one; NULL: none. */
typedef bool wanted_inode(struct fs *fs, struct inode *inode, void *user);

static struct inode *find_dirty(struct fs *fs, wanted_inode *wanted, void *user)
{
    g_autoptr(GPtrArray) all = fs_pin_dirty(fs);
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

/* A file whose close failed is still to be saved, and before those that were closed after it.
 * inode->lock held. */
static bool holds_others_up(const struct inode *inode)
{
    return inode->failed_close && inode_is_dirty(inode) && !inode->vanished && !inode->refused;
}

/* The file (pinned) whose close failed first, but not EXCEPT; NULL: none. */
static struct inode *find_first_failed(struct fs *fs, const struct inode *except)
{
    g_autoptr(GPtrArray) all = fs_pin_dirty(fs);
    struct inode *first = NULL;
    uint64_t first_number = 0;

    for (guint i = 0; i < all->len; i++) {
        struct inode *inode = all->pdata[i];
        uint64_t number;

        pthread_mutex_lock(&inode->lock);
        number = holds_others_up(inode) ? inode->failed_close : 0;
        pthread_mutex_unlock(&inode->lock);
        if (number && inode != except && (!first || number < first_number)) {
            if (first)
                inode_unpin(fs, first);
            first = inode;
            first_number = number;
        } else {
            inode_unpin(fs, inode);
        }
    }
    return first;
}

int publish_earlier_failures(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    struct inode *earlier;
    int error = 0;

    while (!error && (earlier = find_first_failed(fs, inode))) {
        bool before;

        pthread_mutex_lock(&inode->lock);
        before = !inode->failed_close || earlier->failed_close < inode->failed_close;
        pthread_mutex_unlock(&inode->lock);
        if (before)
            error = inode_publish(fs, caller, earlier);
        inode_unpin(fs, earlier);
        if (!before)
            break;
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
    const struct inode *first_failed = user;
    int64_t now = now_ms();
    bool slow;

    roll_window(fs, inode, now);
    if (!inode_is_dirty(inode) || inode->vanished || inode->refused || now < inode->next_publish_ms)
        return false;
    if (inode->failed_close)
        return inode == first_failed;
    if (atomic_load(&fs->draining))
        return !first_failed;
    if (inode->writers == 0) /* closed, after that one; or just being created */
        return !first_failed && now - inode->dirty_ms > GRACE_MS;
    if (now - inode->dirty_ms < fs->options.sync_interval_ms * 4 / 5)
        return false;
    if (inode->rewritten)
        return false; /* replaced as a whole, at close or fsync */
    slow = inode->slow_windows >= SLOW_WINDOWS || now - inode->dirty_ms > IDLE_MS;
    return inode->upload || key_is_staged(inode->base_key) ? slow : inode->data_dirty;
}

static struct inode *find_due(struct fs *fs)
{
    struct inode *first_failed = find_first_failed(fs, NULL);
    struct inode *due = find_dirty(fs, is_due, first_failed);

    if (first_failed)
        inode_unpin(fs, first_failed);
    return due;
}

/* inode->lock held. */
static bool can_give_way(const struct inode *inode, int64_t now)
{
    return !inode->publishing && !inode->refused && now >= inode->next_publish_ms &&
           !(inode->upload && inode->upload->sending);
}

/* Memory is short, nothing moves: the file with the most dirty bytes gives way. */
static struct inode *find_victim(struct fs *fs)
{
    g_autoptr(GPtrArray) all = fs_pin_dirty(fs);
    struct inode *victim = NULL;
    int64_t now = now_ms();
    uint64_t most = 0;

    for (guint i = 0; i < all->len; i++) {
        struct inode *inode = all->pdata[i];
        uint64_t bytes;

        pthread_mutex_lock(&inode->lock);
        bytes = can_give_way(inode, now) ? layout_dirty_bytes(&inode->layout) : 0;
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
        struct inode *inode = fs_has_lost_lease(fs) ? NULL : find_due(fs);

        tight = budget_is_tight(fs->budget) ? tight + 1 : 0;
        if (!inode && tight > TIGHT_TICKS && !fs_has_lost_lease(fs) && (inode = find_victim(fs))) {
            if (inode_settle(fs, NULL, inode))
                tight = 0; /* not again at once */
            inode_unpin(fs, inode);
            continue;
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
