/* Clearing up behind mounts that ended badly. What they had under way stands in their leases
 * (lease.h): uploads are aborted, renames of directories finished, staged objects removed.
 *
 * An exclusive mount clears up everything of ours below the prefix, since nobody else writes there.
 * One that shares it does so behind writers that have ended or lapsed.
 *
 * Uploads whose id nobody knows: the answer to their begin was lost, or their mount died before it
 * wrote the id down. Only an exclusive mount aborts those: all of a key that may have one, and
 * those that began when the dead mount last wrote its lease.
 */
#include "fusefs/recover.h"

#include <errno.h>
#include <string.h>

#define LAPSED_SLACK_MS 10000
#define NS_PER_MS       INT64_C(1000000)
#define BEAT_SLACK_MS   1000 /* what the beat on its way then did not hold yet */
#define ABORT_MS        5000 /* at the end of a mount nobody waits longer for a silent store */

struct clearing {
    struct fs *fs;
    int64_t now_ns;  /* the store's own time */
    GPtrArray *keys; /* char*, to be deleted at the end */
};

/* False: it stays. */
static bool abort_upload(struct fs *fs, const char *key, const char *id)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_ABORT, key);
    int error;

    call->upload_id = g_strdup(id);
    error = run_call(fs, NULL, call);
    if (error)
        log_warning("an upload to %s stays: %s", key, call->error->message);
    else
        log_info("aborted an upload to %s that another mount had left", key);
    return !error;
}

typedef bool wanted_upload(const struct store_upload *upload, const void *user);

/* Aborts the uploads below PREFIX for which WANTED says yes. */
static bool abort_wanted(struct fs *fs, const char *prefix, unsigned deadline_ms,
                         wanted_upload *wanted, const void *user, GError **error)
{
    g_autofree char *token = NULL;

    do {
        g_autoptr(StoreCall) page = store_call_new(STORE_UPLOADS, prefix);

        page->deadline_ms = deadline_ms;
        page->token = g_steal_pointer(&token);
        if (!store_run(fs->store, page, error))
            return false;
        for (guint i = 0; i < page->uploads->len; i++) {
            const struct store_upload *upload = page->uploads->pdata[i];

            if (wanted(upload, user))
                abort_upload(fs, upload->key, upload->upload_id);
        }
        token = g_strdup(page->next_token);
    } while (token);
    return true;
}

static bool is_any(const struct store_upload *upload, const void *user)
{
    return true;
}

static bool is_of_key(const struct store_upload *upload, const void *user)
{
    return strcmp(upload->key, user) == 0;
}

static bool began_at_the_end(const struct store_upload *upload, const void *user)
{
    const struct lease_record *record = user;
    int64_t end_ns = record->unsettled_ns ? record->unsettled_ns : record->written_ns;

    return upload->started_ns >= end_ns - BEAT_SLACK_MS * NS_PER_MS &&
           upload->started_ns <= record->written_ns + record->ttl_ms * NS_PER_MS;
}

void leftovers_note_lost(struct fs *fs, const char *key)
{
    bool is_new;

    if (!fs_is_authority(fs))
        return; /* others may have begun it */
    pthread_mutex_lock(&fs->notes_lock);
    is_new = g_hash_table_add(fs->lost_uploads, g_strdup(key));
    pthread_mutex_unlock(&fs->notes_lock);
    if (is_new)
        lease_add_upload(fs->options.lease, key, "");
}

void leftovers_abort_lost(struct fs *fs)
{
    g_autoptr(GError) error = NULL;
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, fs->lost_uploads);
    while (!error && fs_is_authority(fs) && g_hash_table_iter_next(&iter, &key, NULL))
        if (abort_wanted(fs, key, ABORT_MS, is_of_key, key, &error))
            upload_forget(fs, key, "");
    if (error)
        log_warning("uploads that were begun twice may stay: %s", error->message);
}

static int finish_rename(struct fs *fs, const struct lease_rename *rename)
{
    g_autoptr(GHashTable) etags = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    int error = prefix_copy(fs, NULL, rename->from, rename->to, keys, etags);

    if (error)
        return error;
    prefix_delete(fs, keys);
    log_info("finished the rename of %s to %s that another mount had begun", rename->from,
             rename->to);
    return 0;
}

static bool abort_uploads(struct fs *fs, const struct lease_record *record, GError **error)
{
    for (guint i = 0; i < record->uploads->len; i++) {
        const struct lease_upload *upload = record->uploads->pdata[i];
        bool is_gone = false;

        if (*upload->id)
            is_gone = abort_upload(fs, upload->key, upload->id);
        else if (fs_is_authority(fs)) {
            if (!abort_wanted(fs, upload->key, 0, is_of_key, upload->key, error))
                return false;
            is_gone = true;
        }
        if (is_gone)
            upload_forget(fs, upload->key, upload->id);
    }
    return true;
}

/* The names that they had are not asked for any more. */
static void forget_renames(struct fs *fs, const struct lease_record *record)
{
    for (guint i = 0; fs->options.lease && i < record->renames->len; i++)
        lease_remove_rename(fs->options.lease,
                            ((const struct lease_rename *)record->renames->pdata[i])->from);
}

static bool finish_renames(struct fs *fs, const struct lease_record *record, GError **error)
{
    for (guint i = 0; i < record->renames->len; i++) {
        const struct lease_rename *rename = record->renames->pdata[i];
        int code = finish_rename(fs, rename);

        if (code)
            return error_set_errno(error, code,
                                   "finish the rename of %s to %s, which a mount that "
                                   "has ended had begun",
                                   rename->from, rename->to);
    }
    return true;
}

/* NULL: gone meanwhile, or not ours. */
static struct lease_record *read_record(struct fs *fs, const char *key)
{
    g_autofree char *text = NULL;
    size_t size;

    if (!store_read(fs->store, key, LEASE_RECORD_MAX, &text, &size, NULL, NULL))
        return NULL;
    return lease_record_parse(text, size, NULL);
}

static bool has_lapsed(const struct clearing *c, const struct store_object *object,
                       const struct lease_record *record)
{
    if (fs_is_authority(c->fs) || lease_record_is_dead(record))
        return true;
    return (c->now_ns - object->mtime_ns) / 1000000 > (int64_t)record->ttl_ms + LAPSED_SLACK_MS;
}

static bool collect_key(const struct store_object *object, void *user, GError **error)
{
    g_ptr_array_add(user, g_strdup(object->key));
    return true;
}

static bool clear_writer(const struct store_object *object, void *user, GError **error)
{
    struct clearing *c = user;
    g_autoptr(LeaseRecord) record = NULL;
    g_autofree char *staged = NULL;

    if (g_str_has_suffix(object->key, c->fs->owner))
        return true;
    record = read_record(c->fs, object->key);
    if (!record || !has_lapsed(c, object, record))
        return true;
    if (!abort_uploads(c->fs, record, error) || !finish_renames(c->fs, record, error))
        return false;
    staged = g_strconcat(STAGED_PREFIX, record->owner, "/", NULL);
    g_ptr_array_add(c->keys, g_strdup(object->key));
    return store_list(c->fs->store, staged, false, collect_key, c->keys, error);
}

/* All of ours but the lease itself, and every upload to a staged object. */
static bool collect_all(struct clearing *c, GError **error)
{
    if (!store_list(c->fs->store, OWN_PREFIX, false, collect_key, c->keys, error))
        return false;
    for (guint i = c->keys->len; i-- > 0;)
        if (strcmp(c->keys->pdata[i], LEASE_KEY) == 0)
            g_ptr_array_remove_index(c->keys, i);
    return abort_wanted(c->fs, STAGED_PREFIX, 0, is_any, NULL, error);
}

static bool find_time(struct clearing *c, GError **error)
{
    g_autofree char *writer = g_strconcat(WRITERS_PREFIX, c->fs->owner, NULL);
    struct store_object object = {0};

    if (!store_head(c->fs->store, fs_is_authority(c->fs) ? LEASE_KEY : writer, &object, error))
        return false;
    c->now_ns = object.mtime_ns;
    store_object_clear(&object);
    return true;
}

bool fs_clear_leftovers(struct fs *fs, const struct lease_record *previous, GError **error)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    struct clearing c = {.fs = fs, .keys = keys};

    /* Names first, since that is where the journal's files are; uploads last, since it may go on
     * with them. All of it stands in our lease until it is done: we may end badly too. */
    if (previous && !finish_renames(fs, previous, error))
        return false;
    if (!fs_recover(fs, previous, error))
        return false;
    if (previous)
        forget_renames(fs, previous);
    if (previous && !abort_uploads(fs, previous, error))
        return false;
    if (previous && previous->written_ns && fs_is_authority(fs) &&
        !abort_wanted(fs, "", 0, began_at_the_end, previous, error))
        return false;
    if (previous && fs->options.lease)
        lease_settle(fs->options.lease);
    if (!find_time(&c, error) ||
        !store_list(fs->store, WRITERS_PREFIX, false, clear_writer, &c, error))
        return false;
    if (fs_is_authority(fs) && !collect_all(&c, error))
        return false;
    for (guint i = 0; i < keys->len; i++)
        if (!store_delete(fs->store, keys->pdata[i], error))
            return false;
    return true;
}
