/* What the store says of an object, into the inode, and the inode's attributes into metadata. */
#include "fusefs/fs_internal.h"

#include "config/random_id.h"

#include <string.h>

enum version { VERSION_SAME, VERSION_GROWN, VERSION_OTHER };

/* What OBJECT is to the one that INODE knows. inode->lock held. */
static enum version compare(const struct inode *inode, const struct store_object *object)
{
    const char *lineage = object->metadata ? g_hash_table_lookup(object->metadata, LINEAGE) : NULL;

    if (!inode->etag || g_strcmp0(inode->etag, object->etag) == 0)
        return VERSION_SAME;
    return lineage && g_strcmp0(inode->lineage, lineage) == 0 &&
                   object->size_bytes >= inode->base_size
               ? VERSION_GROWN
               : VERSION_OTHER;
}

/* Takes over what a fresh answer says of a file that has nothing unsaved here. inode->lock held. */
static void load_content(struct inode *inode, const struct store_object *object)
{
    const char *lineage = object->metadata ? g_hash_table_lookup(object->metadata, LINEAGE) : NULL;

    if (inode->etag && strcmp(inode->etag, object->etag) == 0)
        return;
    inode->grown = inode->etag != NULL;
    streams_drop(inode);
    g_free(inode->etag);
    inode->etag = g_strdup(object->etag);
    g_free(inode->lineage);
    inode->lineage = g_strdup(lineage);
    inode->size = inode->base_size = object->size_bytes;
    layout_set_object(&inode->layout, object->size_bytes);
}

static void load_attrs(struct inode *inode, const struct store_object *object)
{
    mode_t type = inode->attrs.mode & S_IFMT;

    inode->attrs.mtime_ns = inode->attrs.ctime_ns = object->mtime_ns;
    file_attrs_load(&inode->attrs, object);
    if (is_directory(inode) || !(S_ISREG(inode->attrs.mode) || S_ISLNK(inode->attrs.mode)))
        inode->attrs.mode = (inode->attrs.mode & 07777) | type;
    g_clear_pointer(&inode->metadata, g_hash_table_unref);
    inode->metadata = metadata_copy(object->metadata);
}

/* Whether something happened to INODE since VERSION was read: what the store said then may be old.
 * inode->lock held. */
static bool has_moved_on(const struct inode *inode, uint64_t version)
{
    return inode->version != version || inode_is_dirty(inode) || inode->publishing;
}

bool inode_load(struct fs *fs, struct inode *inode, const struct store_object *object,
                uint64_t version)
{
    bool is_other;

    pthread_mutex_lock(&inode->lock);
    if (has_moved_on(inode, version)) {
        pthread_mutex_unlock(&inode->lock);
        return true;
    }
    is_other = !is_directory(inode) && !inode_is_dirty(inode) && !inode->publishing &&
               compare(inode, object) == VERSION_OTHER;
    if (is_other)
        atomic_store(&inode->replaced, true); /* who has it open gets ESTALE */
    if (!is_other && !inode->attrs_dirty && !inode->publishing)
        load_attrs(inode, object);
    if (!is_other && !is_directory(inode) && !inode_is_dirty(inode) && !inode->publishing) {
        if (!inode->base_key)
            inode->base_key = g_strdup(object->key);
        load_content(inode, object);
    }
    inode->checked_ms = now_ms();
    pthread_mutex_unlock(&inode->lock);
    return !is_other;
}

void inode_rewritten(struct inode *inode)
{
    if (inode->rewritten)
        return;
    inode->rewritten = true;
    g_free(inode->lineage);
    inode->lineage = random_id();
}

GHashTable *inode_metadata(struct inode *inode)
{
    GHashTable *metadata = metadata_copy(inode->metadata);

    if (!inode->lineage)
        inode->lineage = random_id();
    file_attrs_save(&inode->attrs, metadata);
    if (!is_directory(inode))
        g_hash_table_insert(metadata, g_strdup(LINEAGE), g_strdup(inode->lineage));
    return metadata;
}

/* Whether what is known is at most MAX_AGE_MS old, or ours to say. */
static bool is_fresh(struct fs *fs, struct inode *inode, unsigned max_age_ms)
{
    bool is_authority = fs_is_authority(fs), fresh;

    pthread_mutex_lock(&inode->lock);
    fresh = inode_is_dirty(inode) || inode->publishing || inode->vanished ||
            (inode->checked_ms && (is_authority || now_ms() - inode->checked_ms < max_age_ms));
    pthread_mutex_unlock(&inode->lock);
    return fresh;
}

int inode_refresh(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    return inode_refresh_for(fs, caller, inode, fs->options.attr_ttl_ms);
}

/* The store has no such object. */
static int note_removed(struct inode *inode, uint64_t version)
{
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    if (is_directory(inode)) {
        inode->checked_ms = now_ms(); /* it may be nothing but a prefix */
    } else if (!has_moved_on(inode, version)) {
        atomic_store(&inode->replaced, true); /* another client removed it; its bytes are gone */
        error = ENOENT;
    }
    pthread_mutex_unlock(&inode->lock);
    return error;
}

static uint64_t version_of(struct inode *inode)
{
    uint64_t version;

    pthread_mutex_lock(&inode->lock);
    version = inode->version;
    pthread_mutex_unlock(&inode->lock);
    return version;
}

int inode_refresh_for(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                      unsigned max_age_ms)
{
    uint64_t version = version_of(inode);
    g_autofree char *key = NULL;
    g_autoptr(StoreCall) call = NULL;
    int error;

    if (inode == fs->root || is_fresh(fs, inode, max_age_ms))
        return 0;
    key = inode_key(fs, inode);
    if (!*key)
        return atomic_load(&inode->replaced) ? ESTALE : 0; /* it has just lost its name */
    call = store_call_new(STORE_HEAD, key);
    error = run_call(fs, caller, call);
    if (error == ENOENT)
        error = note_removed(inode, version);
    else if (!error && !inode_load(fs, inode, &call->object, version))
        error = ESTALE;
    if (error == ENOENT || error == ESTALE)
        forget_name(fs, inode);
    return error;
}
