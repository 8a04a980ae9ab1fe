#include "fusefs/recover.h"

#include "fusefs/journal_format.h"
#include "fusefs/upload.h"

#include <errno.h>
#include <string.h>

/* NULL and 0: there is no such object. */
static int head(struct recovery *r, const char *key, struct store_call **object)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_HEAD, key);
    int error = run_call(r->fs, r->caller, call);

    *object = error ? NULL : g_steal_pointer(&call);
    return error == ENOENT ? 0 : error;
}

static const char *lineage_of(GHashTable *metadata)
{
    return metadata ? g_hash_table_lookup(metadata, LINEAGE) : NULL;
}

/* A directory that was being renamed has its new name now, and the entry follows. */
static void follow_renames(struct recovery *r, struct journal_entry *entry)
{
    for (guint i = 0; r->previous && i < r->previous->renames->len; i++) {
        const struct lease_rename *rename = r->previous->renames->pdata[i];
        bool was_base;
        char *path;

        if (!g_str_has_prefix(entry->path, rename->from))
            continue;
        path = g_strconcat(rename->to, entry->path + strlen(rename->from), NULL);
        was_base = g_strcmp0(entry->base_key, entry->path) == 0;
        g_free(entry->path);
        entry->path = path;
        if (was_base) {
            g_free(entry->base_key);
            entry->base_key = g_strdup(path);
        }
    }
}

/* Whether OBJECT is the base, or that and more behind it: an earlier publish has landed, and the
 * file was rewritten since. */
static bool is_grown_base(const struct journal_entry *entry, const struct store_object *object)
{
    const char *lineage = lineage_of(object->metadata);

    return entry->etag && lineage && object->size_bytes >= entry->base_size &&
           g_strcmp0(lineage, entry->base_lineage) == 0;
}

/* A copy of the base in the course of such a rename: another ETag, but the same file. */
static bool is_moved_base(struct recovery *r, const struct journal_entry *entry,
                          const struct store_object *object)
{
    bool below = false;

    for (guint i = 0; r->previous && i < r->previous->renames->len; i++)
        below = below ||
                g_str_has_prefix(entry->path,
                                 ((const struct lease_rename *)r->previous->renames->pdata[i])->to);
    return below && object->size_bytes == entry->base_size && is_grown_base(entry, object);
}

/* Whether what ENTRY has in memory of OBJECT's bytes is what OBJECT has. */
static int compare_bytes(struct recovery *r, const struct journal_entry *entry,
                         const struct store_object *object, bool *same)
{
    g_autofree char *there = g_malloc(BUFFER_MAX);
    int error = 0;

    *same = true;
    for (unsigned i = 0; *same && i < layout_count(&entry->layout); i++) {
        const struct extent *extent = layout_at(&entry->layout, i);
        uint64_t end = MIN(extent->end, object->size_bytes);

        for (uint64_t at = extent->start; extent->buffer && *same && at < end; at += BUFFER_MAX) {
            size_t size = MIN(BUFFER_MAX, end - at);
            const uint8_t *here =
                extent->buffer->data + extent->buffer_offset + (at - extent->start);

            error = base_fetch(r->fs, r->caller, object->key, object->etag, at, there, size);
            if (error)
                return error;
            *same = memcmp(here, there, size) == 0;
        }
    }
    return 0;
}

int recover_is_there(struct recovery *r, const struct journal_entry *entry,
                     const struct store_object *object, bool *is_there)
{
    const char *lineage = lineage_of(object->metadata);

    *is_there = lineage && g_strcmp0(lineage, lineage_of(entry->metadata)) == 0 &&
                object->size_bytes == layout_size(&entry->layout);
    return *is_there ? compare_bytes(r, entry, object, is_there) : 0;
}

/* OBJECT is what an earlier publish of the file made of it: the entry's base. */
static void set_base(struct journal_entry *entry, const struct store_object *object)
{
    uint64_t size = MIN(object->size_bytes, layout_size(&entry->layout));

    g_free(entry->etag);
    entry->etag = g_strdup(object->etag);
    g_free(entry->base_key);
    entry->base_key = g_strdup(object->key);
    entry->base_size = object->size_bytes;
    layout_set_places(&entry->layout, 0, size, true, false);
    layout_drop_clean(&entry->layout);
    layout_forget_parts(&entry->layout);
    g_clear_pointer(&entry->upload, upload_free);
}

/* Whether bytes of ENTRY from OFFSET on are in the object that it was based on. */
static bool needs_base_behind(const struct journal_entry *entry, uint64_t offset)
{
    for (unsigned i = layout_find(&entry->layout, offset); i < layout_count(&entry->layout); i++)
        if (layout_at(&entry->layout, i)->in_object)
            return true;
    return false;
}

/* A publish may have been carried out, and the process killed before it knew: the same lineage, and
 * no byte that says otherwise. */
static int adopt_landed(struct recovery *r, struct journal_entry *entry,
                        const struct store_object *object, bool *landed)
{
    const char *lineage = lineage_of(object->metadata);
    int error;

    *landed = lineage && g_strcmp0(lineage, lineage_of(entry->metadata)) == 0 &&
              object->size_bytes <= layout_size(&entry->layout) &&
              !needs_base_behind(entry, object->size_bytes);
    if (entry->upload && layout_only_in_part(&entry->layout, 0, INT64_MAX))
        *landed = *landed && object->size_bytes >= entry->upload->end;
    if (!*landed)
        return 0;
    error = compare_bytes(r, entry, object, landed);
    if (!error && *landed)
        set_base(entry, object);
    return error;
}

/* The open upload to a key of ours may have been committed. */
static int adopt_staged(struct recovery *r, struct journal_entry *entry)
{
    g_autoptr(StoreCall) object = NULL;
    bool landed;
    int error;

    if (!entry->upload || !entry->upload->staged)
        return 0;
    error = head(r, entry->upload->key, &object);
    return error || !object ? error : adopt_landed(r, entry, &object->object, &landed);
}

/* Bytes that are in parts alone, and of those some that nobody can be sure of. */
static bool has_unsure_parts(const struct journal_entry *entry)
{
    uint64_t sure = 0;

    for (guint i = 0; entry->upload && i < entry->upload->parts->len; i++) {
        const struct part *part = entry->upload->parts->pdata[i];

        if (!part->etag && layout_only_in_part(&entry->layout, part->start, part->end))
            return true;
        sure = part->end;
    }
    return layout_only_in_part(&entry->layout, sure, INT64_MAX);
}

static bool needs_base(const struct journal_entry *entry)
{
    for (unsigned i = 0; i < layout_count(&entry->layout); i++)
        if (layout_at(&entry->layout, i)->in_object)
            return true;
    for (guint i = 0; entry->upload && i < entry->upload->parts->len; i++)
        if (((struct part *)entry->upload->parts->pdata[i])->copied)
            return true;
    return false;
}

/* Whether it may be seen under its name as it is: see docs/journal.md. */
static bool may_show(const struct journal_entry *entry)
{
    uint32_t state = entry->state;

    if (entry->is_cut)
        return false;
    if (!(state & JOURNAL_DATA) || !(state & JOURNAL_WRITERS) ||
        (state & (JOURNAL_WANTED | JOURNAL_DUE)))
        return true;
    return (state & JOURNAL_PUBLISHED) && !(state & JOURNAL_REWRITTEN) &&
           (!(state & JOURNAL_BULK) || (state & JOURNAL_SLOW));
}

/* What stands under the entry's name: *IS_BASE: what it is based on, or nothing where there was
 * nothing; *LANDED: what a publish of it made. */
static int check_name(struct recovery *r, struct journal_entry *entry, bool *is_base, bool *landed)
{
    g_autoptr(StoreCall) object = NULL;
    bool is_staged = key_is_staged(entry->base_key);
    int error = head(r, entry->path, &object);

    *landed = false;
    *is_base = !object && (!entry->etag || is_staged);
    if (error || !object)
        return error;
    if (!is_staged && entry->etag && strcmp(entry->etag, object->object.etag) == 0) {
        *is_base = true;
        return 0;
    }
    *is_base = !is_staged && is_moved_base(r, entry, &object->object);
    if (!*is_base)
        error = adopt_landed(r, entry, &object->object, landed);
    if (!error && !*landed && !is_staged && is_grown_base(entry, &object->object)) {
        g_free(entry->etag);
        entry->etag = g_strdup(object->object.etag);
        g_free(entry->base_key);
        entry->base_key = g_strdup(entry->path);
        *is_base = true;
    }
    /* Under a staged base there may be any older one: while that is there, nobody else wrote. */
    *is_base = *is_base || *landed || is_staged;
    return error;
}

static int check_staged_base(struct recovery *r, const struct journal_entry *entry, bool *is_there)
{
    g_autoptr(StoreCall) object = NULL;
    int error = 0;

    *is_there = true;
    if (!key_is_staged(entry->base_key))
        return 0;
    error = head(r, entry->base_key, &object);
    *is_there = object && g_strcmp0(object->object.etag, entry->etag) == 0;
    return error;
}

int recover_check(struct recovery *r, struct journal_entry *entry, enum fate *fate,
                  const char **why)
{
    bool is_base, landed, staged_is_there;
    int error;

    *why = "";
    follow_renames(r, entry);
    error = adopt_staged(r, entry);
    if (!error)
        error = check_name(r, entry, &is_base, &landed);
    if (!error)
        error = check_staged_base(r, entry, &staged_is_there);
    if (error)
        return error;
    *fate = FATE_SHOW;
    if (landed && layout_is_saved(&entry->layout) &&
        entry->base_size == layout_size(&entry->layout)) {
        *fate = FATE_DONE;
    } else if (!(entry->state & JOURNAL_DATA) && !is_base) {
        *fate = FATE_DONE; /* nothing but attributes, of a file that is another one now */
    } else if (has_unsure_parts(entry)) {
        *why = "some of it was not to be read any more";
        *fate = FATE_LOST;
    } else if (needs_base(entry) && !(is_base && staged_is_there)) {
        *why = "it was a change of an object that is not there any more";
        *fate = FATE_LOST;
    } else if (!is_base) {
        *why = "another client has changed it meanwhile";
        *fate = FATE_ASIDE;
    } else if (!landed && !may_show(entry)) {
        *why = entry->is_cut ? "the journal is damaged" : "it was still being written";
        *fate = FATE_ASIDE;
    }
    if (*fate == FATE_ASIDE && layout_size(&entry->layout) == 0) {
        *fate = FATE_DONE; /* nothing was written */
    } else if (*fate == FATE_ASIDE && layout_only_in_part(&entry->layout, 0, INT64_MAX)) {
        *why = "it was still being written, and parts of an upload cannot be read";
        *fate = FATE_LOST;
    }
    return 0;
}
