/* What publish.c (turns, and what is dirty) and save.c (getting it into the store) share. Not for
 * other files. */
#pragma once

#include "fusefs/fs_internal.h"

enum goal {
    GOAL_VISIBLE, /* the file's own object */
    GOAL_STAGED,  /* a staged object: readable here, out of everybody else's sight */
};

struct publish {
    struct fs *fs;
    struct fs_caller *caller;
    struct inode *inode;
    enum goal goal;
    char *key; /* the file's own */
    struct layout snapshot;
    GHashTable *metadata;
    char *lineage;
    bool data, rewritten, attrs_explicit;
    uint64_t size;
    /* what came of it */
    char *to, *etag;      /* where the snapshot is saved now; NULL: nowhere */
    GPtrArray *leftovers; /* char*, staged objects that are not needed any more */
    bool again;           /* the object carries older attributes */
    bool in_doubt;        /* it may have been carried out, though it failed */
};

/* P->to and P->etag tell where the snapshot is then, also when a later step failed. No lock held.
 */
int save_directory(struct publish *p);
int save_file(struct publish *p);

/* --- publish.c --- */
void publish_clear(struct publish *p); /* also of one that has nothing */
/* The snapshot is the object P->to, with P->etag, now. inode->lock held. */
void publish_take_over(struct publish *p);
/* What the inode is now is another file than the snapshot, unless it only grew. inode->lock held.
 */
void publish_compare(struct publish *p);
void publish_remove_leftovers(struct publish *p); /* no lock held */

/* --- doubt.c --- */
/* P has failed, and may have been carried out: what it holds is kept. inode->lock held. */
void doubt_keep(struct publish *p);
/* What became of an earlier one is to be found out before one for GOAL. inode->lock held. */
bool doubt_is_open(const struct inode *inode, enum goal goal);
/* Finds out what came of it. Who has the turn to publish calls it, and before anything is sent. */
int doubt_settle(struct fs *fs, struct fs_caller *caller, struct inode *inode);
