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
};

/* P->to and P->etag tell where the snapshot is then, also when a later step failed. No lock held.
 */
int save_directory(struct publish *p);
int save_file(struct publish *p);
