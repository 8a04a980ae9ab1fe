/* What is in a directory, on a mount that is the authority over its prefix: listed once, then kept
 * by its own changes. Names of inodes stand in `children`, all others in `names`, as records, so
 * that a directory of many files costs a record each, not an inode each.
 *
 * A directory's names are unknown (NULL) until it was listed, or when there are too many.
 */
#include "fusefs/fs_internal.h"

#define NAMES_BYTES_MAX (36u << 20) /* in all; beyond, the store is asked */
#define PLAIN_BYTES     100         /* of a record that tells no more than a name, about */

static bool is_unindexed(const struct record *record)
{
    return (record->flags & (RECORD_FULL | RECORD_INDEXED)) == RECORD_FULL && record->changed_ns &&
           !S_ISDIR(record->mode);
}

bool names_start(struct fs *fs, struct inode *dir, unsigned count)
{
    if (!dir->names && fs->names_bytes + (size_t)count * PLAIN_BYTES <= NAMES_BYTES_MAX)
        dir->names = records_new();
    return dir->names != NULL;
}

void names_forget(struct fs *fs, struct inode *dir)
{
    GHashTableIter iter;
    gpointer name;

    if (!dir->names)
        return;
    g_hash_table_iter_init(&iter, dir->names);
    while (g_hash_table_iter_next(&iter, &name, NULL))
        fs->names_bytes -= record_bytes(record_of(name));
    g_clear_pointer(&dir->names, g_hash_table_unref);
    dir->unindexed = 0;
}

void names_add(struct fs *fs, struct inode *dir, struct record *record)
{
    if (!dir->names || inode_child(dir, record->name)) {
        record_free(record);
        return;
    }
    names_remove(fs, dir, record->name);
    if (fs->names_bytes + record_bytes(record) > NAMES_BYTES_MAX) {
        names_forget(fs, dir);
        dir->is_large = true;
        record_free(record);
        return;
    }
    fs->names_bytes += record_bytes(record);
    dir->unindexed += is_unindexed(record);
    g_hash_table_add(dir->names, record->name);
}

struct record *names_steal(struct fs *fs, struct inode *dir, const char *name)
{
    struct record *record = dir->names ? names_find(dir, name) : NULL;

    if (!record)
        return NULL;
    g_hash_table_steal(dir->names, record->name);
    fs->names_bytes -= record_bytes(record);
    dir->unindexed -= is_unindexed(record);
    return record;
}

void names_remove(struct fs *fs, struct inode *dir, const char *name)
{
    record_free(names_steal(fs, dir, name));
}

struct record *names_find(const struct inode *dir, const char *name)
{
    return records_find(dir->names, name);
}

void names_set_indexed(struct inode *dir, bool indexed)
{
    GHashTableIter iter;
    gpointer name;

    dir->unindexed = 0;
    if (!dir->names)
        return;
    g_hash_table_iter_init(&iter, dir->names);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        struct record *record = record_of(name);

        if (indexed)
            record->flags |= RECORD_INDEXED;
        else
            record->flags &= ~(uint32_t)RECORD_INDEXED;
        dir->unindexed += is_unindexed(record);
    }
}

void names_rebase(struct fs *fs, struct inode *dir, GHashTable *etags)
{
    g_autoptr(GHashTable) before = g_steal_pointer(&dir->names);
    g_autofree char *prefix = inode_key_locked(dir);
    GHashTableIter iter;
    gpointer name;

    if (!before)
        return;
    dir->names = records_new();
    dir->unindexed = 0;
    g_hash_table_iter_init(&iter, before);
    while (g_hash_table_iter_next(&iter, &name, NULL)) {
        struct record *record = record_of(name);
        g_autofree char *key = g_strconcat(prefix, record->name, NULL);
        const char *etag = g_hash_table_lookup(etags, key);

        fs->names_bytes -= record_bytes(record);
        if (S_ISDIR(record->mode) || (etag && record_etag(record)))
            record = record_moved(record, S_ISDIR(record->mode) ? NULL : etag,
                                  record_bound(atomic_load(&fs->store_ns)));
        else
            record = record_new_plain(record->name, 0);
        names_add(fs, dir, record);
    }
}
