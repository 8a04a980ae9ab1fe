/* Listing a directory: the store's pages and what is only here so far, as one list of names. */
#include "fusefs/fs_internal.h"

#include <string.h>

struct fs_dir {
    GArray *entries; /* struct fs_entry; names live in `names` */
    GStringChunk *names;
    GHashTable *seen;
};

static void add_entry(struct fs_dir *dir, const char *name, mode_t type)
{
    struct fs_entry entry;

    if (g_hash_table_contains(dir->seen, name))
        return; /* "a" and "a/b": the file is what shows */
    entry.name = g_string_chunk_insert(dir->names, name);
    entry.type = type;
    g_hash_table_add(dir->seen, entry.name);
    g_array_append_val(dir->entries, entry);
}

/* Names that no path can have are not shown: "", ".", "..", longer than 255 bytes, our own. */
static bool can_show(const char *name, bool in_root)
{
    size_t length = strlen(name);

    return length > 0 && length <= 255 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           !strchr(name, '/') && !(in_root && g_str_has_prefix(name, ROOT_HIDDEN));
}

static void add_page(struct fs_dir *dir, const struct store_call *page, size_t prefix_length)
{
    for (guint i = 0; i < page->objects->len; i++) {
        const struct store_object *object = page->objects->pdata[i];
        const char *name = object->key + prefix_length;

        if (can_show(name, prefix_length == 0))
            add_entry(dir, name, 0);
    }
    for (guint i = 0; page->prefixes && i < page->prefixes->len; i++) {
        const char *prefix = page->prefixes->pdata[i];
        g_autofree char *name = g_strdup(prefix + prefix_length);

        if (g_str_has_suffix(name, "/"))
            name[strlen(name) - 1] = '\0';
        if (can_show(name, prefix_length == 0))
            add_entry(dir, name, S_IFDIR);
    }
}

static void add_local(struct fs *fs, struct fs_dir *dir, struct inode *inode)
{
    GHashTableIter iter;
    gpointer value;

    pthread_mutex_lock(&fs->lock);
    g_hash_table_iter_init(&iter, inode->children);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        struct inode *child = value;
        bool unsaved;

        pthread_mutex_lock(&child->lock);
        unsaved = inode_is_dirty(child) || child->publishing;
        pthread_mutex_unlock(&child->lock);
        if (unsaved)
            add_entry(dir, child->name, child->attrs.mode & S_IFMT);
    }
    pthread_mutex_unlock(&fs->lock);
}

int fs_opendir(struct fs *fs, struct fs_caller *caller, uint64_t ino, struct fs_dir **out)
{
    struct inode *inode = inode_get(fs, ino);
    struct fs_dir *dir;
    g_autofree char *prefix = NULL, *token = NULL;
    int error = 0;

    if (!inode)
        return ESTALE;
    if (!is_directory(inode)) {
        inode_unpin(fs, inode);
        return ENOTDIR;
    }
    dir = g_new0(struct fs_dir, 1);
    dir->entries = g_array_new(FALSE, FALSE, sizeof(struct fs_entry));
    dir->names = g_string_chunk_new(4096);
    dir->seen = g_hash_table_new(g_str_hash, g_str_equal);
    prefix = inode_key(fs, inode);
    add_entry(dir, ".", S_IFDIR);
    add_entry(dir, "..", S_IFDIR);
    do {
        g_autoptr(StoreCall) page = store_call_new(STORE_LIST, prefix);

        page->delimiter = true;
        page->token = g_steal_pointer(&token);
        error = run_call(fs, caller, page);
        if (!error)
            add_page(dir, page, strlen(prefix));
        token = error ? NULL : g_strdup(page->next_token);
    } while (token);
    if (!error)
        add_local(fs, dir, inode);
    inode_unpin(fs, inode);
    if (error)
        fs_closedir(dir);
    else
        *out = dir;
    return error;
}

const struct fs_entry *fs_dir_entry(const struct fs_dir *dir, uint64_t index)
{
    return index < dir->entries->len ? &g_array_index(dir->entries, struct fs_entry, index) : NULL;
}

void fs_closedir(struct fs_dir *dir)
{
    g_hash_table_unref(dir->seen);
    g_array_free(dir->entries, TRUE);
    g_string_chunk_free(dir->names);
    g_free(dir);
}
