/* What the store says of an object, into the inode, and the inode's attributes into metadata. */
#include "fusefs/fs_internal.h"
#include "fusefs/xattr.h"

#include "config/random_id.h"

#include <errno.h>
#include <string.h>

#define QUIET_NS 2000000000ll /* clocks of a store's gateways may be so far apart */
#define TURN_MS  100 /* how often the caller is asked while somebody else's turn is waited for */

enum version { VERSION_SAME, VERSION_GROWN, VERSION_OTHER };

/* What OBJECT is to the one that INODE knows. inode->lock held. */
static enum version compare(const struct inode *inode, const struct store_object *object)
{
    const char *lineage = object->metadata ? g_hash_table_lookup(object->metadata, LINEAGE) : NULL;

    /* Nobody here has seen a byte yet of what is unread. */
    if (!inode->etag || inode->unread || g_strcmp0(inode->etag, object->etag) == 0)
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

    if (inode->etag && !inode->unread && strcmp(inode->etag, object->etag) == 0) {
        if (!inode->lineage)
            inode->lineage = g_strdup(lineage);
        return;
    }
    inode->grown = inode->etag && !inode->unread;
    inode->unread = false;
    if (g_strcmp0(inode->etag, object->etag) != 0)
        g_clear_pointer(&inode->target, g_free);
    streams_drop(inode);
    g_free(inode->etag);
    inode->etag = g_strdup(object->etag);
    g_free(inode->lineage);
    inode->lineage = g_strdup(lineage);
    g_clear_pointer(&inode->base_lineage, g_free);
    inode->size = inode->base_size = object->size_bytes;
    layout_set_object(&inode->layout, object->size_bytes);
}

static void load_attrs(struct inode *inode, const struct store_object *object, int64_t asked_ns)
{
    mode_t type = inode->attrs.mode & S_IFMT;

    g_clear_pointer(&inode->metadata, g_hash_table_unref);
    inode->metadata = metadata_copy(object->metadata);
    inode->changed_ns = object->mtime_ns ? record_bound(object->mtime_ns) : 0;
    inode->is_quiet = inode->changed_ns && asked_ns - inode->changed_ns > QUIET_NS;
    inode->is_changed_exact = inode->indexed = false;
    if (inode->partial && is_directory(inode)) {
        inode->partial = false; /* when its names changed is known here alone */
        return;
    }
    inode->partial = false;
    inode->attrs.mtime_ns = inode->attrs.ctime_ns = object->mtime_ns;
    file_attrs_load(&inode->attrs, object);
    if (is_directory(inode) || !(S_ISREG(inode->attrs.mode) || S_ISLNK(inode->attrs.mode)))
        inode->attrs.mode = (inode->attrs.mode & 07777) | type;
}

/* Whether something happened to INODE since VERSION was read: what the store said then may be old.
 * inode->lock held. */
static bool has_moved_on(const struct inode *inode, uint64_t version)
{
    return inode->version != version || inode_is_dirty(inode) || inode->publishing;
}

bool inode_load(struct fs *fs, struct inode *inode, const struct store_object *object,
                int64_t asked_ns, uint64_t version)
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
        load_attrs(inode, object, asked_ns);
    if (!is_other && !is_directory(inode) && !inode_is_dirty(inode) && !inode->publishing) {
        if (!inode->base_key)
            inode->base_key = g_strdup(object->key);
        load_content(inode, object);
    }
    inode->checked_ms = now_ms();
    pthread_mutex_unlock(&inode->lock);
    if (!is_other)
        atomic_store(&fs->attrs_ms, now_ms());
    return !is_other;
}

void inode_rewritten(struct inode *inode)
{
    if (inode->rewritten)
        return;
    inode->rewritten = true;
    if (!inode->base_lineage)
        inode->base_lineage = g_steal_pointer(&inode->lineage);
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

bool inode_is_fresh(struct fs *fs, struct inode *inode)
{
    return is_fresh(fs, inode, fs->options.attr_ttl_ms);
}

int inode_refresh(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    return inode_refresh_for(fs, caller, inode, fs->options.attr_ttl_ms);
}

void inode_note_prefix(struct inode *inode)
{
    pthread_mutex_lock(&inode->lock);
    inode->checked_ms = now_ms();
    inode->partial = false;
    pthread_mutex_unlock(&inode->lock);
}

/* The store has no such object. */
static int note_removed(struct inode *inode, uint64_t version)
{
    int error = 0;

    if (is_directory(inode)) {
        inode_note_prefix(inode);
        return 0;
    }
    pthread_mutex_lock(&inode->lock);
    if (!has_moved_on(inode, version)) {
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
    int64_t asked_ns = atomic_load(&fs->store_ns);
    g_autofree char *key = NULL;
    g_autoptr(StoreCall) call = NULL;
    int error;

    if (inode == fs->root || is_fresh(fs, inode, max_age_ms))
        return 0;
    key = inode_key(fs, inode);
    if (!*key)
        return atomic_load(&inode->replaced) ? ESTALE : 0; /* it has just lost its name */
    call = store_call_new(STORE_HEAD, key);
    error = is_directory(inode) ? 0 : late_wait(fs, caller, key);
    if (!error)
        error = run_call(fs, caller, call);
    if (error == ENOENT)
        error = note_removed(inode, version);
    else if (!error && !inode_load(fs, inode, &call->object, asked_ns, version))
        error = ESTALE;
    if (error == ENOENT)
        forget_name(fs, inode);
    else if (error == ESTALE)
        forget_version(fs, inode);
    return error;
}

/* Whether all of INODE's metadata must be asked for. While it is published or renamed, no answer of
 * the store would count: that is waited for. */
static int want_whole(struct fs_caller *caller, struct inode *inode, bool *wanted)
{
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    while (!error && inode->partial && inode->publishing) {
        wait_changed(inode, TURN_MS);
        error = is_interrupted(caller) ? EINTR : 0;
    }
    *wanted = !error && inode->partial && !inode_is_dirty(inode) && !inode->vanished;
    if (*wanted)
        inode->checked_ms = 0;
    pthread_mutex_unlock(&inode->lock);
    return error;
}

int inode_refresh_whole(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    bool wanted;
    int error = inode_refresh(fs, caller, inode);

    while (!error && !(error = want_whole(caller, inode, &wanted)) && wanted)
        error = inode_refresh(fs, caller, inode);
    return error;
}

/* --- records --- */

void inode_note_change(struct fs *fs, struct inode *inode)
{
    int64_t store_ns = atomic_load(&fs->store_ns);

    inode->changed_ns = store_ns ? record_bound(store_ns) : 0;
    inode->is_changed_exact = inode->is_quiet = inode->indexed = false;
    atomic_store(&fs->attrs_ms, now_ms());
}

/* Whether what is known of INODE is what the store has. inode->lock held. */
static bool is_settled(const struct inode *inode)
{
    return inode->checked_ms && !inode_is_dirty(inode) && !inode->publishing && !inode->vanished &&
           !atomic_load(&inode->replaced) && (inode->etag || is_directory(inode));
}

/* inode->lock held. */
static bool has_xattrs(const struct inode *inode)
{
    return inode->partial
               ? inode->has_xattrs
               : inode->metadata && g_hash_table_contains(inode->metadata, XATTR_METADATA);
}

struct record *inode_to_record(const struct inode *inode)
{
    bool is_dir = is_directory(inode);
    struct record *record;

    if (!is_settled(inode))
        return record_new_plain(inode->name, is_dir ? S_IFDIR : 0);
    record = record_new(inode->name, is_dir ? NULL : inode->etag, inode->target);
    record->flags = RECORD_FULL | (inode->is_changed_exact ? RECORD_EXACT : 0) |
                    (has_xattrs(inode) ? RECORD_XATTRS : 0) | (inode->indexed ? RECORD_INDEXED : 0);
    record->mode = inode->attrs.mode;
    record->uid = inode->attrs.uid;
    record->gid = inode->attrs.gid;
    record->mtime_ns = inode->attrs.mtime_ns;
    record->ctime_ns = inode->attrs.ctime_ns;
    record->atime_ns = inode->attrs.atime_ns;
    record->size = inode->size;
    record->changed_ns = inode->changed_ns;
    return record;
}

/* inode->lock held, or nobody else knows INODE yet. */
static void take_record(struct inode *inode, const struct record *record, int64_t checked_ms)
{
    inode->attrs.mode = record->mode;
    inode->attrs.uid = record->uid;
    inode->attrs.gid = record->gid;
    inode->attrs.mtime_ns = record->mtime_ns;
    inode->attrs.ctime_ns = record->ctime_ns;
    inode->attrs.atime_ns = record->atime_ns;
    inode->changed_ns = record->changed_ns;
    inode->is_changed_exact = inode->is_quiet = record->flags & RECORD_EXACT;
    inode->indexed = record->flags & RECORD_INDEXED;
    inode->has_xattrs = record->flags & RECORD_XATTRS;
    inode->partial = true;
    inode->checked_ms = checked_ms;
}

struct inode *inode_from_record(struct fs *fs, struct inode *parent, struct record *record,
                                int64_t checked_ms)
{
    struct inode *inode = inode_new(fs, parent, record->name, record->mode);

    take_record(inode, record, checked_ms);
    inode->size = inode->base_size = record->size;
    inode->etag = g_strdup(record_etag(record));
    inode->target = g_strdup(record_target(record));
    inode->unread = inode->etag != NULL;
    record_free(record);
    return inode;
}

bool inode_update(struct inode *inode, const struct record *record, int64_t checked_ms)
{
    bool is_same;

    pthread_mutex_lock(&inode->lock);
    is_same = !inode_is_dirty(inode) && !inode->publishing && !inode->vanished &&
              checked_ms > inode->checked_ms && !is_directory(inode) &&
              g_strcmp0(inode->etag, record_etag(record)) == 0;
    if (is_same)
        take_record(inode, record, checked_ms);
    pthread_mutex_unlock(&inode->lock);
    return is_same;
}

/* How long before its bound an object may have changed: record_bound's time, and a second for those
 * who round up what they tell. */
#define TOLD_NS ((RECORD_BOUND_MS + 1000) * 1000000ll)

void inode_confirm(struct inode *inode, const struct store_object *object, int64_t checked_ms)
{
    struct record *record = NULL;

    pthread_mutex_lock(&inode->lock);
    if (inode->is_quiet && checked_ms > inode->checked_ms && !is_directory(inode))
        record = inode_to_record(inode);
    if (record && record_matches(record, object) &&
        object->mtime_ns >= inode->changed_ns - TOLD_NS) {
        inode->changed_ns = object->mtime_ns;
        inode->is_changed_exact = true;
        inode->checked_ms = checked_ms;
    }
    pthread_mutex_unlock(&inode->lock);
    record_free(record);
}

void inode_take_up(struct fs *fs, struct inode *inode)
{
    g_autofree char *key = inode_key(fs, inode);

    pthread_mutex_lock(&inode->lock);
    if (inode->unread && *key) {
        if (!inode->base_key)
            inode->base_key = g_steal_pointer(&key);
        layout_set_object(&inode->layout, inode->base_size);
        inode->unread = false;
    }
    pthread_mutex_unlock(&inode->lock);
}
