/* What is in a directory, on a mount that is the authority over its prefix: listed once, then kept
 * by its own changes. Names of inodes stand in `children`, all others in `names`, so that a
 * directory of many files costs a name each, not an inode each.
 *
 * A directory's names are unknown (NULL) until it was listed, or when there are too many.
 */
#include "fusefs/fs_internal.h"

#define NAMES_MAX (256 * 1024) /* in all; beyond, the store is asked */

static GHashTable *names_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

bool names_start(struct fs *fs, struct inode *dir, unsigned count)
{
    if (!dir->names && fs->names_count + count <= NAMES_MAX)
        dir->names = names_new();
    return dir->names != NULL;
}

void names_forget(struct fs *fs, struct inode *dir)
{
    if (!dir->names)
        return;
    fs->names_count -= g_hash_table_size(dir->names);
    g_clear_pointer(&dir->names, g_hash_table_unref);
}

void names_add(struct fs *fs, struct inode *dir, const char *name, mode_t type)
{
    if (!dir->names || inode_child(dir, name))
        return;
    if (fs->names_count >= NAMES_MAX) {
        names_forget(fs, dir);
        return;
    }
    if (g_hash_table_insert(dir->names, g_strdup(name), GUINT_TO_POINTER(type)))
        fs->names_count++;
}

void names_remove(struct fs *fs, struct inode *dir, const char *name)
{
    if (dir->names && g_hash_table_remove(dir->names, name))
        fs->names_count--;
}

bool names_find(const struct inode *dir, const char *name, mode_t *type)
{
    gpointer value;

    if (!g_hash_table_lookup_extended(dir->names, name, NULL, &value))
        return false;
    *type = GPOINTER_TO_UINT(value);
    return true;
}
