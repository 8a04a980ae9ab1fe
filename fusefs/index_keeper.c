/* Indexes of attributes (index.h) in the store: read when a directory is listed, written by a
 * thread of an exclusive mount when a directory has much to tell, and when the mount ends. Nothing
 * depends on one: whatever fails here costs HEADs later.
 *
 * threads: fs->lock guards what the inodes know of indexes; the keeper's own lock its queue. The
 *          thread asks the store with no lock held.
 */
#include "fusefs/fs_internal.h"
#include "fusefs/index.h"

#include <signal.h>

#define TICK_MS      1000
#define QUIET_MS     5000  /* without changes, before indexes are written */
#define AGE_MS       60000 /* at most once in this time, for each directory; and busy ones too */
#define SHARE        100   /* writing one takes at most one part in this of the time */
#define STOP_MS      5000  /* at the end of a mount */
#define DEADLINE_MS  5000
#define FIRST_BYTES  (1u << 20) /* that are asked for before the size is known */
#define REMOVE_BATCH 1000

struct index_keeper {
    struct fs *fs;
    pthread_t thread;
    int64_t seen_ms, pass_ms; /* fs->attrs_ms of the last pass, and when it was; the thread's own */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping;
    GQueue gone; /* char*: indexes that are to be removed, or prefixes of them, ending in '/' */
};

static char *index_key(const char *directory)
{
    return g_strconcat(INDEX_PREFIX, directory, INDEX_NAME, NULL);
}

/* --- reading --- */

/* SIZE bytes of the object KEY behind OFFSET; what the answer says is in the call. */
static struct store_call *get(struct fs *fs, struct fs_caller *caller, const char *key,
                              const char *etag, void *data, uint64_t offset, size_t size)
{
    struct store_call *call = store_call_get(key, offset, data, size);

    call->deadline_ms = DEADLINE_MS;
    call->if_match = g_strdup(etag);
    if (run_call(fs, caller, call) == 0)
        return call;
    store_call_unref(call);
    return NULL;
}

/* The whole object; NULL: none, or too large. */
static char *read_object(struct fs *fs, struct fs_caller *caller, const char *key, size_t *size)
{
    g_autofree char *data = g_try_malloc(FIRST_BYTES);
    g_autoptr(StoreCall) first = data ? get(fs, caller, key, NULL, data, 0, FIRST_BYTES) : NULL;
    g_autoptr(StoreCall) rest = NULL;
    g_autofree char *whole = NULL;

    if (!first || first->object.size_bytes > INDEX_OBJECT_MAX)
        return NULL;
    *size = first->object.size_bytes;
    if (first->received_bytes == *size)
        return g_steal_pointer(&data);
    whole = g_try_realloc(g_steal_pointer(&data), *size);
    rest = whole && first->received_bytes == FIRST_BYTES
               ? get(fs, caller, key, first->object.etag, whole + FIRST_BYTES, FIRST_BYTES,
                     *size - FIRST_BYTES)
               : NULL;
    return rest && rest->received_bytes == *size - FIRST_BYTES ? g_steal_pointer(&whole) : NULL;
}

GHashTable *index_load(struct fs *fs, struct fs_caller *caller, struct inode *dir)
{
    g_autofree char *directory = inode_key(fs, dir), *key = index_key(directory), *data = NULL;
    GHashTable *records;
    size_t size;

    if (strlen(key) > store_max_key_bytes(fs->store))
        return NULL;
    data = read_object(fs, caller, key, &size);
    records = data ? index_parse(data, size) : NULL;
    if (data && !records)
        log_info("%s: damaged, or of another version: not used", key);
    return records;
}

/* --- writing --- */

/* inode->lock held. */
static bool can_be_indexed(const struct inode *inode)
{
    return inode->checked_ms && inode->changed_ns && inode->etag && !is_directory(inode) &&
           !inode_is_dirty(inode) && !inode->publishing && !key_is_staged(inode->base_key);
}

bool index_is_wanted(struct fs *fs, struct inode *dir)
{
    GHashTableIter iter;
    gpointer value;
    unsigned count = dir->unindexed;

    if (!fs->index || !dir->names || dir->removed)
        return false;
    g_hash_table_iter_init(&iter, dir->children);
    while (count < INDEX_WORTH && g_hash_table_iter_next(&iter, NULL, &value)) {
        struct inode *child = value;

        pthread_mutex_lock(&child->lock);
        count += can_be_indexed(child) && !child->indexed;
        pthread_mutex_unlock(&child->lock);
    }
    return count >= INDEX_WORTH;
}

/* What is known of DIR's files into RAW; from then on it counts as indexed. fs->lock held. */
static void collect(struct inode *dir, GByteArray *raw)
{
    GHashTableIter iter;
    gpointer name, value;

    g_hash_table_iter_init(&iter, dir->children);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct inode *child = value;

        pthread_mutex_lock(&child->lock);
        if (can_be_indexed(child)) {
            struct record *record = inode_to_record(child);

            if (record->flags & RECORD_FULL)
                index_add(raw, record);
            child->indexed = true;
            record_free(record);
        }
        pthread_mutex_unlock(&child->lock);
    }
    if (!dir->names)
        return;
    g_hash_table_iter_init(&iter, dir->names);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        struct record *record = record_of(name);

        if (record->flags & RECORD_FULL && !S_ISDIR(record->mode) && record->changed_ns)
            index_add(raw, record);
    }
    names_set_indexed(dir, true);
}

/* It was not written after all. */
static void unmark(struct fs *fs, struct inode *dir)
{
    GHashTableIter iter;
    gpointer value;

    pthread_mutex_lock(&fs->lock);
    g_hash_table_iter_init(&iter, dir->children);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct inode *child = value;

        pthread_mutex_lock(&child->lock);
        child->indexed = false;
        pthread_mutex_unlock(&child->lock);
    }
    names_set_indexed(dir, false);
    pthread_mutex_unlock(&fs->lock);
}

static void save(struct fs *fs, struct inode *dir, unsigned deadline_ms)
{
    g_autofree char *directory = inode_key(fs, dir), *key = index_key(directory);
    GByteArray *raw = g_byte_array_new();
    g_autoptr(GBytes) packed = NULL;
    g_autoptr(StoreCall) put = NULL;
    int64_t began = now_ms();
    bool removed;
    int error;

    pthread_mutex_lock(&fs->lock);
    removed = dir->removed && dir != fs->root;
    dir->may_have_index = true;
    collect(dir, raw);
    pthread_mutex_unlock(&fs->lock);
    packed = index_pack(raw);
    g_byte_array_unref(raw);
    put = store_call_put(key, g_bytes_get_data(packed, NULL), g_bytes_get_size(packed));
    put->deadline_ms = deadline_ms;
    error = removed || strlen(key) > store_max_key_bytes(fs->store) ? 0 : run_call(fs, NULL, put);
    if (error) {
        log_debug("%s is not written: %s", key, put->error->message);
        unmark(fs, dir);
    }
    pthread_mutex_lock(&fs->lock);
    dir->indexed_ms = now_ms();
    dir->index_took_ms = dir->indexed_ms - began;
    pthread_mutex_unlock(&fs->lock);
}

/* fs->lock held. */
static bool is_due(const struct inode *dir)
{
    return !dir->indexed_ms ||
           now_ms() - dir->indexed_ms >= MAX(AGE_MS, SHARE * dir->index_took_ms);
}

/* The directories (pinned) whose index is wanted. *LATER: some are not due yet. */
static GPtrArray *find_wanted(struct fs *fs, bool all, bool *later)
{
    GPtrArray *found = g_ptr_array_new();
    GHashTableIter iter;
    gpointer value;

    pthread_mutex_lock(&fs->lock);
    g_hash_table_iter_init(&iter, fs->inodes);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct inode *dir = value;

        if (!is_directory(dir) || !index_is_wanted(fs, dir))
            continue;
        if (!all && !is_due(dir)) {
            *later = true;
            continue;
        }
        dir->pins++;
        g_ptr_array_add(found, dir);
    }
    pthread_mutex_unlock(&fs->lock);
    return found;
}

/* When nothing changed for a while; a busy mount's directories have their turn too. */
static bool is_time(struct index_keeper *keeper, int64_t attrs_ms)
{
    int64_t now = now_ms();

    return attrs_ms != keeper->seen_ms && fs_is_authority(keeper->fs) &&
           (now - attrs_ms >= QUIET_MS || now - keeper->pass_ms >= AGE_MS);
}

static bool is_stopping(struct index_keeper *keeper)
{
    bool stopping;

    pthread_mutex_lock(&keeper->lock);
    stopping = keeper->stopping;
    pthread_mutex_unlock(&keeper->lock);
    return stopping;
}

static void write_due(struct index_keeper *keeper)
{
    struct fs *fs = keeper->fs;
    int64_t attrs_ms = atomic_load(&fs->attrs_ms);
    g_autoptr(GPtrArray) dirs = NULL;
    bool later = false;

    if (!is_time(keeper, attrs_ms))
        return;
    dirs = find_wanted(fs, false, &later);
    for (guint i = 0; i < dirs->len; i++) {
        if (!is_stopping(keeper))
            save(fs, dirs->pdata[i], DEADLINE_MS);
        inode_unpin(fs, dirs->pdata[i]);
    }
    keeper->pass_ms = now_ms();
    if (!later)
        keeper->seen_ms = attrs_ms;
}

/* Until what the store may say of our last change has passed: it tells the time to the second, so
 * that a later change could not be told from it. */
static void await_bound(struct fs *fs)
{
    int64_t store_ns = atomic_load(&fs->store_ns);
    int64_t left_ms = atomic_load(&fs->attrs_ms) + RECORD_BOUND_MS - now_ms();

    if (record_bound(store_ns) != store_ns && left_ms > 0)
        g_usleep((gulong)(MIN(left_ms, RECORD_BOUND_MS) * 1000));
}

/* What the lease's end would come too late for; bounded, since somebody waits. */
static void write_all(struct fs *fs)
{
    int64_t until = now_ms() + STOP_MS;
    bool later = false;
    g_autoptr(GPtrArray) dirs = fs_is_authority(fs) ? find_wanted(fs, true, &later) : NULL;

    if (!dirs)
        return;
    if (dirs->len)
        await_bound(fs);
    for (guint i = 0; i < dirs->len; i++) {
        int64_t left_ms = until - now_ms();

        if (left_ms > 0)
            save(fs, dirs->pdata[i], (unsigned)left_ms);
        inode_unpin(fs, dirs->pdata[i]);
    }
}

/* --- removing --- */

static unsigned most_at_once(struct fs *fs)
{
    return MIN(REMOVE_BATCH, MAX(store_caps(fs->store)->max_delete_keys, 1));
}

/* Takes over KEYS. */
static int remove_keys(struct fs *fs, GPtrArray *keys)
{
    g_autoptr(StoreCall) remove = store_call_new(STORE_DELETE_MANY, "");

    g_ptr_array_unref(remove->keys);
    remove->keys = keys;
    remove->deadline_ms = DEADLINE_MS;
    return keys->len ? run_call(fs, NULL, remove) : 0;
}

static int remove_below(struct fs *fs, const char *prefix)
{
    g_autofree char *token = NULL;
    int error;

    do {
        g_autoptr(StoreCall) page = store_call_new(STORE_LIST, prefix);
        GPtrArray *keys = g_ptr_array_new_with_free_func(g_free);

        page->token = g_steal_pointer(&token);
        page->limit = most_at_once(fs);
        page->deadline_ms = DEADLINE_MS;
        error = run_call(fs, NULL, page);
        for (guint i = 0; !error && i < page->objects->len; i++)
            g_ptr_array_add(keys, g_strdup(((struct store_object *)page->objects->pdata[i])->key));
        if (error)
            g_ptr_array_unref(keys);
        else
            error = remove_keys(fs, keys);
        token = error ? NULL : g_strdup(page->next_token);
    } while (token);
    return error;
}

/* GONE: keys of indexes, or one prefix of them. */
static bool remove_gone(struct fs *fs, GPtrArray *gone)
{
    g_autofree char *first = g_strdup(gone->pdata[0]);
    int error;

    if (g_str_has_suffix(first, "/")) {
        g_ptr_array_unref(gone);
        error = remove_below(fs, first);
    } else {
        error = remove_keys(fs, gone);
    }
    if (error)
        log_debug("%s and others may stay", first);
    return !error;
}

void index_forget(struct fs *fs, const char *key, bool below)
{
    struct index_keeper *keeper = fs->index;
    char *gone = below ? g_strconcat(INDEX_PREFIX, key, NULL) : index_key(key);

    if (strlen(gone) > store_max_key_bytes(fs->store)) {
        g_free(gone); /* there was none */
        return;
    }
    if (!keeper) { /* the prefix is shared */
        GPtrArray *alone = g_ptr_array_new_with_free_func(g_free);

        g_ptr_array_add(alone, gone);
        remove_gone(fs, alone);
        return;
    }
    pthread_mutex_lock(&keeper->lock);
    g_queue_push_tail(&keeper->gone, gone);
    pthread_cond_signal(&keeper->changed);
    pthread_mutex_unlock(&keeper->lock);
}

void index_forget_of(struct fs *fs, const struct inode *dir, const char *key)
{
    bool may_have_one;

    pthread_mutex_lock(&fs->lock);
    may_have_one = dir->may_have_index;
    pthread_mutex_unlock(&fs->lock);
    if (may_have_one)
        index_forget(fs, key, false);
}

/* --- the thread --- */

/* The next keys to remove, or the next prefix. lock held. */
static GPtrArray *take_gone(struct index_keeper *keeper)
{
    GPtrArray *gone = g_ptr_array_new_with_free_func(g_free);
    bool is_prefix = false;

    while (keeper->gone.length && !is_prefix && gone->len < most_at_once(keeper->fs)) {
        is_prefix = g_str_has_suffix(keeper->gone.head->data, "/");
        if (!is_prefix || !gone->len)
            g_ptr_array_add(gone, g_queue_pop_head(&keeper->gone));
    }
    return gone;
}

/* What is to be removed next; NULL: it is time to look for other work. */
static GPtrArray *wait_for_work(struct index_keeper *keeper)
{
    struct timespec until;
    GPtrArray *gone;

    timespec_in(&until, TICK_MS);
    pthread_mutex_lock(&keeper->lock);
    if (!keeper->stopping && !keeper->gone.length)
        pthread_cond_timedwait(&keeper->changed, &keeper->lock, &until);
    gone = take_gone(keeper);
    pthread_mutex_unlock(&keeper->lock);
    if (!gone->len)
        g_clear_pointer(&gone, g_ptr_array_unref);
    return gone;
}

static void *keeper_main(void *user)
{
    struct index_keeper *keeper = user;
    bool goes_on = true;

    while (goes_on) {
        GPtrArray *gone = wait_for_work(keeper);
        bool is_removed = gone && remove_gone(keeper->fs, gone);

        if (is_stopping(keeper))
            goes_on = is_removed; /* what is in the queue; nobody waits for a store that is away */
        else if (!gone)
            write_due(keeper);
    }
    return NULL;
}

void index_keeper_start(struct fs *fs)
{
    struct index_keeper *keeper;
    pthread_condattr_t attr;
    sigset_t all, before;

    if (!fs_is_authority(fs) || fs->options.read_only)
        return;
    keeper = g_new0(struct index_keeper, 1);
    keeper->fs = fs;
    keeper->pass_ms = now_ms();
    g_queue_init(&keeper->gone);
    pthread_mutex_init(&keeper->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&keeper->changed, &attr);
    pthread_condattr_destroy(&attr);
    fs->index = keeper;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&keeper->thread, NULL, keeper_main, keeper) != 0)
        g_error("cannot start a thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void index_keeper_stop(struct fs *fs)
{
    struct index_keeper *keeper = fs->index;

    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->lock);
    keeper->stopping = true;
    pthread_cond_signal(&keeper->changed);
    pthread_mutex_unlock(&keeper->lock);
    pthread_join(keeper->thread, NULL);
    write_all(fs);
    pthread_mutex_lock(&fs->lock);
    fs->index = NULL;
    pthread_mutex_unlock(&fs->lock);
    g_queue_clear_full(&keeper->gone, g_free);
    pthread_cond_destroy(&keeper->changed);
    pthread_mutex_destroy(&keeper->lock);
    g_free(keeper);
}
