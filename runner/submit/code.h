/* The code a run works with: a snapshot of the working tree as code/SHA256.tar.zst.
 *
 * shape:  what git tracks, and what it neither tracks nor ignores, as it is on disk, also in
 *         submodules and in repositories inside the repository; without git, the whole directory
 *         but .git; never $DSTACK_HOME. The archive is deterministic (sorted, no owners), so equal
 *         trees give equal names and are uploaded once. Who needs one has an empty object
 *         code/SHA256!REFERENCE, written before the archive is looked for.
 * limits: sockets, devices and symlinks that lead out of the tree are left out (the last with a
 *         warning).
 * safety: extraction refuses absolute paths, "..", and anything that would go through a symlink; a
 *         symlink that leaves the tree is refused too.
 */
#pragma once

#include "storage/store.h"

/* The paths below DIR that belong to the snapshot, sorted. GPtrArray of char*. */
GPtrArray *code_files(const char *dir, GError **error);

/* Uploads DIR's snapshot unless the store has it, and notes that REFERENCE (a run's id) needs it.
 * SHA256 is hexadecimal. */
bool code_save(struct store *root, const char *dir, const char *reference, char **sha256,
               GError **error);

/* REFERENCE needs the snapshot no more; it is removed when nobody does. */
bool code_release(struct store *root, const char *sha256, const char *reference, GError **error);

/* Downloads SHA256's snapshot, checks it, and extracts it into DIR, which exists. */
bool code_restore(struct store *root, const char *sha256, const char *dir, GError **error);

/* The two halves, on local files. */
bool code_pack(const char *dir, GPtrArray *files, int fd, GError **error);
bool code_unpack(int fd, const char *dir, GError **error);
