/* Attributes of the names that are looked up next. Where neither an index nor a record tells them,
 * each is a HEAD: `ls -l` waits for one after the other, though it asks in the order in which it
 * listed them. From the second lookup on that follows an open listing, the names behind it are
 * asked for at the same time. */
#include "fusefs/fs_internal.h"

#include <string.h>

#define AHEAD_MAX 32 /* at a time, and about as many as the store answers at once */

struct wish {
    struct question question;
    char *name;
    bool is_dir;
    struct store_call *head;
    struct waiter *waiter;
};

struct lookahead {
    struct inode *parent;
    unsigned count;
    struct wish wishes[AHEAD_MAX];
};

static void take_name(struct inode *parent, struct wish *wish, char *name)
{
    wish->name = name;
    wish->is_dir = g_str_has_suffix(name, "/");
    if (wish->is_dir)
        name[strlen(name) - 1] = '\0';
    question_begin(parent, &wish->question, name);
}

struct lookahead *lookahead_begin(struct fs *fs, struct inode *parent, const char *name)
{
    g_autoptr(GPtrArray) names = NULL;
    struct lookahead *ahead = NULL;

    pthread_mutex_lock(&fs->lock);
    names = dir_names_ahead(fs, parent, name, AHEAD_MAX);
    if (names && names->len) {
        ahead = g_new0(struct lookahead, 1);
        ahead->parent = parent;
        for (; ahead->count < names->len; ahead->count++)
            take_name(parent, &ahead->wishes[ahead->count], g_strdup(names->pdata[ahead->count]));
    }
    pthread_mutex_unlock(&fs->lock);
    for (unsigned i = 0; ahead && i < ahead->count; i++) {
        struct wish *wish = &ahead->wishes[i];
        g_autofree char *file_key = child_key(fs, parent, wish->name);
        g_autofree char *key = g_strconcat(file_key, wish->is_dir ? "/" : "", NULL);

        wish->head = store_call_new(STORE_HEAD, key);
        wish->waiter = start_call(fs, wish->head);
    }
    return ahead;
}

/* What could not be had is left to its own lookup. */
static struct inode *finish(struct fs *fs, struct fs_caller *caller, struct inode *parent,
                            struct wish *wish)
{
    int error = finish_call(fs, caller, wish->head, wish->waiter);
    bool is_prefix = error == ENOENT && wish->is_dir;
    struct inode *child = NULL;

    if (!error || is_prefix) {
        error = name_adopt(fs, parent, &wish->question, wish->is_dir,
                           is_prefix ? NULL : &wish->head->object, &child);
    } else {
        pthread_mutex_lock(&fs->lock);
        question_end(parent, &wish->question);
        pthread_mutex_unlock(&fs->lock);
    }
    store_call_unref(wish->head);
    g_free(wish->name);
    return error ? NULL : child;
}

void lookahead_end(struct fs *fs, struct fs_caller *caller, struct lookahead *ahead)
{
    GPtrArray *held;

    if (!ahead)
        return;
    held = g_ptr_array_new();
    for (unsigned i = 0; i < ahead->count; i++) {
        struct inode *child = finish(fs, caller, ahead->parent, &ahead->wishes[i]);

        if (child)
            g_ptr_array_add(held, child);
    }
    dir_hold(fs, ahead->parent, held);
    g_free(ahead);
}
