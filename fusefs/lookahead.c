/* Attributes of the names that are looked up next. Where neither an index nor a record tells them,
 * each is a HEAD: `ls -l` waits for one after the other, though it asks in the order in which it
 * listed them. Who follows an open listing in its order has the names behind asked for at the same
 * time. A lookup waits for its own answer, and as long again for the others, a second at most: what
 * is not there by then is given up, and left to its own lookup. */
#include "fusefs/fs_internal.h"

#include <string.h>

#define AHEAD_MAX       32 /* about as many as the store answers at once */
#define PATIENCE_MIN_MS 20
#define PATIENCE_MAX_MS 1000

struct wish {
    struct question question;
    char *name;
    bool is_dir;
    struct store_call *head; /* NULL: it was never asked for */
    struct waiter *waiter;
};

struct lookahead {
    struct inode *parent;
    struct fs_dir *listing; /* to be compared alone: it may be closed */
    int64_t began_ms;
    unsigned count;
    struct wish wishes[AHEAD_MAX];
};

static void take_name(struct fs *fs, struct inode *parent, struct wish *wish, const char *name)
{
    wish->name = g_strdup(name);
    wish->is_dir = g_str_has_suffix(name, "/");
    if (wish->is_dir)
        wish->name[strlen(name) - 1] = '\0';
    question_begin(fs, parent, &wish->question, wish->name);
}

struct lookahead *lookahead_new(struct fs *fs, struct inode *parent, const char *name)
{
    g_autoptr(GPtrArray) names = NULL;
    struct lookahead *ahead = NULL;
    struct fs_dir *listing;

    pthread_mutex_lock(&fs->lock);
    names = dir_names_ahead(fs, parent, name, AHEAD_MAX, &listing);
    if (names->len) {
        ahead = g_new0(struct lookahead, 1);
        ahead->parent = parent;
        ahead->listing = listing;
        ahead->began_ms = now_ms();
        for (guint i = 0; i < names->len; i++)
            take_name(fs, parent, &ahead->wishes[ahead->count++], names->pdata[i]);
    }
    pthread_mutex_unlock(&fs->lock);
    return ahead;
}

void lookahead_start(struct fs *fs, struct lookahead *ahead)
{
    for (unsigned i = 0; ahead && i < ahead->count; i++) {
        struct wish *wish = &ahead->wishes[i];
        g_autofree char *file_key = child_key(fs, ahead->parent, wish->name);
        g_autofree char *key = g_strconcat(file_key, wish->is_dir ? "/" : "", NULL);

        wish->head = store_call_new(STORE_HEAD, key);
        wish->waiter = start_call(fs, wish->head);
    }
}

/* Whether a directory is known to be there, of which the store has no object. */
static bool is_prefix(struct fs *fs, struct inode *parent, const struct wish *wish, int error)
{
    const struct record *record;
    bool known;

    if (error != ENOENT || !wish->is_dir)
        return false;
    pthread_mutex_lock(&fs->lock);
    record = fs_is_authority(fs) && parent->names ? names_find(parent, wish->name) : NULL;
    known = record && S_ISDIR(record->mode);
    pthread_mutex_unlock(&fs->lock);
    return known;
}

/* NULL: left to its own lookup. */
static struct inode *take_answer(struct fs *fs, struct fs_caller *caller, struct inode *parent,
                                 struct wish *wish)
{
    int error = wish->head ? finish_call(fs, caller, wish->head, wish->waiter) : ECANCELED;
    bool is_found = !error || is_prefix(fs, parent, wish, error);
    struct inode *child = NULL;

    if (is_found && name_adopt(fs, parent, &wish->question, wish->is_dir,
                               error ? NULL : &wish->head->object, &child) == 0)
        return child;
    if (!is_found)
        question_drop(fs, parent, &wish->question);
    return NULL;
}

static void give_up_late_ones(struct fs *fs, struct fs_caller *caller, struct lookahead *ahead)
{
    int64_t now = now_ms();
    int64_t until_ms = now + CLAMP(now - ahead->began_ms, PATIENCE_MIN_MS, PATIENCE_MAX_MS);

    for (unsigned i = 0; i < ahead->count; i++) {
        struct wish *wish = &ahead->wishes[i];

        if (wish->head && !call_is_answered(caller, wish->waiter, until_ms))
            store_cancel(fs->store, wish->head);
    }
}

void lookahead_end(struct fs *fs, struct fs_caller *caller, struct lookahead *ahead)
{
    GPtrArray *held;

    if (!ahead)
        return;
    held = g_ptr_array_new();
    give_up_late_ones(fs, caller, ahead);
    for (unsigned i = 0; i < ahead->count; i++) {
        struct wish *wish = &ahead->wishes[i];
        struct inode *child = take_answer(fs, caller, ahead->parent, wish);

        if (child)
            g_ptr_array_add(held, child);
        store_call_unref(wish->head);
        g_free(wish->name);
    }
    dir_hold(fs, ahead->parent, ahead->listing, held);
    g_free(ahead);
}
