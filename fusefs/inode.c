/* The tree of inodes. An inode lives while the kernel counts lookups of it, something pins it, or
 * it has children; names are found through fs->lock alone. */
#include "fusefs/upload.h"

#include <string.h>

/* Handles are left only where the filesystem ends under them. */
static void free_files(struct inode *inode)
{
    GList *link;

    while ((link = g_queue_pop_head_link(&inode->files)))
        g_free(link->data);
}

static void inode_free(struct fs *fs, struct inode *inode)
{
    free_files(inode);
    journal_end(fs, inode);
    g_clear_pointer(&inode->upload, upload_free);
    layout_clear(&inode->layout);
    ranges_clear(&inode->given);
    g_queue_clear(&inode->listings);
    g_clear_pointer(&inode->children, g_hash_table_unref);
    g_clear_pointer(&inode->names, g_hash_table_unref);
    g_clear_pointer(&inode->metadata, g_hash_table_unref);
    g_free(inode->name);
    g_free(inode->base_key);
    g_free(inode->etag);
    g_free(inode->lineage);
    g_free(inode->base_lineage);
    g_clear_pointer(&inode->doubt, doubt_free);
    g_free(inode->target);
    pthread_cond_destroy(&inode->changed);
    pthread_mutex_destroy(&inode->lock);
    g_free(inode);
}

bool is_directory(const struct inode *inode)
{
    return inode->children != NULL;
}

uint64_t inode_number(const struct inode *parent, const char *name)
{
    uint64_t hash = 14695981039346656037ull ^ parent->ino; /* FNV-1a */

    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 1099511628211ull;
    return hash;
}

/* A free number, the one that listings tell if it can be had. */
static uint64_t choose_number(struct fs *fs, const struct inode *parent, const char *name)
{
    uint64_t ino = parent ? inode_number(parent, name) : FS_ROOT;

    while (ino < FS_ROOT || g_hash_table_contains(fs->inodes, &ino))
        ino++;
    return ino;
}

struct inode *inode_new(struct fs *fs, struct inode *parent, const char *name, mode_t mode)
{
    struct inode *inode = g_new0(struct inode, 1);
    pthread_condattr_t attr;

    inode->ino = choose_number(fs, parent, name);
    inode->pins = 1;
    inode->attrs.mode = mode;
    inode->attrs.uid = fs->options.uid;
    inode->attrs.gid = fs->options.gid;
    inode->attrs.mtime_ns = inode->attrs.ctime_ns = inode->attrs.atime_ns = now_ns();
    layout_init(&inode->layout);
    g_queue_init(&inode->questions);
    g_queue_init(&inode->listings);
    g_queue_init(&inode->streams);
    g_queue_init(&inode->segments);
    pthread_mutex_init(&inode->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&inode->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (S_ISDIR(mode))
        inode->children = g_hash_table_new(g_str_hash, g_str_equal);
    inode->may_have_index = true;
    g_hash_table_insert(fs->inodes, &inode->ino, inode);
    cold_add(fs, inode);
    if (parent)
        inode_attach(fs, inode, parent, name);
    return inode;
}

struct inode *inode_get(struct fs *fs, uint64_t ino)
{
    struct inode *inode;

    pthread_mutex_lock(&fs->lock);
    inode = g_hash_table_lookup(fs->inodes, &ino);
    if (inode)
        inode->pins++;
    pthread_mutex_unlock(&fs->lock);
    return inode;
}

void inode_pin(struct fs *fs, struct inode *inode)
{
    pthread_mutex_lock(&fs->lock);
    inode->pins++;
    pthread_mutex_unlock(&fs->lock);
}

bool inode_is_listed_dirty(struct fs *fs, struct inode *inode)
{
    bool listed;

    pthread_mutex_lock(&fs->dirty_lock);
    listed = inode->dirty_link != NULL;
    pthread_mutex_unlock(&fs->dirty_lock);
    return listed;
}

/* Frees INODE, and each parent that was only kept for it. */
static void reap(struct fs *fs, struct inode *inode)
{
    while (inode && inode != fs->root && inode->pins == 0 && inode->lookups == 0 &&
           !(inode->children && g_hash_table_size(inode->children)) &&
           !inode_is_listed_dirty(fs, inode) && !index_is_wanted(fs, inode)) {
        struct inode *parent = inode->parent;
        struct record *record = NULL;

        if (!inode->removed && parent->names) { /* it is still there, only not in use */
            pthread_mutex_lock(&inode->lock);
            record = inode_to_record(inode);
            pthread_mutex_unlock(&inode->lock);
        }
        inode_detach(inode);
        if (record)
            names_add(fs, parent, record);
        names_forget(fs, inode);
        cold_remove(fs, inode);
        g_hash_table_remove(fs->inodes, &inode->ino);
        inode_free(fs, inode);
        inode = parent;
    }
}

void inode_unpin_locked(struct fs *fs, struct inode *inode)
{
    g_assert(inode->pins > 0);
    inode->pins--;
    reap(fs, inode);
}

void inode_unpin(struct fs *fs, struct inode *inode)
{
    pthread_mutex_lock(&fs->lock);
    inode_unpin_locked(fs, inode);
    pthread_mutex_unlock(&fs->lock);
}

void fs_forget(struct fs *fs, uint64_t ino, uint64_t lookups)
{
    struct inode *inode;

    pthread_mutex_lock(&fs->lock);
    inode = g_hash_table_lookup(fs->inodes, &ino);
    if (inode) {
        inode->lookups -= MIN(lookups, inode->lookups);
        reap(fs, inode);
    }
    pthread_mutex_unlock(&fs->lock);
}

struct inode *inode_child(struct inode *parent, const char *name)
{
    return g_hash_table_lookup(parent->children, name);
}

void question_begin(struct fs *fs, struct inode *parent, struct question *question,
                    const char *name)
{
    *question = (struct question){
        .name = name, .asked_ns = atomic_load(&fs->store_ns), .link.data = question};
    g_queue_push_tail_link(&parent->questions, &question->link);
}

void question_end(struct inode *parent, struct question *question)
{
    g_queue_unlink(&parent->questions, &question->link);
}

void question_drop(struct fs *fs, struct inode *parent, struct question *question)
{
    pthread_mutex_lock(&fs->lock);
    question_end(parent, question);
    pthread_mutex_unlock(&fs->lock);
}

void questions_void(struct inode *parent)
{
    for (const GList *link = parent->questions.head; link; link = link->next)
        ((struct question *)link->data)->moot = true;
}

static void note_change(struct inode *parent, const char *name)
{
    parent->changes++;
    for (const GList *link = parent->questions.head; link; link = link->next) {
        struct question *question = link->data;

        question->moot |= strcmp(question->name, name) == 0;
    }
}

void inode_attach(struct fs *fs, struct inode *inode, struct inode *parent, const char *name)
{
    names_remove(fs, parent, name);
    g_free(inode->name);
    inode->name = g_strdup(name);
    inode->parent = parent;
    inode->removed = false;
    g_hash_table_replace(parent->children, inode->name, inode);
    note_change(parent, name);
}

void inode_detach(struct inode *inode)
{
    if (inode->parent && inode_child(inode->parent, inode->name) == inode) {
        g_hash_table_remove(inode->parent->children, inode->name);
        note_change(inode->parent, inode->name);
    }
    inode->parent = NULL;
    inode->removed = true;
}

char *inode_key_locked(struct inode *inode)
{
    GString *key = g_string_new(is_directory(inode) && inode->parent ? "/" : "");

    for (; inode->parent; inode = inode->parent) {
        g_string_prepend(key, inode->name);
        if (inode->parent->parent)
            g_string_prepend_c(key, '/');
    }
    return g_string_free(key, FALSE);
}

char *inode_key(struct fs *fs, struct inode *inode)
{
    char *key;

    pthread_mutex_lock(&fs->lock);
    key = inode_key_locked(inode);
    pthread_mutex_unlock(&fs->lock);
    return key;
}

static void set_time(struct timespec *to, int64_t ns)
{
    to->tv_sec = ns / 1000000000;
    to->tv_nsec = ns % 1000000000;
    if (to->tv_nsec < 0) {
        to->tv_nsec += 1000000000;
        to->tv_sec--;
    }
}

void inode_stat(struct inode *inode, struct stat *st)
{
    memset(st, 0, sizeof(*st));
    pthread_mutex_lock(&inode->lock);
    st->st_ino = inode->ino;
    st->st_mode = inode->attrs.mode;
    st->st_uid = inode->attrs.uid;
    st->st_gid = inode->attrs.gid;
    st->st_nlink = inode->vanished ? 0 : is_directory(inode) ? 2 : 1;
    st->st_size = inode->size;
    st->st_blocks = (inode->size + 511) / 512;
    st->st_blksize = BUFFER_MAX;
    set_time(&st->st_mtim, inode->attrs.mtime_ns);
    set_time(&st->st_ctim, inode->attrs.ctime_ns);
    set_time(&st->st_atim, inode->attrs.atime_ns);
    pthread_mutex_unlock(&inode->lock);
}

void inodes_free_all(struct fs *fs)
{
    GHashTableIter iter;
    gpointer inode;

    g_hash_table_iter_init(&iter, fs->inodes);
    while (g_hash_table_iter_next(&iter, NULL, &inode)) {
        streams_drop(inode);
        inode_free(fs, inode);
    }
    g_hash_table_unref(fs->inodes);
}
