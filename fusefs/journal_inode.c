/* What the journal tells of an inode: an image of it, and what is written behind. All of it but
 * journal_start and journal_moved is called with the inode's lock held. */
#include "fusefs/fs_internal.h"
#include "fusefs/journal_internal.h"

#include <string.h>

#define RECORDS_MAX 1024 /* and four for each extent: then a new image is shorter */

static void add_number(GByteArray *image, uint64_t number)
{
    g_byte_array_append(image, (const guint8 *)&number, sizeof(number));
}

static void add_string(GByteArray *image, const char *text)
{
    add_number(image, text ? strlen(text) : JOURNAL_NONE);
    if (text)
        g_byte_array_append(image, (const guint8 *)text, strlen(text));
}

static void add_metadata(GByteArray *image, struct inode *inode)
{
    g_autoptr(GHashTable) metadata = inode_metadata(inode);
    GHashTableIter iter;
    gpointer name, value;

    add_number(image, g_hash_table_size(metadata));
    g_hash_table_iter_init(&iter, metadata);
    while (g_hash_table_iter_next(&iter, &name, &value)) {
        add_string(image, name);
        add_string(image, value);
    }
}

/* Parts whose bytes are there as they are now have an ETag. */
static void add_upload(GByteArray *image, const struct upload *upload)
{
    add_string(image, upload && upload->id ? upload->id : NULL);
    if (!upload || !upload->id)
        return;
    add_string(image, upload->key);
    add_string(image, upload->lineage);
    add_number(image, upload->parts->len);
    for (guint i = 0; i < upload->parts->len; i++) {
        const struct part *part = upload->parts->pdata[i];
        bool is_there = part->state == PART_SENT && !part->changed;

        add_number(image, part->start);
        add_number(image, part->end);
        add_number(image, part->copied);
        add_string(image, is_there ? part->etag : NULL);
    }
}

/* False: some of it is in memory that does not outlive the process. */
static bool add_layout(GByteArray *image, const struct journal *journal,
                       const struct layout *layout, bool with_sent)
{
    add_number(image, layout_count(layout));
    for (unsigned i = 0; i < layout_count(layout); i++) {
        const struct extent *extent = layout_at(layout, i);
        bool is_elsewhere = extent->in_object || extent->in_part;
        uint64_t pos = JOURNAL_NONE;

        if (extent->buffer && extent->buffer->in_journal &&
            (!is_elsewhere || (with_sent && !extent->in_object)))
            pos = journal_position(journal, extent->buffer->data) + extent->buffer_offset;
        if (extent->buffer && !is_elsewhere && pos == JOURNAL_NONE)
            return false;
        add_number(image, extent->end);
        add_number(image, pos);
        add_number(image, extent->in_object | extent->in_part << 1);
    }
    return true;
}

static bool encode(GByteArray *image, struct fs *fs, struct inode *inode, bool with_sent)
{
    add_string(image, inode->journal->path);
    add_string(image, inode->etag);
    add_string(image, inode->base_key);
    add_string(image, inode->base_lineage ? inode->base_lineage : inode->lineage);
    add_number(image, inode->base_size);
    add_number(image, inode->failed_close);
    add_metadata(image, inode);
    add_upload(image, inode->upload);
    return add_layout(image, fs->journal, &inode->layout, with_sent);
}

static uint32_t state_of(const struct inode *inode)
{
    const struct journal_chain *chain = inode->journal;
    uint32_t state = 0;

    if (inode->writers)
        state |= JOURNAL_WRITERS;
    if (inode->syncing || inode->failed_close)
        state |= JOURNAL_WANTED;
    if (chain->due)
        state |= JOURNAL_DUE;
    if (chain->rewritten)
        state |= JOURNAL_REWRITTEN;
    if (inode->upload || key_is_staged(inode->base_key))
        state |= JOURNAL_BULK;
    if (inode_grows_slowly(inode))
        state |= JOURNAL_SLOW;
    if (chain->data)
        state |= JOURNAL_DATA;
    if (inode->etag && !key_is_staged(inode->base_key))
        state |= JOURNAL_PUBLISHED;
    return state;
}

/* What a publish under way has taken off stays until it has ended. */
static void note_changes(const struct inode *inode)
{
    inode->journal->data = inode->journal->data || inode->data_dirty;
    inode->journal->rewritten = inode->journal->rewritten || inode->rewritten;
}

static void write_image(struct fs *fs, struct inode *inode, bool with_sent)
{
    g_autoptr(GByteArray) image = g_byte_array_new();
    struct journal_chain *chain = inode->journal;

    note_changes(inode);
    chain->size = layout_size(&inode->layout);
    if (encode(image, fs, inode, with_sent)) {
        chain->uncovered = !chain_write(fs->journal, chain, image, state_of(inode));
    } else {
        chain->uncovered = true;
        chain_clear(fs->journal, chain);
    }
}

void journal_image(struct fs *fs, struct inode *inode)
{
    if (!inode->journal)
        return;
    if (inode->vanished || !(inode_is_dirty(inode) || inode->publishing)) {
        journal_clean(fs, inode);
        return;
    }
    write_image(fs, inode, true);
}

void journal_ensure(struct fs *fs, struct inode *inode)
{
    struct journal_chain *chain = inode->journal;

    if (!chain || chain->uncovered)
        return;
    if (!chain->is_listed ||
        atomic_load(&chain->head->records) > RECORDS_MAX + 4 * layout_count(&inode->layout))
        journal_image(fs, inode);
    else
        journal_state(inode);
}

void journal_put(struct fs *fs, struct inode *inode, uint64_t offset, uint64_t length,
                 const struct buffer *buffer, uint32_t buffer_offset)
{
    struct journal_chain *chain = inode->journal;

    if (!chain || !chain->is_listed)
        return;
    if (!buffer->in_journal) {
        chain->uncovered = true;
        chain_clear(fs->journal, chain);
        return;
    }
    chain->uncovered = !chain_append(fs->journal, chain, offset,
                                     journal_position(fs->journal, buffer->data) + buffer_offset,
                                     (uint32_t)length);
    chain->size = MAX(chain->size, offset + length);
}

void journal_put_in_place(struct fs *fs, struct inode *inode, uint64_t offset, uint64_t length)
{
    struct journal_chain *chain = inode->journal;
    const struct extent *extent;

    if (!chain || !chain->is_listed || offset + length <= chain->size)
        return; /* over bytes that it tells of already */
    extent = layout_at(&inode->layout, layout_find(&inode->layout, offset));
    journal_put(fs, inode, offset, length, extent->buffer,
                (uint32_t)(extent->buffer_offset + (offset - extent->start)));
}

void journal_resize(struct fs *fs, struct inode *inode, uint64_t size)
{
    struct journal_chain *chain = inode->journal;

    if (!chain || !chain->is_listed)
        return;
    chain->uncovered = !chain_append(fs->journal, chain, size, JOURNAL_NONE, 0);
    chain->size = size;
}

void journal_state(struct inode *inode)
{
    struct journal_chain *chain = inode->journal;

    if (!chain || !chain->is_listed)
        return;
    note_changes(inode);
    atomic_store(&chain->head->state, state_of(inode));
}

void journal_due(struct inode *inode)
{
    if (!inode->journal || inode->journal->due)
        return;
    inode->journal->due = true;
    journal_state(inode);
}

void journal_published(struct fs *fs, struct inode *inode, bool is_visible)
{
    struct journal_chain *chain = inode->journal;

    if (!chain)
        return;
    if (is_visible)
        chain->data = chain->rewritten = chain->due = false;
    if (inode_is_dirty(inode))
        journal_image(fs, inode);
    else
        journal_clean(fs, inode);
}

void journal_clean(struct fs *fs, struct inode *inode)
{
    struct journal_chain *chain = inode->journal;

    if (!chain)
        return;
    chain_clear(fs->journal, chain);
    chain->data = chain->rewritten = chain->due = chain->uncovered = false;
}

void journal_drop_clean(struct fs *fs, struct inode *inode)
{
    if (inode->journal && inode->journal->is_listed && layout_has_sent_memory(&inode->layout))
        write_image(fs, inode, false);
    layout_drop_clean(&inode->layout);
}

bool journal_tells_of(const struct inode *inode)
{
    return inode->journal && inode->journal->is_listed;
}

void journal_start(struct fs *fs, struct inode *inode)
{
    bool started;

    if (!fs->journal || is_directory(inode))
        return;
    pthread_mutex_lock(&inode->lock);
    started = inode->journal != NULL;
    pthread_mutex_unlock(&inode->lock);
    if (started)
        return;
    pthread_mutex_lock(&fs->lock);
    pthread_mutex_lock(&inode->lock);
    if (!inode->journal) {
        inode->journal = g_new0(struct journal_chain, 1);
        inode->journal->path = inode_key_locked(inode);
    }
    pthread_mutex_unlock(&inode->lock);
    pthread_mutex_unlock(&fs->lock);
}

void journal_set_path(struct fs *fs, struct inode *inode, const char *path)
{
    struct journal_chain *chain = inode->journal;

    if (!chain || strcmp(chain->path, path) == 0)
        return;
    g_free(chain->path);
    chain->path = g_strdup(path);
    if (chain->is_listed)
        journal_image(fs, inode);
}

void journal_moved(struct fs *fs, struct inode *inode)
{
    GHashTableIter iter;
    gpointer child;

    if (!fs->journal)
        return;
    if (is_directory(inode)) {
        g_hash_table_iter_init(&iter, inode->children);
        while (g_hash_table_iter_next(&iter, NULL, &child))
            journal_moved(fs, child);
        return;
    }
    pthread_mutex_lock(&inode->lock);
    if (inode->journal) {
        g_autofree char *path = inode_key_locked(inode);

        journal_set_path(fs, inode, path);
    }
    pthread_mutex_unlock(&inode->lock);
}

void journal_end(struct fs *fs, struct inode *inode)
{
    if (!inode->journal)
        return;
    chain_end(fs->journal, inode->journal);
    g_free(inode->journal->path);
    g_clear_pointer(&inode->journal, g_free);
}
