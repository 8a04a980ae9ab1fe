/* Listing a directory: the store's pages and what is only here so far, as one list of names. Where
 * nobody else writes, the list is remembered, and the store is not asked again. */
#include "fusefs/dir_internal.h"

#include <dirent.h>
#include <limits.h>
#include <string.h>

#define TRIES 3 /* of a listing during which names came or went */

/* What stands before a name. */
struct tag {
    uint8_t type;   /* a DT_ value; DT_UNKNOWN: to be looked up */
    uint8_t ino[8]; /* unaligned */
};

static void dir_init(struct fs_dir *dir)
{
    dir->names = g_ptr_array_new();
    dir->chunk = g_string_chunk_new(64 * 1024);
    dir->records = records_new();
}

static void dir_clear(struct fs_dir *dir)
{
    g_clear_pointer(&dir->records, g_hash_table_unref);
    g_ptr_array_free(dir->names, TRUE);
    g_string_chunk_free(dir->chunk);
}

static void add_entry(struct fs_dir *dir, const char *name, mode_t type, uint64_t ino)
{
    struct {
        struct tag tag;
        char name[NAME_MAX + 1];
    } packed = {.tag.type = IFTODT(type)};
    size_t length = strlen(name);
    char *in_chunk;

    memcpy(packed.tag.ino, &ino, sizeof(ino));
    memcpy(packed.name, name, MIN(length, NAME_MAX));
    in_chunk = g_string_chunk_insert_len(dir->chunk, (char *)&packed,
                                         (gssize)(sizeof(packed.tag) + MIN(length, NAME_MAX)));
    g_ptr_array_add(dir->names, in_chunk + sizeof(packed.tag));
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Of what was added under one name, the first stays: with "a" and "a/b", the file is what shows.
 * A sort, as it is stable, takes a third of the memory that a set of the names would. */
static void settle(struct fs_dir *dir)
{
    GPtrArray *names = dir->names;
    guint kept = 0;

    g_ptr_array_sort(names, compare_names);
    for (guint i = 0; i < names->len; i++)
        if (!kept || strcmp(names->pdata[kept - 1], names->pdata[i]) != 0)
            names->pdata[kept++] = names->pdata[i];
    g_ptr_array_set_size(names, (gint)kept);
}

/* Names that no path can have are not shown: "", ".", "..", longer than 255 bytes, our own. */
static bool can_show(const char *name, bool in_root)
{
    size_t length = strlen(name);

    return length > 0 && length <= 255 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           !strchr(name, '/') && !(in_root && g_str_has_prefix(name, ROOT_HIDDEN));
}

/* OBJECT is NAME: what INDEX (may be NULL) tells of it is kept if it is right. */
static mode_t add_record(struct fs_dir *dir, GHashTable *index, const char *name,
                         const struct store_object *object)
{
    struct record *record = index ? records_find(index, name) : NULL;

    if (!record || !record_matches(record, object))
        return 0;
    g_hash_table_steal(index, record->name);
    record->changed_ns = object->mtime_ns; /* no bound any more */
    record->flags |= RECORD_EXACT;
    g_hash_table_add(dir->records, record->name);
    return record->mode & S_IFMT;
}

/* A symlink's object is its target, which is no longer than a path. */
static mode_t type_of(const struct store_object *object, mode_t recorded)
{
    return !recorded && object->size_bytes > PATH_MAX ? S_IFREG : recorded;
}

static void add_page(struct fs_dir *dir, const struct inode *inode, const struct store_call *page,
                     size_t prefix_length, GHashTable *index)
{
    for (guint i = 0; i < page->objects->len; i++) {
        const struct store_object *object = page->objects->pdata[i];
        const char *name = object->key + prefix_length;

        if (can_show(name, prefix_length == 0))
            add_entry(dir, name, type_of(object, add_record(dir, index, name, object)),
                      inode_number(inode, name));
    }
    for (guint i = 0; page->prefixes && i < page->prefixes->len; i++) {
        const char *prefix = page->prefixes->pdata[i];
        g_autofree char *name = g_strdup(prefix + prefix_length);

        if (g_str_has_suffix(name, "/"))
            name[strlen(name) - 1] = '\0';
        if (can_show(name, prefix_length == 0))
            add_entry(dir, name, S_IFDIR, inode_number(inode, name));
    }
}

/* What is known of the files of PAGE, asked for at ASKED_MS, is known as of then where it is still
 * true. */
static void confirm_children(struct fs *fs, struct inode *inode, const struct store_call *page,
                             int64_t asked_ms, size_t prefix_length)
{
    if (fs_is_authority(fs) || !store_caps(fs->store)->has_current_list)
        return;
    pthread_mutex_lock(&fs->lock);
    for (guint i = 0; i < page->objects->len && g_hash_table_size(inode->children); i++) {
        const struct store_object *object = page->objects->pdata[i];
        struct inode *child = inode_child(inode, object->key + prefix_length);

        if (child)
            inode_confirm(child, object, asked_ms);
    }
    pthread_mutex_unlock(&fs->lock);
}

/* Names that only we know so far; or, where the listing is ours, all that are in use. fs->lock. */
static void add_children(struct fs_dir *dir, struct inode *inode, bool all)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, inode->children);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct inode *child = value;
        bool unsaved;
        mode_t type;

        pthread_mutex_lock(&child->lock);
        type = child->attrs.mode & S_IFMT;
        unsaved = inode_is_dirty(child) || child->publishing;
        pthread_mutex_unlock(&child->lock);
        if (all || unsaved)
            add_entry(dir, child->name, type, child->ino);
    }
}

/* From what is known here; false: it is not. */
static bool list_here(struct fs *fs, struct inode *inode, struct fs_dir *dir)
{
    GHashTableIter iter;
    gpointer name;
    bool known;

    pthread_mutex_lock(&fs->lock);
    dir->parent_ino = inode->parent ? inode->parent->ino : inode->ino;
    known = fs_is_authority(fs) && inode->names;
    if (known) {
        add_children(dir, inode, true);
        g_hash_table_iter_init(&iter, inode->names);
        while (g_hash_table_iter_next(&iter, &name, NULL))
            add_entry(dir, name, record_of(name)->mode & S_IFMT, inode_number(inode, name));
    }
    pthread_mutex_unlock(&fs->lock);
    return known;
}

static void begin_listing(struct inode *inode, struct fs_dir *dir)
{
    dir->began_ms = now_ms();
    pthread_mutex_lock(&inode->lock);
    dir->edits = inode->edits;
    pthread_mutex_unlock(&inode->lock);
}

/* Up to MAX_PAGES pages (0: all); *WHOLE: there were no more. */
static int list_store(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                      unsigned max_pages, struct fs_dir *dir, bool *whole)
{
    g_autofree char *prefix = inode_key(fs, inode), *token = NULL;
    g_autoptr(GHashTable) index = NULL;
    unsigned pages = 0;
    int error;

    begin_listing(inode, dir);
    do {
        g_autoptr(StoreCall) page = store_call_new(STORE_LIST, prefix);
        int64_t asked_ms = now_ms();
        bool is_first = !token;

        page->delimiter = true;
        page->token = g_steal_pointer(&token);
        error = run_call(fs, caller, page);
        if (!error && is_first && page->objects->len >= INDEX_WORTH)
            index = index_load(fs, caller, inode);
        if (!error)
            add_page(dir, inode, page, strlen(prefix), index);
        if (!error)
            confirm_children(fs, inode, page, asked_ms, strlen(prefix));
        token = error ? NULL : g_strdup(page->next_token);
    } while (token && (!max_pages || ++pages < max_pages));
    *whole = !error && !token;
    settle(dir);
    return error;
}

/* What was listed is what there is, if nothing changed meanwhile. fs->lock held. */
static bool remember(struct fs *fs, struct inode *inode, struct fs_dir *dir, uint64_t changes)
{
    struct fs_entry entry;

    if (inode->names)
        return true;
    if (inode->changes != changes)
        return false;
    if (!names_start(fs, inode, dir->names->len)) {
        inode->is_large = true;
        return false;
    }
    for (uint64_t i = DOTS; fs_dir_entry(dir, i, &entry); i++) {
        struct record *record = records_find(dir->records, entry.name);

        if (record)
            g_hash_table_steal(dir->records, record->name);
        names_add(fs, inode, record ? record : record_new_plain(entry.name, entry.type));
    }
    return true;
}

int dir_learn(struct fs *fs, struct fs_caller *caller, struct inode *inode, unsigned max_pages)
{
    bool known = false, whole = true;
    int error = 0;

    for (int i = 0; i < TRIES && !error && !known && whole; i++) {
        struct fs_dir dir;
        uint64_t changes;

        pthread_mutex_lock(&fs->lock);
        known = inode->names != NULL || inode->is_large;
        changes = inode->changes;
        pthread_mutex_unlock(&fs->lock);
        if (known)
            break;
        dir_init(&dir);
        error = list_store(fs, caller, inode, max_pages, &dir, &whole);
        pthread_mutex_lock(&fs->lock);
        known = !error && whole && remember(fs, inode, &dir, changes);
        if (!error && !whole)
            inode->is_large = true;
        pthread_mutex_unlock(&fs->lock);
        dir_clear(&dir);
    }
    return error;
}

/* Lists INODE into DIR, which is initialised here. */
static int list(struct fs *fs, struct fs_caller *caller, struct inode *inode, struct fs_dir *dir)
{
    bool is_known = false, whole;
    guint listed = 0;
    int error = 0;

    for (int i = 0; i < TRIES && !error && !is_known; i++) {
        uint64_t changes;

        if (i)
            dir_clear(dir);
        dir_init(dir);
        if (list_here(fs, inode, dir))
            break;
        pthread_mutex_lock(&fs->lock);
        changes = inode->changes;
        pthread_mutex_unlock(&fs->lock);
        error = list_store(fs, caller, inode, 0, dir, &whole);
        listed = dir->names->len;
        pthread_mutex_lock(&fs->lock);
        is_known = !error &&
                   (!fs_is_authority(fs) || remember(fs, inode, dir, changes) || inode->is_large);
        add_children(dir, inode, false);
        pthread_mutex_unlock(&fs->lock);
    }
    if (dir->names->len > listed)
        settle(dir);
    if (fs_is_authority(fs)) /* they are with the names, or too many */
        g_hash_table_remove_all(dir->records);
    return error;
}

int fs_opendir(struct fs *fs, struct fs_caller *caller, uint64_t ino, struct fs_dir **out)
{
    struct inode *inode = inode_get(fs, ino);
    struct fs_dir *dir;
    int error;

    if (!inode)
        return ESTALE;
    if (!is_directory(inode)) {
        inode_unpin(fs, inode);
        return ENOTDIR;
    }
    dir = g_new0(struct fs_dir, 1);
    dir->ino = ino;
    error = list(fs, caller, inode, dir);
    if (!error)
        listing_publish(fs, inode, dir);
    inode_unpin(fs, inode);
    if (error)
        fs_closedir(fs, dir);
    else
        *out = dir;
    return error;
}

int fs_rewinddir(struct fs *fs, struct fs_caller *caller, struct fs_dir *dir)
{
    struct inode *inode = inode_get(fs, dir->ino);
    int error;

    if (!inode)
        return ESTALE;
    listing_withdraw(fs, dir);
    dir_clear(dir);
    error = list(fs, caller, inode, dir);
    if (!error)
        listing_publish(fs, inode, dir);
    inode_unpin(fs, inode);
    return error;
}

bool fs_dir_entry(const struct fs_dir *dir, uint64_t index, struct fs_entry *entry)
{
    struct tag tag;

    if (index < DOTS) {
        *entry = (struct fs_entry){
            .name = index ? ".." : ".", .type = S_IFDIR, .ino = index ? dir->parent_ino : dir->ino};
        return true;
    }
    if (index - DOTS >= dir->names->len)
        return false;
    entry->name = dir->names->pdata[index - DOTS];
    memcpy(&tag, entry->name - sizeof(tag), sizeof(tag));
    entry->type = DTTOIF(tag.type);
    memcpy(&entry->ino, tag.ino, sizeof(entry->ino));
    return true;
}

/* An inode (pinned) for what is known of NAME; NULL: it is to be looked up. fs->lock held. */
static struct inode *find_known(struct fs *fs, struct inode *parent, struct fs_dir *dir,
                                const char *name, bool current)
{
    struct inode *child = inode_child(parent, name);
    struct record *record;

    if (child) {
        child->pins++;
        return child;
    }
    if (fs_is_authority(fs)) {
        record = parent->names ? names_find(parent, name) : NULL;
        return record && record->flags & RECORD_FULL
                   ? inode_from_record(fs, parent, names_steal(fs, parent, name), now_ms())
                   : NULL;
    }
    record = current ? records_find(dir->records, name) : NULL;
    if (!record)
        return NULL;
    g_hash_table_steal(dir->records, record->name);
    return inode_from_record(fs, parent, record, dir->began_ms);
}

bool dir_is_current(struct fs *fs, struct inode *parent, const struct fs_dir *dir)
{
    bool same;

    pthread_mutex_lock(&parent->lock);
    same = parent->edits == dir->edits;
    pthread_mutex_unlock(&parent->lock);
    return same && now_ms() - dir->began_ms < fs->options.attr_ttl_ms;
}

/* CHILD (pinned) as it is known here, with a lookup; false: it must be asked for. */
static bool stat_known(struct fs *fs, struct fs_dir *dir, struct inode *child, const char *name,
                       bool current, struct stat *st)
{
    struct record *record = current ? records_find(dir->records, name) : NULL;
    bool fresh;

    if (record)
        inode_update(child, record, dir->began_ms);
    fresh = inode_is_fresh(fs, child);
    if (fresh)
        inode_stat(child, st);
    pthread_mutex_lock(&fs->lock);
    fresh = fresh && !child->removed;
    if (fresh) {
        child->lookups++;
        cold_touch(fs, child);
    }
    inode_unpin_locked(fs, child);
    pthread_mutex_unlock(&fs->lock);
    return fresh;
}

bool fs_dir_stat(struct fs *fs, struct fs_dir *dir, const struct fs_entry *entry, struct stat *st)
{
    struct inode *parent, *child = NULL;
    bool current = false, known;

    if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
        return false;
    parent = inode_get(fs, dir->ino);
    if (!parent)
        return false;
    pthread_mutex_lock(&fs->lock);
    if (!parent->removed || parent == fs->root) {
        current = dir_is_current(fs, parent, dir);
        child = find_known(fs, parent, dir, entry->name, current);
    }
    pthread_mutex_unlock(&fs->lock);
    known = child && stat_known(fs, dir, child, entry->name, current, st);
    inode_unpin(fs, parent);
    return known;
}

void fs_closedir(struct fs *fs, struct fs_dir *dir)
{
    listing_withdraw(fs, dir);
    dir_clear(dir);
    g_free(dir);
}
