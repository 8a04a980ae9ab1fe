/* A mount's life: threads start, dirty data drains, everything is freed. */
#include "fusefs/fs_internal.h"

#include <errno.h>
#include <string.h>

#define OWN_TTL_MS  10000 /* of what only we change: a lost lease is noticed by then */
#define DIRECT_MOST 16    /* reads into memory beside the budget */

static void init_lock(pthread_mutex_t *lock, pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_mutex_init(lock, NULL);
    if (!cond)
        return;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

static void init_turns(struct turns *turns, unsigned most)
{
    init_lock(&turns->lock, &turns->given);
    turns->most = most;
}

static void set_defaults(struct fs *fs, const struct fs_options *options)
{
    const struct store_caps *caps = store_caps(fs->store);
    uint64_t most;

    fs->options = *options;
    if (!fs->options.budget_bytes)
        fs->options.budget_bytes = budget_default_bytes();
    if (!fs->options.sync_interval_ms)
        fs->options.sync_interval_ms = 1000;
    if (!fs->options.attr_ttl_ms)
        fs->options.attr_ttl_ms = ATTR_TTL_MS;
    fs->budget = budget_new(fs->options.budget_bytes);
    most = budget_limit_bytes(fs->budget) / 8;
    fs->part_bytes = options->part_bytes ? options->part_bytes : MIN(8ull << 20, most);
    fs->part_bytes = CLAMP(fs->part_bytes, MAX(caps->min_part_bytes, BUFFER_MAX),
                           MIN(caps->max_part_bytes, caps->max_put_bytes));
}

struct fs *fs_new(struct store *store, const struct fs_options *options)
{
    struct fs *fs = g_new0(struct fs, 1);

    fs->store = store_ref(store);
    fs->owner = options->lease ? g_strdup(lease_owner(options->lease)) : g_uuid_string_random();
    set_defaults(fs, options);
    fs->journal = options->journal;
    budget_use_journal(fs->budget, fs->journal);
    fs->recovered.aside = g_ptr_array_new_with_free_func(g_free);
    fs->recovered.lost = g_ptr_array_new_with_free_func(g_free);
    fs->max_upload_bytes = fs_max_upload_bytes(fs);
    init_lock(&fs->lock, NULL);
    init_lock(&fs->dirty_lock, &fs->dirty_changed);
    init_lock(&fs->gate_lock, &fs->gate_changed);
    init_turns(&fs->padding, 1);
    init_turns(&fs->direct, DIRECT_MOST);
    init_lock(&fs->notes_lock, NULL);
    fs->complaints = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    fs->late = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    fs->lost_uploads = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    fs->reopens = reopens_new();
    g_queue_init(&fs->dirty);
    g_queue_init(&fs->cold);
    fs->inodes = g_hash_table_new(g_int64_hash, g_int64_equal);
    fs->root = inode_new(fs, NULL, "", S_IFDIR | (0777 & ~fs->options.umask));
    publishers_start(fs);
    index_keeper_start(fs);
    return fs;
}

const struct fs_recovered *fs_recovered(const struct fs *fs)
{
    return &fs->recovered;
}

bool fs_has_lost_lease(struct fs *fs)
{
    return fs->options.lease && !lease_is_held(fs->options.lease);
}

int fs_assure_lease(struct fs *fs, struct fs_caller *caller, const char *key)
{
    struct lease *lease = fs->options.lease;
    g_autoptr(GError) why = NULL;

    if (late_wait(fs, caller, key))
        return EINTR;
    if (!lease || lease_assure(lease, caller_is_over, caller, &why))
        return 0;
    if (error_is(why, EINTR))
        return EINTR;
    complain(fs, key, "%s is not changed: %s", key, why->message);
    return error_is(why, ESTALE) ? ESTALE : EIO;
}

GPtrArray *fs_pin_dirty(struct fs *fs)
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

bool fs_is_hopeless(struct fs *fs)
{
    g_autoptr(GPtrArray) all = fs_pin_dirty(fs);
    bool hope = false;

    for (guint i = 0; i < all->len; i++) {
        struct inode *inode = all->pdata[i];

        pthread_mutex_lock(&inode->lock);
        hope = hope || !inode->refused;
        pthread_mutex_unlock(&inode->lock);
        inode_unpin(fs, inode);
    }
    return fs_has_lost_lease(fs) || (all->len && !hope);
}

/* What is unsaved, and what the store still is at. */
static GPtrArray *dirty_paths(struct fs *fs)
{
    GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);

    pthread_mutex_lock(&fs->lock);
    pthread_mutex_lock(&fs->dirty_lock);
    for (GList *link = fs->dirty.head; link; link = link->next) {
        struct inode *inode = link->data;

        if (!inode->removed)
            g_ptr_array_add(paths, inode_key_locked(inode));
    }
    pthread_mutex_unlock(&fs->dirty_lock);
    pthread_mutex_unlock(&fs->lock);
    late_list(fs, paths);
    return paths;
}

bool fs_drain(struct fs *fs, unsigned timeout_ms, GPtrArray **unsaved)
{
    int64_t until = now_ms() + timeout_ms;
    GPtrArray *paths;

    atomic_store(&fs->draining, true);
    for (;;) {
        paths = dirty_paths(fs);
        if (paths->len == 0 || (timeout_ms && now_ms() >= until) || fs_is_hopeless(fs))
            break;
        g_ptr_array_unref(paths);
        pthread_mutex_lock(&fs->dirty_lock);
        struct timespec tick;
        timespec_in(&tick, 50);
        pthread_cond_timedwait(&fs->dirty_changed, &fs->dirty_lock, &tick);
        pthread_mutex_unlock(&fs->dirty_lock);
    }
    if (paths->len == 0)
        g_clear_pointer(&paths, g_ptr_array_unref);
    if (unsaved)
        *unsaved = paths;
    else if (paths)
        g_ptr_array_unref(paths);
    return paths == NULL;
}

/* Those of files that are still known; the store's threads may be taking others off the table. */
static bool abort_uploads(struct fs *fs)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    GHashTableIter iter;
    bool all_aborted = true;
    gpointer value;

    pthread_mutex_lock(&fs->lock);
    g_hash_table_iter_init(&iter, fs->inodes);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ((struct inode *)value)->pins++;
        g_ptr_array_add(all, value);
    }
    pthread_mutex_unlock(&fs->lock);
    for (guint i = 0; i < all->len; i++) {
        struct inode *inode = all->pdata[i];

        pthread_mutex_lock(&inode->lock);
        if (!journal_tells_of(inode)) {
            upload_discard(fs, inode);
        } else if (inode->upload) {
            inode->upload->error = ECANCELED; /* nothing more goes up; the next mount goes on */
            all_aborted = false;
        }
        pthread_mutex_unlock(&inode->lock);
    }
    return all_aborted;
}

void fs_free(struct fs *fs)
{
    publishers_stop(fs);
    index_keeper_stop(fs);
    if (abort_uploads(fs))
        leftovers_abort_lost(fs);
    store_wait_idle(fs->store); /* calls in flight still use the inodes */
    store_unref(fs->store);
    if (fs->journal)
        journal_seal(fs->journal); /* what is unsaved is for the next mount */
    inodes_free_all(fs);
    g_queue_clear(&fs->dirty);
    budget_free(fs->budget);
    g_hash_table_unref(fs->complaints);
    g_free(fs->last_complaint);
    g_hash_table_unref(fs->late);
    g_hash_table_unref(fs->lost_uploads);
    reopens_free(fs->reopens);
    g_ptr_array_unref(fs->recovered.aside);
    g_ptr_array_unref(fs->recovered.lost);
    g_free(fs->owner);
    g_free(fs);
}

int fs_may_change(struct fs *fs)
{
    if (fs->options.read_only || atomic_load(&fs->draining))
        return EROFS;
    return fs_has_lost_lease(fs) ? ESTALE : 0;
}

bool fs_is_authority(struct fs *fs)
{
    struct lease *lease = fs->options.lease;

    return lease && lease_is_exclusive(lease) && lease_is_held(lease);
}

unsigned fs_attr_ttl_ms(struct fs *fs)
{
    return fs_is_authority(fs) ? MAX(OWN_TTL_MS, fs->options.attr_ttl_ms) : fs->options.attr_ttl_ms;
}

unsigned fs_negative_ttl_ms(struct fs *fs)
{
    return fs_is_authority(fs) ? OWN_TTL_MS : 0;
}

/* An object store has no size: enough that nobody refuses to write. */
int fs_statfs(struct fs *fs, struct statvfs *st)
{
    memset(st, 0, sizeof(*st));
    st->f_bsize = st->f_frsize = 4096;
    st->f_blocks = st->f_bfree = st->f_bavail = 1ull << 40;
    st->f_files = st->f_ffree = st->f_favail = 1ull << 40;
    st->f_namemax = 255;
    return 0;
}

uint64_t fs_budget_bytes(struct fs *fs)
{
    return budget_limit_bytes(fs->budget);
}

uint64_t fs_peak_bytes(struct fs *fs)
{
    return budget_peak_bytes(fs->budget);
}
