/* Lookups that follow an open listing: where its reader is, what it will look up next, and what
 * came of that so far (lookahead.c asks for it). */
#include "fusefs/dir_internal.h"

#include <string.h>

#define LISTINGS    8 /* open ones of a directory, of which lookups may follow each */
#define BATCH_FIRST 4
#define BATCH_SLOW  2
#define SCANNED     4 /* names for each that may be asked for ahead */

static void unpin_all(struct fs *fs, GPtrArray *inodes)
{
    for (guint i = 0; inodes && i < inodes->len; i++)
        inode_unpin(fs, inodes->pdata[i]);
    if (inodes)
        g_ptr_array_free(inodes, TRUE);
}

void listing_publish(struct fs *fs, struct inode *inode, struct fs_dir *dir)
{
    pthread_mutex_lock(&fs->lock);
    g_queue_push_head(&inode->listings, dir);
    dir->next = dir->batch = 0;
    dir->is_in_turn = false;
    pthread_mutex_unlock(&fs->lock);
}

void listing_withdraw(struct fs *fs, struct fs_dir *dir)
{
    struct inode *inode;
    GPtrArray *held;

    pthread_mutex_lock(&fs->lock);
    inode = g_hash_table_lookup(fs->inodes, &dir->ino);
    if (inode)
        g_queue_remove(&inode->listings, dir);
    held = g_steal_pointer(&dir->held);
    pthread_mutex_unlock(&fs->lock);
    unpin_all(fs, held);
}

void dir_hold(struct fs *fs, struct inode *inode, const struct fs_dir *listing, GPtrArray *held)
{
    GList *link;

    pthread_mutex_lock(&fs->lock);
    link = g_queue_find(&inode->listings, listing); /* it may be closed by now */
    if (link) {
        struct fs_dir *dir = link->data;
        GPtrArray *before = dir->held;

        dir->held = held;
        held = before;
    }
    pthread_mutex_unlock(&fs->lock);
    unpin_all(fs, held);
}

void dir_let_go(struct fs *fs, struct inode *inode)
{
    GPtrArray *all = g_ptr_array_new();

    pthread_mutex_lock(&fs->lock);
    for (const GList *link = inode->listings.head; link; link = link->next) {
        struct fs_dir *dir = link->data;

        if (dir->held)
            g_ptr_array_extend_and_steal(all, g_steal_pointer(&dir->held));
    }
    pthread_mutex_unlock(&fs->lock);
    unpin_all(fs, all);
}

/* Where NAME is in DIR; behind the end: nowhere. */
static guint find_name(const struct fs_dir *dir, const char *name)
{
    guint low = 0, high = dir->names->len;

    while (low < high) {
        guint middle = low + (high - low) / 2;
        int order = strcmp(dir->names->pdata[middle], name);

        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return dir->names->len;
}

/* The listing in which NAME is looked up in turn, and where it is; NULL: there is none, and the
 * last one may be followed from there. */
static struct fs_dir *find_followed(struct inode *inode, const char *name, unsigned most, guint *at)
{
    struct fs_dir *dir;
    unsigned count = 0;

    for (GList *link = inode->listings.head; link && count < LISTINGS; link = link->next, count++) {
        dir = link->data;
        *at = find_name(dir, name);
        if (*at < dir->names->len && *at >= dir->next && *at - dir->next <= most)
            return dir;
    }
    dir = g_queue_peek_head(&inode->listings);
    *at = dir ? find_name(dir, name) : 0;
    if (dir && *at < dir->names->len) {
        dir->next = *at + 1;
        dir->is_in_turn = false;
    }
    return NULL;
}

static bool is_asked_for(const struct inode *inode, const char *name)
{
    for (const GList *link = inode->questions.head; link; link = link->next)
        if (strcmp(((const struct question *)link->data)->name, name) == 0)
            return true;
    return false;
}

/* Whether a lookup would ask the store for ENTRY. CURRENT: what the listing's records say counts. A
 * directory is asked for where it is known to be one still: it need not have an object. */
static bool would_ask(struct fs *fs, struct inode *inode, const struct fs_dir *dir,
                      const struct fs_entry *entry, bool current)
{
    const struct record *record;

    if (inode_child(inode, entry->name) || is_asked_for(inode, entry->name))
        return false;
    if (fs_is_authority(fs) && inode->names) {
        record = names_find(inode, entry->name);
        return record && !(record->flags & RECORD_FULL) &&
               S_ISDIR(record->mode) == S_ISDIR(entry->type);
    }
    return !S_ISDIR(entry->type) && !(current && records_find(dir->records, entry->name));
}

/* How many at once: more and more, but few for who comes back when they are old again. */
static unsigned next_batch(struct fs *fs, struct fs_dir *dir, unsigned most)
{
    bool is_quick =
        fs_is_authority(fs) || now_ms() - dir->batch_ms < (int64_t)fs->options.attr_ttl_ms;

    dir->batch = MIN(!dir->batch ? BATCH_FIRST : is_quick ? 2 * dir->batch : BATCH_SLOW, most);
    dir->batch_ms = now_ms();
    return dir->batch;
}

GPtrArray *dir_names_ahead(struct fs *fs, struct inode *inode, const char *name, unsigned most,
                           struct fs_dir **listing)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    struct fs_entry entry;
    guint at, end;
    struct fs_dir *dir = find_followed(inode, name, most, &at);
    unsigned batch;
    bool current;

    *listing = dir;
    if (!dir)
        return names;
    dir->next = at + 1;
    if (!dir->is_in_turn) {
        dir->is_in_turn = true;
        return names;
    }
    current = dir_is_current(fs, inode, dir);
    batch = next_batch(fs, dir, most);
    end = MIN(at + 1 + SCANNED * most, dir->names->len);
    for (guint i = at + 1; i < end && names->len < batch; i++) {
        if (!fs_dir_entry(dir, DOTS + i, &entry) || !would_ask(fs, inode, dir, &entry, current))
            continue;
        g_ptr_array_add(names, g_strconcat(entry.name, S_ISDIR(entry.type) ? "/" : "", NULL));
        dir->next = i + 1;
    }
    return names;
}
