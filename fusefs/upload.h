/* What the two halves of the upload pipeline share: upload.c (parts go up while the program writes)
 * and upload_finish.c (the rest, and the commit). Not for other files. */
#pragma once

#include "fusefs/fs_internal.h"

#define SENDING_MAX 6

/* A part under way: the context of its call's `done`. */
struct fs_part {
    struct fs *fs;
    struct upload *upload;
    struct part *part;
};

struct starting {
    struct store_call *call;
    struct fs_part *context;
};

/* How large part NUMBER is at the most. */
uint64_t part_bytes_for(struct fs *fs, unsigned number);

/* All with inode->lock held, but for start_all. */
struct upload *upload_new(const char *key);
struct part *part_new(struct upload *upload, struct inode *inode, uint64_t start, uint64_t end);
void part_forget_bytes(struct part *part);
/* Shorter than any part but the last may be: its bytes stay in memory until the commit. */
bool part_is_short(struct fs *fs, const struct part *part);
void upload_free(struct upload *upload);
void upload_complain(struct fs *fs, const char *what, const struct store_call *call);

/* An upload to KEY whose first PREFIX bytes the store copies, and the call that begins it. */
struct store_call *begin_prepare(struct fs *fs, struct inode *inode, const char *key,
                                 uint64_t prefix);

/* PART's call joins LIST (struct starting); its state becomes SENDING. */
void starting_add(GArray *list, struct fs *fs, struct inode *inode, struct part *part);
/* The call that commits UPLOAD, all of whose parts are sent. */
struct store_call *commit_prepare(const struct upload *upload);
void start_all(struct fs *fs, struct inode *inode, GArray *list);
