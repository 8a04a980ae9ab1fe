/* Complaints: an object that cannot be saved is logged once, with the cause, until it is saved. So
 * a store that refuses everything for hours fills no disk: its files are named at the unmount. */
#include "fusefs/fs_internal.h"

#define OBJECTS_MAX 100 /* that are complained about at a time */
#define OLD_MS      600000

static gboolean is_old(gpointer key, gpointer said_ms, gpointer user)
{
    return now_ms() - (int64_t)GPOINTER_TO_SIZE(said_ms) > OLD_MS;
}

/* Whether KEY is to be complained about now; *LAST: no other one will be. */
static bool may_say(struct fs *fs, const char *key, bool *last)
{
    bool may = false;

    pthread_mutex_lock(&fs->notes_lock);
    g_hash_table_foreach_remove(fs->complaints, is_old, NULL);
    if (g_hash_table_size(fs->complaints) < OBJECTS_MAX &&
        !g_hash_table_contains(fs->complaints, key)) {
        g_hash_table_insert(fs->complaints, g_strdup(key), GSIZE_TO_POINTER(now_ms()));
        may = true;
    }
    *last = g_hash_table_size(fs->complaints) == OBJECTS_MAX;
    pthread_mutex_unlock(&fs->notes_lock);
    return may;
}

void complain(struct fs *fs, const char *key, const char *format, ...)
{
    g_autofree char *text = NULL;
    bool last;
    va_list args;

    if (!may_say(fs, key, &last))
        return;
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    log_error("%s", text);
    pthread_mutex_lock(&fs->notes_lock);
    g_free(fs->last_complaint);
    fs->last_complaint = g_steal_pointer(&text);
    pthread_mutex_unlock(&fs->notes_lock);
    if (last)
        log_error("%d objects cannot be saved; more of them are not logged for now", OBJECTS_MAX);
}

char *fs_last_complaint(struct fs *fs)
{
    char *text;

    pthread_mutex_lock(&fs->notes_lock);
    text = g_strdup(fs->last_complaint);
    pthread_mutex_unlock(&fs->notes_lock);
    return text;
}

void complain_no_more(struct fs *fs, const char *key)
{
    pthread_mutex_lock(&fs->notes_lock);
    g_hash_table_remove(fs->complaints, key);
    pthread_mutex_unlock(&fs->notes_lock);
}
