#include "fusefs/recover.h"

#include "fusefs/journal_format.h"
#include "fusefs/upload.h"

#include <errno.h>
#include <string.h>

#define NAMES_MAX  1000
#define ADDED_MAX  14 /* ".recovered-999" */
#define NAME_BYTES 255

/* PATH, cut where something added to it would make it too long. */
static char *shorten(struct recovery *r, const char *path)
{
    char *cut = g_strdup(path), *slash = strrchr(cut, '/'), *name = slash ? slash + 1 : cut;
    size_t most = store_max_key_bytes(r->fs->store) - ADDED_MAX;

    while (*name && (strlen(name) > NAME_BYTES - ADDED_MAX || strlen(cut) > most))
        *g_utf8_find_prev_char(name, name + strlen(name)) = '\0';
    return cut;
}

/* A name beside ENTRY's that is free, or where it is already: an earlier recovery was killed. */
static int find_name(struct recovery *r, const struct journal_entry *entry, char **name,
                     bool *is_there)
{
    g_autofree char *path = shorten(r, entry->path);

    *is_there = false;
    for (unsigned i = 1; i <= NAMES_MAX; i++) {
        g_autofree char *key = i == 1 ? g_strconcat(path, ".recovered", NULL)
                                      : g_strdup_printf("%s.recovered-%u", path, i);
        g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, key);
        int error = run_call(r->fs, r->caller, head);

        if (!error)
            error = recover_is_there(r, entry, &head->object, is_there);
        if (error == ENOENT || *is_there) {
            *name = g_steal_pointer(&key);
            return 0;
        }
        if (error)
            return error;
    }
    return EEXIST;
}

/* An inode that is what ENTRY tells, dirty and pinned. Its name is its whole key: nobody looks it
 * up, and nothing else is in the tree yet. */
static struct inode *make_inode(struct fs *fs, struct journal_entry *entry, const char *key)
{
    struct store_object object = {.metadata = entry->metadata};
    struct inode *inode;

    pthread_mutex_lock(&fs->lock);
    inode = inode_new(fs, fs->root, key, S_IFREG | 0644);
    pthread_mutex_unlock(&fs->lock);
    pthread_mutex_lock(&inode->lock);
    file_attrs_load(&inode->attrs, &object);
    inode->metadata = metadata_copy(entry->metadata);
    inode->lineage = g_strdup(g_hash_table_lookup(entry->metadata, LINEAGE));
    inode->etag = g_strdup(entry->etag);
    inode->base_key = g_strdup(entry->base_key);
    inode->base_size = entry->base_size;
    layout_clear(&inode->layout);
    inode->layout = entry->layout;
    layout_init(&entry->layout);
    inode->size = layout_size(&inode->layout);
    inode->upload = g_steal_pointer(&entry->upload);
    for (guint i = 0; inode->upload && i < inode->upload->parts->len; i++)
        ((struct part *)inode->upload->parts->pdata[i])->inode = inode;
    inode->attrs_dirty = true;
    inode->attrs_explicit = inode->upload != NULL;
    inode->data_dirty = entry->state & JOURNAL_DATA;
    inode->rewritten = entry->state & JOURNAL_REWRITTEN;
    inode_mark_dirty(fs, inode);
    pthread_mutex_unlock(&inode->lock);
    return inode;
}

/* Aborts ENTRY's upload: nothing goes on with it. */
static int abandon_upload(struct recovery *r, struct journal_entry *entry)
{
    g_autoptr(StoreCall) call = NULL;

    if (!entry->upload)
        return 0;
    call = store_call_new(STORE_ABORT, entry->upload->key);
    call->upload_id = g_strdup(entry->upload->id);
    layout_forget_parts(&entry->layout);
    g_clear_pointer(&entry->upload, upload_free);
    return run_call(r->fs, r->caller, call);
}

/* INODE's upload is still needed, by who tries again: nobody shall abort it. */
static void keep_upload(struct fs *fs, struct inode *inode, const char *id)
{
    struct upload *upload;

    pthread_mutex_lock(&inode->lock);
    upload = inode->upload;
    if (upload && id && g_strcmp0(upload->id, id) == 0) {
        inode->upload = NULL;
        if (!upload->sending)
            upload_free(upload); /* else the last one under way frees it */
    }
    pthread_mutex_unlock(&inode->lock);
}

/* The store will never take INODE, or has lost its upload: nobody is held up by it. */
static void give_up(struct fs *fs, struct inode *inode)
{
    pthread_mutex_lock(&inode->lock);
    upload_discard(fs, inode);
    inode->data_dirty = inode->attrs_dirty = false;
    pthread_mutex_unlock(&inode->lock);
    forget_name(fs, inode);
}

/* *REFUSED: not published, and never will be. */
static int publish(struct recovery *r, struct journal_entry *entry, const char *key, bool *refused)
{
    g_autofree char *upload_id = entry->upload ? g_strdup(entry->upload->id) : NULL;
    struct inode *inode = make_inode(r->fs, entry, key);
    int error = inode_publish(r->fs, r->caller, inode);

    pthread_mutex_lock(&inode->lock);
    *refused = error && inode->refused && !fs_has_lost_lease(r->fs);
    pthread_mutex_unlock(&inode->lock);
    if (*refused)
        give_up(r->fs, inode);
    else if (error)
        keep_upload(r->fs, inode, upload_id);
    else
        forget_name(r->fs, inode); /* the next inode of this name finds it in the store */
    inode_unpin(r->fs, inode);
    return *refused ? 0 : error;
}

static void note(struct recovery *r, enum fate fate, const char *path, const char *key,
                 const char *why)
{
    if (fate == FATE_LOST) {
        log_error("%s was not saved when its mount ended, and is not recovered: %s", path, why);
        g_ptr_array_add(r->result->lost, g_strdup(path));
    } else if (fate == FATE_ASIDE) {
        log_warning("%s was not saved when its mount ended: %s; what there is of it is %s now",
                    path, why, key);
        g_ptr_array_add(r->result->aside, g_strdup(key));
    } else if (fate == FATE_SHOW) {
        log_info("recovered %s, which was not saved when its mount ended", path);
    }
}

/* Of what nobody could read before. */
static uint64_t unsaved_bytes(const struct layout *layout)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < layout_count(layout); i++) {
        const struct extent *extent = layout_at(layout, i);

        if (!extent->in_object && (extent->buffer || extent->in_part))
            bytes += extent->end - extent->start;
    }
    return bytes;
}

static int recover_entry(struct recovery *r, struct journal_entry *entry)
{
    uint64_t bytes = unsaved_bytes(&entry->layout);
    g_autofree char *key = NULL;
    const char *why;
    enum fate fate;
    bool is_there = false, refused = false;
    int error = recover_check(r, entry, &fate, &why);

    if (!error && fate == FATE_ASIDE)
        error = find_name(r, entry, &key, &is_there);
    if (!error && fate != FATE_SHOW)
        error = abandon_upload(r, entry);
    if (!error && !is_there && (fate == FATE_SHOW || fate == FATE_ASIDE))
        error = publish(r, entry, key ? key : entry->path, &refused);
    if (error)
        return error;
    if (refused) {
        fate = FATE_LOST;
        why = "the store does not take it, or has lost its upload";
    }
    note(r, fate, entry->path, key, why);
    if (fate == FATE_SHOW || fate == FATE_ASIDE) {
        r->result->files++;
        r->result->bytes += bytes;
    }
    return 0;
}

static bool is_backed(const void *user, uint64_t pos, uint64_t length)
{
    return journal_old_is_backed(user, pos, length);
}

static bool recover_file(struct recovery *r, const struct journal_old *old, GError **error)
{
    unsigned damaged;
    g_autoptr(GPtrArray) entries = journal_read(old->data, old->size, is_backed, old, &damaged);

    if (damaged)
        log_error("%s: %u of its files cannot be read to the end", old->path, damaged);
    for (guint i = 0; i < entries->len; i++) {
        struct journal_entry *entry = entries->pdata[i];
        g_autofree char *path = g_strdup(entry->path);
        int code = recover_entry(r, entry);

        if (code)
            return error_set_errno(error, code,
                                   "recover %s, which an earlier mount had not saved (it stays in "
                                   "%s; --no-journal mounts without it)",
                                   path, old->path);
        if (!journal_old_cross_out(old, entry->index, error))
            return false;
    }
    return true;
}

bool fs_recover(struct fs *fs, const struct lease_record *previous, GError **error)
{
    struct fs_caller caller = {.interrupted = fs->options.cancelled};
    struct recovery r = {fs, &caller, previous, &fs->recovered};
    bool ok = true;

    while (ok && fs->journal && journal_old_count(fs->journal))
        ok = recover_file(&r, journal_old_at(fs->journal, 0), error) &&
             journal_old_remove(fs->journal, error);
    if (fs->recovered.files)
        log_warning("recovered %" G_GUINT64_FORMAT " files (%" G_GUINT64_FORMAT
                    " bytes) that an earlier mount had not saved",
                    fs->recovered.files, fs->recovered.bytes);
    return ok;
}
