/* Copies, commits and deletes that the store still carries out, though who asked was told EINTR.
 * They land at any moment, over what was written since; so nothing of ours is changed, or looked
 * up, under their keys until they have ended.
 *
 * threads: notes_lock guards them; they end on the store's threads.
 */
#include "fusefs/fs_internal.h"
#include "fusefs/upload.h"

#include <string.h>

#define LOOK_MS 10

struct late {
    bool undo; /* what came of it is to be removed */
};

static void end(struct fs *fs, const char *key)
{
    pthread_mutex_lock(&fs->notes_lock);
    g_hash_table_remove(fs->late, key);
    pthread_mutex_unlock(&fs->notes_lock);
}

static void undone(struct store_call *call, void *user)
{
    if (call->error)
        log_warning("a copy stays at %s: %s", call->key, call->error->message);
    end(user, call->key);
}

void late_begin(struct fs *fs, const char *key)
{
    pthread_mutex_lock(&fs->notes_lock);
    g_hash_table_replace(fs->late, g_strdup(key), g_new0(struct late, 1));
    pthread_mutex_unlock(&fs->notes_lock);
}

void late_end(struct fs *fs, const struct store_call *call)
{
    int error = error_errno(call->error);
    bool may_undo = (!error || maybe_carried_out(error)) && !fs_has_lost_lease(fs);
    g_autoptr(StoreCall) remove = NULL;
    const struct late *late;

    if (!error && call->verb == STORE_COMMIT)
        upload_forget(fs, call->key, call->upload_id);
    pthread_mutex_lock(&fs->notes_lock);
    late = g_hash_table_lookup(fs->late, call->key);
    if (late && late->undo && may_undo)
        remove = store_call_new(STORE_DELETE, call->key);
    else
        g_hash_table_remove(fs->late, call->key);
    pthread_mutex_unlock(&fs->notes_lock);
    if (remove)
        store_start(fs->store, remove, undone, fs);
}

bool late_is(struct fs *fs, const char *key)
{
    bool is;

    pthread_mutex_lock(&fs->notes_lock);
    is = g_hash_table_contains(fs->late, key);
    pthread_mutex_unlock(&fs->notes_lock);
    return is;
}

void late_list(struct fs *fs, GPtrArray *keys)
{
    GHashTableIter iter;
    gpointer key;

    pthread_mutex_lock(&fs->notes_lock);
    g_hash_table_iter_init(&iter, fs->late);
    while (g_hash_table_iter_next(&iter, &key, NULL))
        g_ptr_array_add(keys, g_strdup(key));
    pthread_mutex_unlock(&fs->notes_lock);
}

bool late_undo(struct fs *fs, const char *key)
{
    struct late *late;

    pthread_mutex_lock(&fs->notes_lock);
    late = g_hash_table_lookup(fs->late, key);
    if (late)
        late->undo = true;
    pthread_mutex_unlock(&fs->notes_lock);
    return late != NULL;
}

static gboolean concerns(gpointer late_key, gpointer late, gpointer key)
{
    return g_str_has_suffix(key, "/") ? g_str_has_prefix(late_key, key)
                                      : strcmp(late_key, key) == 0;
}

int late_wait(struct fs *fs, struct fs_caller *caller, const char *key)
{
    for (;;) {
        bool is_one;

        pthread_mutex_lock(&fs->notes_lock);
        is_one = g_hash_table_find(fs->late, concerns, (gpointer)key);
        pthread_mutex_unlock(&fs->notes_lock);
        if (!is_one)
            return 0;
        if (is_interrupted(caller))
            return EINTR;
        g_usleep(LOOK_MS * 1000);
    }
}
