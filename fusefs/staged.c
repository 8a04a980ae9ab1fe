/* Objects of our own beside the files: what had to be saved before its file was finished, and what
 * is kept of files that were removed while open. Named after this mount, so that the next one can
 * tell whose they were. */
#include "fusefs/fs_internal.h"

char *staged_key_new(struct fs *fs)
{
    return g_strdup_printf(STAGED_PREFIX "%s/%u", fs->owner,
                           atomic_fetch_add(&fs->staged_count, 1));
}

bool key_is_staged(const char *key)
{
    return key && g_str_has_prefix(key, STAGED_PREFIX);
}

static void removed(struct store_call *call, void *user)
{
    if (call->error)
        log_info("%s stays until the next mount: %s", call->key, call->error->message);
}

void staged_remove(struct fs *fs, const char *key)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_DELETE, key);

    store_start(fs->store, call, removed, NULL);
}
