/* Who publishes what nobody waits for: a few threads that look every tenth of a second for files
 * that grow slowly, that failed, or that must give way when memory is short.
 *
 * Failed closes are numbered, and saved in that order: what was closed later is never seen before.
 */
#include "fusefs/fs_internal.h"

#include <signal.h>

#define TICK_MS      100
#define SLOW_WINDOWS 10 /* intervals of slow writing after which a file is a log, not a bulk */
#define IDLE_MS      30000
#define TIGHT_TICKS  3
#define GRACE_MS     1000

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

bool inode_grows_slowly(const struct inode *inode)
{
    return inode->slow_windows >= SLOW_WINDOWS;
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
    slow = inode_grows_slowly(inode) || now - inode->dirty_ms > IDLE_MS;
    return inode->upload || key_is_staged(inode->base_key) ? slow : inode->data_dirty;
}

/* Noted, so that who finds it after a crash publishes it too. inode->lock held. */
static bool is_due_now(struct fs *fs, struct inode *inode, void *user)
{
    bool due = is_due(fs, inode, user);

    if (due)
        journal_due(inode);
    return due;
}

static struct inode *find_due(struct fs *fs)
{
    struct inode *first_failed = find_first_failed(fs, NULL);
    struct inode *due = find_dirty(fs, is_due_now, first_failed);

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

        if (fs->journal)
            journal_touch(fs->journal);
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
