/* Parallel transfer of a tree between a local directory and a store prefix: many small and few
 * large files alike, large ones in parts both ways.
 *
 * shape:  DIR/a/b <-> PREFIX + "a/b". Modes, mtimes and symlinks travel as file_attrs; empty
 *          directories as keys ending in '/'. Sockets, devices and fifos are skipped with a
 * warning. errors:  the first failure stops new work; what is in flight ends; nothing half-written
 * stays in place of a file (temp + rename locally, commit in the store). A file that cannot be
 * read, or changes meanwhile, stops only itself: the upload fails when all others are there.
 *          Already transferred files stay, and a second call with only_changed continues.
 * safety:  a key that would leave DIR (.., absolute, through a planted symlink) is an error.
 * threads: the calling one blocks; `progress` is called from it, at most ten times a second.
 */
#pragma once

#include "storage/store.h"

struct transfer_progress {
    uint64_t files_done, files_total;
    uint64_t bytes_done, bytes_total;
    bool counting; /* totals still grow */
};

struct transfer_options {
    bool only_changed;     /* skip files whose size, mtime and mode are the same on both sides */
    uint64_t memory_bytes; /* buffers in flight; 0: 128 MiB */
    unsigned parallel;     /* 0: the store's */
    void (*progress)(const struct transfer_progress *progress, void *user);
    void *progress_user;
    const int *stop; /* atomic; not NULL and not 0: give up with ECANCELED (set by a signal) */
};

struct transfer_result {
    uint64_t files, bytes, skipped;
};

/* RESULT may be NULL. */
bool transfer_upload(const char *dir, struct store *store, const char *prefix,
                     const struct transfer_options *options, struct transfer_result *result,
                     GError **error);
bool transfer_download(struct store *store, const char *prefix, const char *dir,
                       const struct transfer_options *options, struct transfer_result *result,
                       GError **error);

/* The one object KEY as the file (or symlink) NAME of DIR, which exists. */
bool transfer_download_file(struct store *store, const char *key, const char *dir, const char *name,
                            const struct transfer_options *options, struct transfer_result *result,
                            GError **error);

/* Every object below FROM_PREFIX to TO_PREFIX of another store (server-side where it is the same).
 */
bool transfer_copy(struct store *from, const char *from_prefix, struct store *to,
                   const char *to_prefix, const struct transfer_options *options,
                   struct transfer_result *result, GError **error);
