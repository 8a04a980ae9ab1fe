/* An open directory's listing: shared by dir.c, which makes it, and dir_follow.c, which sees who
 * looks up its names one after the other.
 *
 * threads: what it lists does not change while it is published; the kernel reads a handle's listing
 * a request at a time.
 */
#pragma once

#include "fusefs/fs_internal.h"

#define DOTS 2 /* "." and "..", which come first */

/* A million names are 30 MB: their entries are packed. */
struct fs_dir {
    uint64_t ino, parent_ino; /* "." and "..", which come first */
    GPtrArray *names;         /* each with its struct tag before it, in `chunk` */
    GStringChunk *chunk;
    /* From the store: */
    GHashTable *records; /* what an index was right about */
    int64_t began_ms;    /* as of when the records are true */
    uint64_t edits;      /* the directory's of then */
    /* Lookups that follow it, guarded by fs->lock: */
    guint next;       /* where the next one is expected, of `names` */
    bool is_in_turn;  /* the last one was there */
    unsigned batch;   /* how many names were asked for ahead, and... */
    int64_t batch_ms; /* ...when */
    GPtrArray *held;  /* struct inode*, pinned: what came of it; NULL: nothing */
};

/* Whether what DIR's records say can still be believed. fs->lock held: no name goes meanwhile. */
bool dir_is_current(struct fs *fs, struct inode *parent, const struct fs_dir *dir);

/* --- dir_follow.c --- */
/* From now on lookups may follow DIR, ... */
void listing_publish(struct fs *fs, struct inode *inode, struct fs_dir *dir);
/* ... until this, before it changes or goes. */
void listing_withdraw(struct fs *fs, struct fs_dir *dir);
