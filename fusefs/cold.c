/* Letting go of inodes that nobody uses. The kernel remembers what it looked up until it is short
 * of memory itself, and each such inode is one here. Beyond a number of them, a thread asks the
 * kernel to forget those that were not looked up for longest; its forgets then come as at any other
 * time.
 *
 * threads: the kernel takes a directory's lock for this, which the process holds that waits for us:
 *          so never from a request's thread, and with no lock of ours held.
 */
#include "fusefs/fs_internal.h"

#include <signal.h>

#define COLD_MAX (24 * 1024) /* of about 700 bytes */
#define BATCH    256
#define TICK_MS  20

struct cold {
    struct fs *fs;
    fs_ask_forget *forget;
    void *user;
    pthread_t thread;
    atomic_bool stopping;
};

struct name {
    uint64_t parent;
    char *name;
};

void cold_add(struct fs *fs, struct inode *inode)
{
    inode->cold_link.data = inode;
    if (!is_directory(inode))
        g_queue_push_tail_link(&fs->cold, &inode->cold_link);
}

void cold_remove(struct fs *fs, struct inode *inode)
{
    if (!is_directory(inode))
        g_queue_unlink(&fs->cold, &inode->cold_link);
}

void cold_touch(struct fs *fs, struct inode *inode)
{
    cold_remove(fs, inode);
    cold_add(fs, inode);
}

static void name_clear(void *data)
{
    g_free(((struct name *)data)->name);
}

/* The names that are to be forgotten next, and in the queue they are the last from now on, so that
 * one that the kernel keeps is not asked for again and again. */
static GArray *choose(struct fs *fs)
{
    GArray *names = g_array_new(FALSE, FALSE, sizeof(struct name));

    g_array_set_clear_func(names, name_clear);
    pthread_mutex_lock(&fs->lock);
    for (unsigned i = 0; i < BATCH && fs->cold.length > COLD_MAX + names->len; i++) {
        struct inode *inode = fs->cold.head->data;

        cold_touch(fs, inode);
        if (inode->parent && !inode->pins && inode->lookups) {
            struct name name = {inode->parent->ino, g_strdup(inode->name)};

            g_array_append_val(names, name);
        }
    }
    pthread_mutex_unlock(&fs->lock);
    return names;
}

/* From when the mount is to end, no more is begun that the kernel may wait in. */
static bool is_over(struct cold *cold)
{
    return atomic_load(&cold->stopping) || atomic_load(&cold->fs->draining);
}

static void *cold_main(void *user)
{
    struct cold *cold = user;

    while (!is_over(cold)) {
        g_autoptr(GArray) names = choose(cold->fs);

        for (guint i = 0; i < names->len && !is_over(cold); i++) {
            const struct name *name = &g_array_index(names, struct name, i);

            cold->forget(cold->user, name->parent, name->name);
        }
        if (names->len < BATCH / 2)
            g_usleep(TICK_MS * 1000);
    }
    return NULL;
}

void fs_forget_start(struct fs *fs, fs_ask_forget *forget, void *user)
{
    struct cold *cold = g_new0(struct cold, 1);
    sigset_t all, before;

    *cold = (struct cold){.fs = fs, .forget = forget, .user = user};
    atomic_store(&fs->forgetting, cold);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&cold->thread, NULL, cold_main, cold) != 0)
        g_error("cannot start a thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void fs_forget_stop(struct fs *fs)
{
    struct cold *cold = atomic_exchange(&fs->forgetting, NULL);

    if (!cold)
        return;
    atomic_store(&cold->stopping, true);
    pthread_join(cold->thread, NULL);
    g_free(cold);
}
