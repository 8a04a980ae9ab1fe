#include "fusefs/xattr.h"

#include "fusefs/fs_internal.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define NAME_MAX_BYTES 255

static void unref_bytes(void *bytes)
{
    g_bytes_unref(bytes);
}

GHashTable *xattr_parse(const char *text)
{
    GHashTable *xattrs = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, unref_bytes);
    g_autofree char *plain = text ? g_uri_unescape_string(text, NULL) : NULL;
    json_t *document = plain ? json_loads(plain, 0, NULL) : NULL, *value;
    const char *name;

    json_object_foreach(document, name, value)
    {
        gsize size;
        guchar *data;

        if (!json_is_string(value) || !*name || strlen(name) > NAME_MAX_BYTES)
            continue;
        data = g_base64_decode(json_string_value(value), &size);
        g_hash_table_replace(xattrs, g_strdup(name), g_bytes_new_take(data, size));
    }
    json_decref(document);
    return xattrs;
}

char *xattr_format(GHashTable *xattrs)
{
    json_t *document = json_object();
    GHashTableIter iter;
    gpointer name, bytes;
    char *text, *escaped;

    g_hash_table_iter_init(&iter, xattrs);
    while (g_hash_table_iter_next(&iter, &name, &bytes)) {
        gsize size;
        const guchar *data = g_bytes_get_data(bytes, &size);
        g_autofree char *value = g_base64_encode(data, size);

        json_object_set_new(document, name, json_string(value));
    }
    text = json_object_size(document) ? json_dumps(document, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(document);
    escaped = text ? g_uri_escape_string(text, NULL, FALSE) : NULL;
    free(text);
    return escaped;
}

/* --- the filesystem's calls --- */

/* "user." is what programs may use; the others belong to kernels and their policies. */
static int check_name(const char *name)
{
    if (!g_str_has_prefix(name, "user."))
        return EOPNOTSUPP;
    if (!name[strlen("user.")])
        return EINVAL;
    return strlen(name) > NAME_MAX_BYTES ? ERANGE : g_utf8_validate(name, -1, NULL) ? 0 : EINVAL;
}

/* inode->lock held. */
static GHashTable *load(const struct inode *inode)
{
    return xattr_parse(inode->metadata ? g_hash_table_lookup(inode->metadata, XATTR_METADATA)
                                       : NULL);
}

static unsigned metadata_bytes(GHashTable *metadata)
{
    GHashTableIter iter;
    gpointer name, value;
    unsigned bytes = 0;

    g_hash_table_iter_init(&iter, metadata);
    while (g_hash_table_iter_next(&iter, &name, &value))
        bytes += strlen(name) + strlen(value);
    return bytes;
}

/* ENOSPC when the object's metadata cannot hold XATTRS. inode->lock held. */
static int store_back(struct fs *fs, struct inode *inode, GHashTable *xattrs)
{
    g_autofree char *before = NULL;
    g_autoptr(GHashTable) all = NULL;
    char *text = xattr_format(xattrs);

    if (!inode->metadata)
        inode->metadata = metadata_new();
    before = g_strdup(g_hash_table_lookup(inode->metadata, XATTR_METADATA));
    if (text)
        g_hash_table_replace(inode->metadata, g_strdup(XATTR_METADATA), text);
    else
        g_hash_table_remove(inode->metadata, XATTR_METADATA);
    all = inode_metadata(inode);
    if (text && metadata_bytes(all) > store_caps(fs->store)->max_metadata_bytes) {
        if (before)
            g_hash_table_replace(inode->metadata, g_strdup(XATTR_METADATA), g_strdup(before));
        else
            g_hash_table_remove(inode->metadata, XATTR_METADATA);
        return ENOSPC;
    }
    inode->attrs.ctime_ns = now_ns();
    inode->attrs_dirty = true;
    inode->attrs_explicit = inode->attrs_explicit || inode->upload;
    inode_mark_dirty(fs, inode);
    journal_image(fs, inode);
    return 0;
}

/* VALUE NULL: removes. */
static int change(struct fs *fs, struct inode *inode, const char *name, GBytes *value, int flags)
{
    g_autoptr(GHashTable) xattrs = NULL;
    bool exists;
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    xattrs = load(inode);
    exists = g_hash_table_contains(xattrs, name);
    if (exists && flags & XATTR_CREATE)
        error = EEXIST;
    else if (!exists && (!value || flags & XATTR_REPLACE))
        error = ENODATA;
    if (!error && value)
        g_hash_table_replace(xattrs, g_strdup(name), g_bytes_ref(value));
    else if (!error)
        g_hash_table_remove(xattrs, name);
    if (!error)
        error = store_back(fs, inode, xattrs);
    pthread_mutex_unlock(&inode->lock);
    return error;
}

static int change_and_save(struct fs *fs, struct fs_caller *caller, uint64_t ino, const char *name,
                           GBytes *value, int flags)
{
    struct inode *inode;
    int error = fs_may_change(fs);

    error = error ? error : check_name(name);
    if (error)
        return error;
    inode = inode_get(fs, ino);
    if (!inode)
        return ESTALE;
    error = inode == fs->root ? EOPNOTSUPP : inode_refresh_whole(fs, caller, inode);
    if (!error)
        journal_start(fs, inode);
    if (!error)
        error = change(fs, inode, name, value, flags);
    if (!error)
        error = publish_attributes(fs, caller, inode);
    inode_unpin(fs, inode);
    return error;
}

int fs_setxattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, const char *name,
                const void *value, size_t size, int flags)
{
    g_autoptr(GBytes) bytes = g_bytes_new(value, size);

    return change_and_save(fs, caller, ino, name, bytes, flags);
}

int fs_removexattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, const char *name)
{
    return change_and_save(fs, caller, ino, name, NULL, 0);
}

static int load_fresh(struct fs *fs, struct fs_caller *caller, uint64_t ino, GHashTable **xattrs)
{
    struct inode *inode = inode_get(fs, ino);
    bool has_none;
    int error;

    if (!inode)
        return ESTALE;
    pthread_mutex_lock(&inode->lock);
    has_none = inode->partial && !inode->has_xattrs;
    pthread_mutex_unlock(&inode->lock);
    error = has_none ? inode_refresh(fs, caller, inode) : inode_refresh_whole(fs, caller, inode);
    pthread_mutex_lock(&inode->lock);
    *xattrs = error ? NULL : load(inode);
    pthread_mutex_unlock(&inode->lock);
    inode_unpin(fs, inode);
    return error;
}

int fs_getxattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, const char *name,
                GBytes **value)
{
    g_autoptr(GHashTable) xattrs = NULL;
    int error = check_name(name);

    error = error ? error : load_fresh(fs, caller, ino, &xattrs);
    *value = error ? NULL : g_hash_table_lookup(xattrs, name);
    if (*value)
        g_bytes_ref(*value);
    return error ? error : *value ? 0 : ENODATA;
}

int fs_listxattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, GBytes **names)
{
    g_autoptr(GHashTable) xattrs = NULL;
    GByteArray *list = g_byte_array_new();
    int error = load_fresh(fs, caller, ino, &xattrs);
    GHashTableIter iter;
    gpointer name;

    if (!error) {
        g_hash_table_iter_init(&iter, xattrs);
        while (g_hash_table_iter_next(&iter, &name, NULL))
            if (g_str_has_prefix(name, "user."))
                g_byte_array_append(list, name, strlen(name) + 1);
    }
    *names = g_byte_array_free_to_bytes(list);
    if (error)
        g_clear_pointer(names, g_bytes_unref);
    return error;
}
